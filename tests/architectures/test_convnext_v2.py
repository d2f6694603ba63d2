import numpy as np
import pytest

import keraslight
from keraslight.layers import GRN, LayerNorm, LayerScale
from keraslight.weights import CHECKPOINTS
from tests.nets import of_top


def net(variant="atto", **arguments):
    small = {"input_shape": (32, 32, 3), "width": 0.2}
    return keraslight.ConvNeXtV2(variant, **{**small, **of_top(arguments)})


def test_a_blocks_layers():
    model = net()
    names = [layer.name.removeprefix("stage1_block1_") for layer in model.layers if "stage1_block1_" in layer.name]
    assert names == ["depthwise", "norm", "expand", "expand_act", "grn", "project", "add"]
    assert model.get_layer("stage1_block1_grn").gamma.shape == (4 * model.get_layer("stage1_block1_project").filters,)
    assert not any(isinstance(layer, LayerScale) for layer in model.layers)


def test_epsilons():
    norms = [layer for layer in net().layers if isinstance(layer, (GRN, LayerNorm))]
    assert len(norms) == 12 + 1 + 3 + 12 + 1
    assert {layer.epsilon for layer in norms} == {1e-6}


def test_eight_sizes_all_published():
    names = keraslight.list_models("convnext_v2_*")
    sizes = ("atto", "femto", "pico", "nano", "tiny", "base", "large", "huge")
    assert sorted(names) == sorted(f"convnext_v2_{size}" for size in sizes)
    for name in names:
        assert CHECKPOINTS[keraslight.model_info(name).checkpoint].variant == name


def test_features_and_open_sizes():
    model = net(input_shape=(None, None, 3), features_only=True)
    maps = model(np.zeros((1, 47, 65, 3), "float32"))
    sides = {key: tuple(tensor.shape[1:3]) for key, tensor in maps.items()}
    assert sides == {"stride_4": (11, 16), "stride_8": (5, 8), "stride_16": (2, 4), "stride_32": (1, 2)}


def test_drop_path_rises_to_the_last_block():
    rates = [layer.rate for layer in net(drop_path=0.22).layers if type(layer).__name__ == "DropPath"]
    assert rates == pytest.approx([0.02 * i for i in range(1, 12)])


def test_trains():
    model = net(drop_path=0.1, dropout=0.1)
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    images = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype("float32")
    loss = model.train_on_batch(images, np.array([0, 1, 2, 3]))
    assert np.isfinite(loss)
    assert np.abs(np.asarray(model.get_layer("stage3_block1_grn").gamma)).max() > 0
