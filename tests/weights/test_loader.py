import logging
import sys
import types

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

import keraslight
import keraslight.zoo
from keraslight import registry
from keraslight.errors import (
    InvalidArgumentError,
    MissingDependencyError,
    WeightsMismatchError,
    WeightsUnavailableError,
)
from keraslight.weights import CHECKPOINTS, load_weights
from keraslight.weights.files import fetch
from keraslight.weights.loader import layer_slots
from tests.nets import of_top

SHAPE = (32, 32, 3)


def small(classes=5, **arguments):
    return keraslight.create_model("mobilenet_v4_conv_small", input_shape=SHAPE, **of_top(arguments, classes))


def names_of(model):
    full = model.name
    family = registry.FAMILIES[keraslight.model_info(full).family]
    row = family.variants[full]
    return CHECKPOINTS[row.checkpoint].torch_names(**row.arguments)


def torch_tensors(model, names=None) -> dict[str, np.ndarray]:
    """The model's weights under timm's names and in PyTorch's layout: the loader's inverse, written the other way."""
    tensors = {}
    for ours, theirs in names or names_of(model):
        layer = model.get_layer(ours)
        for suffix, slot in layer_slots(layer):
            value = np.asarray(slot.variable)
            if isinstance(layer, keras.layers.DepthwiseConv2D):
                value = value.transpose(2, 3, 0, 1)
            elif value.ndim == 4:
                value = value.transpose(3, 2, 0, 1)
            elif value.ndim == 2:
                value = value.T
            tensors[f"{theirs}.{suffix}"] = np.ascontiguousarray(value)
    return tensors


@pytest.fixture
def checkpoint(tmp_path):
    """A model with 5 classes and its weights as timm would write them."""
    model = small()
    tensors = torch_tensors(model)
    path = tmp_path / "timm.safetensors"
    save_file({**tensors, "bn1.num_batches_tracked": np.array(7)}, path)
    return model, tensors, path


def assert_equal_weights(one, other, *, but=()):
    others = {v.path: np.asarray(v) for v in other.weights}
    for variable in one.weights:
        if not variable.path.startswith(but or ("-",)):
            np.testing.assert_array_equal(np.asarray(variable), others[variable.path], err_msg=variable.path)


def test_safetensors_with_torch_names(checkpoint):
    model, _, path = checkpoint
    assert_equal_weights(small(weights=path), model)


def test_missing_and_left_over_tensors_are_listed(checkpoint, tmp_path):
    _, tensors, _ = checkpoint
    tensors = dict(tensors)
    tensors["blocks.9.9.conv.weight"] = tensors.pop("conv_stem.weight")
    save_file(tensors, tmp_path / "bad.safetensors")
    with pytest.raises(WeightsMismatchError) as caught:
        small(weights=tmp_path / "bad.safetensors")
    text = str(caught.value)
    assert "- blocks.9.9.conv.weight (32, 3, 3, 3) is only in the checkpoint" in text
    assert "+ stem/kernel (3, 3, 3, 32) is only in the model (wanted: conv_stem.weight)" in text


def test_another_shape_is_listed_on_both_sides_and_nothing_is_assigned(checkpoint, tmp_path):
    _, tensors, _ = checkpoint
    tensors = {**tensors, "bn1.bias": np.zeros(7, np.float32)}
    save_file(tensors, tmp_path / "bad.safetensors")
    model = small()
    before = [np.asarray(v) for v in model.weights]
    names = names_of(model)
    with pytest.raises(WeightsMismatchError, match=r"- bn1.bias \(7,\) in the checkpoint\n  \+ stem_bn/beta \(32,\)"):
        load_weights(model, tmp_path / "bad.safetensors", torch_names=names)
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, np.asarray(new))


def test_a_checkpoint_of_another_variant_is_cut_short(checkpoint):
    _, _, path = checkpoint
    with pytest.raises(WeightsMismatchError, match=r"don't fit 'mobilenet_v4_conv_medium'(.|\n)*\.\.\. and \d+ more"):
        keraslight.create_model("mobilenet_v4_conv_medium", input_shape=SHAPE, weights=path)


