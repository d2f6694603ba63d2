"""Checkpoint files: where they come from and how each format is read. All give {name: array}."""

from __future__ import annotations

import warnings
from pathlib import Path

import keras
import numpy as np
from keras import layers

from keraslight.errors import MissingDependencyError, WeightsMismatchError, WeightsUnavailableError

HEAD = "classifier"
"""The layer that `classes` sizes: the only one that may start afresh, with auxiliary ones as `aux1_classifier`."""


def fetch(checkpoint_id: str | None, model_name: str, url: str | None = None) -> Path:
    """Downloads a published checkpoint, with a progress bar, or finds it in the cache.

    `timm/` ids come from the Hugging Face hub and its cache, `torchvision/` ids from `url` and Keras' cache.

    Raises:
        WeightsUnavailableError: none is published, or the source can't be reached and the cache lacks it.
    """
    source = (checkpoint_id or "").partition("/")[0]
    if url is None and source != "timm":
        raise WeightsUnavailableError(
            f"No ImageNet weights are published for {model_name!r} that could be fetched. Pass the path of a file as "
            f"`weights`, or choose a model with a timm/ or torchvision/ checkpoint (`keraslight list` shows them). "
            f"Received: checkpoint={checkpoint_id!r}."
        )
    try:
        return _from_url(url) if url else _from_hub(checkpoint_id)
    except (ImportError, KeyboardInterrupt):
        raise
    except Exception as error:  # the hub's client and urllib raise many kinds
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
    # The name's end is the start of the file's SHA-256, so a cached file is never another version's.
    return Path(keras.utils.get_file(url.rpartition("/")[2], origin=url, cache_subdir="keraslight"))


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch file, which only PyTorch reads; nothing in it is executed."""
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError(
            f"Reading {path.name} needs PyTorch: pip install torch. A .safetensors file needs nothing."
        ) from error
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        tensors = {name: tensor.numpy() for name, tensor in tensors.items()}
    except Exception as error:  # pickle's, zipfile's and torch's own
        raise WeightsMismatchError(f"{path} is not a PyTorch file of tensors: {error}") from error
    return _learned(tensors)


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise WeightsMismatchError(f"{path} is not a safetensors file: {error}.") from error
    return _learned(tensors)


def _learned(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors without PyTorch's counters of training steps, which no inference reads."""
    return {name: value for name, value in tensors.items() if not name.endswith("num_batches_tracked")}


def variables(model: keras.Model) -> list:
    """The model's variables, without the seeds of its random layers."""
    return [variable for variable in model.weights if "seed" not in variable.path]


def read_keras(path: Path, model: keras.Model) -> dict[str, np.ndarray]:
    """Variable path -> array of a .keras or .weights.h5 file."""
    try:
        if path.suffix == ".keras":
            stored = keras.saving.load_model(path, compile=False)
        else:
            # A weights file has no structure of its own: it is read into a copy of this model, whose classifier takes
            # the file's number of classes first.
            stored = _with_classes(model, _stored_classes(path))
            with warnings.catch_warnings():
                # Keras only warns of layers that the file lacks, and leaves them at random.
                warnings.filterwarnings("error", message="Skipping|.*could not be loaded")
                stored.load_weights(path)
    except (ValueError, OSError, KeyError, TypeError, UserWarning) as error:
        raise WeightsMismatchError(f"{path} can't be read into {model.name!r}: {error}") from error
    return {variable.path: np.asarray(variable) for variable in variables(stored)}


def _stored_classes(path: Path) -> int | None:
    """The number of classes in a .weights.h5 file: the width of its only dense layer, None where it has none."""
    import h5py

    widths: list[int] = []

    def visit(name: str, item: object) -> None:
        if "dense" in name and isinstance(item, h5py.Dataset) and len(item.shape) == 2:
            widths.append(item.shape[1])

    with h5py.File(path) as file:
        file.visititems(visit)
    return widths[-1] if widths else None


def _with_classes(model: keras.Model, classes: int | None) -> keras.Model:
    """A copy of the model whose classifier has `classes` outputs."""

    def clone(layer: layers.Layer) -> layers.Layer:
        config = layer.get_config()
        if layer.name == HEAD and classes is not None:
            config["units"] = classes
        return type(layer).from_config(config)

    return keras.models.clone_model(model, clone_function=clone)
