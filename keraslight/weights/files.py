"""Checkpoint files: fetches them and reads each format into {name: array}."""

import warnings
from pathlib import Path

import keras
import numpy as np
from keras import layers

from keraslight.errors import MissingDependencyError, WeightsMismatchError, WeightsUnavailableError

HEAD = "classifier"
"""Name of the layer that `classes` sizes: the only one (with auxiliary ones such as `aux1_classifier`) that may stay
randomly initialized."""


def fetch(checkpoint_id: str | None, model_name: str, url: str | None = None) -> Path:
    """Downloads a published checkpoint, with a progress bar, unless it is in the cache.

    `timm/` ids come from the Hugging Face hub and its cache, `torchvision/` ids from `url` and Keras' cache.

    Raises:
        WeightsUnavailableError: None is published, or the source is unreachable and the file is not in the cache.
    """
    if url is None and (checkpoint_id is None or not checkpoint_id.startswith("timm/")):
        raise WeightsUnavailableError(
            f"No weights are published for {model_name!r} that could be fetched. Pass the path of a file as "
            f"`weights`, or choose a model with a timm/ or torchvision/ checkpoint (`keraslight list` shows them). "
            f"Received: checkpoint={checkpoint_id!r}."
        )
    try:
        return _from_url(url) if url else _from_hub(str(checkpoint_id))
    except (ImportError, KeyboardInterrupt):
        raise
    except Exception as error:  # the hub's client and urllib raise many types
        what = url or f"the Hugging Face hub ({checkpoint_id}, model.safetensors)"
        raise WeightsUnavailableError(
            f"The weights of {model_name!r} could not be fetched from {what} and are not in its cache. Offline, "
            "download that file elsewhere and pass its path as `weights`. "
            f"The error: {type(error).__name__}: {error}"
        ) from error


def _from_hub(checkpoint_id: str) -> Path:
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingDependencyError(
            'Fetching weights needs huggingface-hub: pip install "keraslight[models]".'
        ) from error
    return Path(huggingface_hub.hf_hub_download(checkpoint_id, "model.safetensors"))


def _from_url(url: str) -> Path:
    # The name ends with the start of the file's SHA-256, so a cached file never belongs to another version.
    return Path(keras.utils.get_file(url.rpartition("/")[2], origin=url, cache_subdir="keraslight"))


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a PyTorch file with PyTorch, without executing anything in it."""
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError(
            f"Reading {path.name} needs PyTorch: pip install torch. A .safetensors file needs nothing."
        ) from error
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        tensors = {name: tensor.numpy() for name, tensor in tensors.items()}
    except Exception as error:  # from pickle, zipfile or torch
        raise WeightsMismatchError(f"{path} is not a PyTorch file of tensors: {error}") from error
    return _learned(tensors)


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a safetensors file."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise WeightsMismatchError(f"{path} is not a safetensors file: {error}.") from error
    return _learned(tensors)


def _learned(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Removes PyTorch's counters of training steps, which inference doesn't use."""
    return {name: value for name, value in tensors.items() if not name.endswith("num_batches_tracked")}


def read_keras(path: Path, model: keras.Model) -> dict[str, np.ndarray]:
    """Reads a .keras or .weights.h5 file into {variable path: array}."""
    try:
        if path.suffix == ".keras":
            stored = keras.saving.load_model(path, compile=False)
        else:
            # A weights file has no structure of its own, so it is read into a copy of this model that has the file's
            # number of classes.
            stored = _with_classes(model, _stored_classes(path, model))
            with warnings.catch_warnings():
                # For layers that the file lacks, Keras only warns and leaves them random.
                warnings.filterwarnings("error", message="Skipping|.*could not be loaded")
                stored.load_weights(path)
    except (ValueError, OSError, KeyError, TypeError, UserWarning) as error:
        raise WeightsMismatchError(f"{path} can't be read into {model.name!r}: {error}") from error
    return {variable.path: np.asarray(variable) for variable in stored.weights}


def _stored_classes(path: Path, model: keras.Model) -> int | None:
    """Returns the number of classes in a .weights.h5 file of this architecture; None if that can't be told.

    The file has no names of layers: Keras counts the layers of each class.
    """
    import h5py

    kinds = [type(layer).__name__ for layer in model.layers]
    place = next((n for n, layer in enumerate(model.layers) if layer.name == HEAD), None)
    if place is None:
        return None
    kind = kinds[place].lower()  # Dense or Conv2D
    number = kinds[:place].count(kinds[place])
    with h5py.File(path) as file:
        kernel = file.get(f"layers/{kind}{f'_{number}' if number else ''}/vars/0")
        return int(kernel.shape[-1]) if isinstance(kernel, h5py.Dataset) else None


def _with_classes(model: keras.Model, classes: int | None) -> keras.Model:
    """Copies the model, with `classes` outputs of the classifier and of auxiliary ones."""

    def clone(layer: layers.Layer) -> layers.Layer:
        config = layer.get_config()
        if layer.name.endswith(HEAD) and classes is not None:
            config["filters" if "filters" in config else "units"] = classes
        return type(layer).from_config(config)

    return keras.models.clone_model(model, clone_function=clone)