@pytest.mark.parametrize("ending", [".safetensors", ".keras", ".weights.h5"])
def test_another_number_of_classes_starts_a_fresh_head(ending, checkpoint, tmp_path, caplog):
    model, _, path = checkpoint
    if ending == ".keras":
        model.save(path := tmp_path / "model.keras")
    elif ending == ".weights.h5":
        model.save_weights(path := tmp_path / "model.weights.h5")
    with caplog.at_level(logging.WARNING, "keraslight"):
        other = small(classes=3, weights=path)
    assert "the classifier starts afresh (3 classes)" in caplog.text
    assert other.output_shape == (None, 3)
    assert_equal_weights(other, model, but=("classifier/",))


@pytest.mark.parametrize("ending", [".safetensors", ".keras"])
def test_without_top_the_head_is_left_out(ending, checkpoint, tmp_path, caplog):
    model, _, path = checkpoint
    if ending == ".keras":
        model.save(path := tmp_path / "model.keras")
    with caplog.at_level(logging.INFO, "keraslight"):
        features = small(weights=path, features_only=True)
    assert "left out" in caplog.text
    assert_equal_weights(features, model)


@pytest.mark.parametrize("ending", [".keras", ".weights.h5"])
def test_keras_files(ending, checkpoint, tmp_path):
    model, _, _ = checkpoint
    path = tmp_path / f"model{ending}"
    model.save(path) if ending == ".keras" else model.save_weights(path)
    assert_equal_weights(small(weights=path), model)
    with pytest.raises(WeightsMismatchError, match="mobilenet_v4_conv_medium"):
        keraslight.create_model("mobilenet_v4_conv_medium", input_shape=SHAPE, weights=path)


def test_a_missing_file_is_an_error():
    with pytest.raises(InvalidArgumentError, match="Received: 'imagnet', which is not a file"):
        small(weights="imagnet")


def test_a_file_of_another_format_is_an_error(tmp_path):
    (tmp_path / "weights.onnx").write_bytes(b"")
    with pytest.raises(InvalidArgumentError, match=r"must end in \.safetensors, \.pth, \.keras or \.weights\.h5"):
        small(weights=tmp_path / "weights.onnx")


@pytest.mark.parametrize("name", ["a.safetensors", "a.keras", "a.weights.h5"])
def test_a_broken_file_is_an_error(name, tmp_path):
    (tmp_path / name).write_bytes(b"not a checkpoint")
    with pytest.raises(WeightsMismatchError, match=name):
        small(weights=tmp_path / name)


def test_imagenet_from_the_cache(monkeypatch, tmp_path):
    """The real fetching code against a cache that was filled as the hub's client fills it."""
    import huggingface_hub.constants

    model = keraslight.create_model("mobilenet_v4_conv_small", input_shape=SHAPE)
    repository = tmp_path / "models--timm--mobilenetv4_conv_small.e2400_r224_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    save_file(torch_tensors(model), snapshot / "model.safetensors")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    again = keraslight.create_model("mobilenet_v4_conv_small", input_shape=SHAPE, weights="imagenet")
    assert_equal_weights(again, model)


def test_imagenet_offline_says_what_to_do(monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        WeightsUnavailableError,
        match=r"timm/mobilenetv4_conv_small.e2400_r224_in1k, model.safetensors.* pass its path as `weights`",
    ):
        small(weights="imagenet")


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_another_number_of_channels_adapts_the_first_convolution(channels, checkpoint, caplog):
    model, _, path = checkpoint
    with caplog.at_level(logging.INFO, "keraslight"):
        other = keraslight.create_model(
            "mobilenet_v4_conv_small", input_shape=(32, 32, channels), classes=5, weights=path
        )
    assert f"adapted from 3 channels to {channels}" in caplog.text
    rgb, adapted = (np.asarray(m.get_layer("stem").kernel) for m in (model, other))
    if channels == 1:
        np.testing.assert_allclose(adapted[:, :, 0], rgb.sum(axis=2), rtol=1e-6)
    else:
        wanted = rgb[:, :, [0, 1, 2, 0][:channels]] * 3 / channels
        np.testing.assert_allclose(adapted, wanted, rtol=1e-6)
    # Images whose channels are all the same give the same answer.
    if channels == 1:
        grey = np.random.default_rng(0).random((2, 32, 32, 1), np.float32)
        np.testing.assert_allclose(other(grey), model(grey.repeat(3, axis=3)), atol=1e-5)


BGR = ["ref/shufflenet_v2_x0_5", "ref/shufflenet_v1_g8_x0_5", "ref/shufflenet_v2_plus_small"]


@pytest.mark.parametrize("name", [BGR[0], *(pytest.param(name, marks=pytest.mark.slow) for name in BGR[1:])])
def test_weights_for_blue_green_red_take_red_green_blue(name, tmp_path):
    """The authors' network, which reads images with OpenCV, and ours on the same pictures, coloured and grey."""
    shape = {"input_shape": (32, 32, 3), "classifier_activation": None}
    theirs = keraslight.create_model(name, **shape)  # with its stem as it is: blue, green, red
    names = list(
        CHECKPOINTS[name].torch_names(
            **registry.FAMILIES[keraslight.model_info(name).family].variants[theirs.name].arguments
        )
    )
    path = tmp_path / "authors.safetensors"
    save_file(torch_tensors(theirs, names), path)
    ours = keraslight.create_model(name, weights=path, **shape)
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")

    def apart(one, other):
        """Largest difference of logits, relative to their spread."""
        return np.abs(one - other).max() / np.std(other)

    assert apart(ours(images), theirs(images[..., ::-1])) < 1e-3
    assert apart(ours(images), theirs(images)) > 1e-2
    kernels = [np.asarray(model.get_layer("stem").kernel) for model in (ours, theirs)]
    np.testing.assert_array_equal(kernels[0], kernels[1][:, :, ::-1])
    kept = tmp_path / "ours.weights.h5"
    ours.save_weights(kept)  # in our own files they are red, green, blue already
    again = keraslight.create_model(name, weights=kept, **shape)
    np.testing.assert_array_equal(again.get_layer("stem").kernel, kernels[0])
    grey = keraslight.create_model(name, weights=path, **{**shape, "input_shape": (32, 32, 1)})
    assert apart(grey(images[..., :1]), theirs(images[..., [0, 0, 0]])) < 1e-3
    four = keraslight.create_model(name, weights=path, **{**shape, "input_shape": (32, 32, 4)})
    wanted = kernels[0][:, :, [0, 1, 2, 0]] * np.float32(0.75)
    np.testing.assert_allclose(four.get_layer("stem").kernel, wanted, rtol=1e-6)


def test_only_the_authors_shufflenets_and_nanodets_are_blue_green_red():
    found = {name for name, checkpoint in CHECKPOINTS.items() if checkpoint.bgr}
    assert found == {name for name in CHECKPOINTS if name.startswith(("ref/shufflenet", "ref/nanodet"))}
    assert set(BGR) < found


def test_pth_files_need_pytorch(tmp_path, monkeypatch):
    file = tmp_path / "reference.pth"
    file.write_bytes(b"zip")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match=r"Reading reference.pth needs PyTorch: pip install torch"):
        small(weights=file)


def test_pth_files_are_read_with_pytorch(checkpoint, tmp_path, monkeypatch):
    """PyTorch is not a dependency, so a fake with the two calls in use stands in for it."""
    model, tensors, _ = checkpoint
    file = tmp_path / "reference.pth"
    file.write_bytes(b"zip")

    class Tensor:
        def __init__(self, array):
            self.numpy = lambda: array

    def load(path, *, map_location, weights_only):
        assert weights_only
        return {name: Tensor(array) for name, array in tensors.items()}

    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(load=load))
    assert_equal_weights(small(weights=file), model)


def test_models_without_published_weights_say_so():
    with pytest.raises(WeightsUnavailableError, match="No weights are published for 'net'.*checkpoint='ref/n'"):
        fetch("ref/n", "net")


def test_an_unreachable_address_says_so():
    with pytest.raises(WeightsUnavailableError, match="could not be fetched from file:///nowhere/net-0000.pth"):
        fetch("torchvision/net", "net", "file:///nowhere/net-0000.pth")
