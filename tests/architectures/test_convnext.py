import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

import keraslight
from keraslight.layers import LayerNorm, LayerScale
from keraslight.weights import CHECKPOINTS
from tests.nets import of_top


def net(variant="tiny", **arguments):
    small = {"input_shape": (32, 32, 3), "width": 0.1}
    return keraslight.ConvNeXt(variant, **{**small, **of_top(arguments)})


def test_patches_without_padding():
    model = net(input_shape=(47, 65, 3), features_only=True)
    assert model.get_layer("stem").padding == "valid"
    assert model.get_layer("stem").kernel_size == model.get_layer("stem").strides == (4, 4)
    assert model.get_layer("stage1_down").kernel_size == model.get_layer("stage1_down").strides == (2, 2)
    sides = {key: tensor.shape[1:3] for key, tensor in model.output.items()}
    assert sides == {"stride_4": (11, 16), "stride_8": (5, 8), "stride_16": (2, 4), "stride_32": (1, 2)}


def test_a_blocks_layers():
    model = net()
    names = [layer.name.removeprefix("stage0_block0_") for layer in model.layers if "stage0_block0_" in layer.name]
    assert names == ["depthwise", "norm", "expand", "expand_act", "project", "layer_scale", "add"]
    depthwise, expand = (model.get_layer(f"stage0_block0_{part}") for part in ("depthwise", "expand"))
    assert isinstance(depthwise, keras.layers.DepthwiseConv2D)
    assert depthwise.kernel_size == (7, 7)
    assert depthwise.use_bias
    assert expand.filters == 4 * depthwise.kernel.shape[2]
    assert not any(layer.name != "classifier" and isinstance(layer, keras.layers.Dense) for layer in model.layers)


def test_epsilon_and_the_order_of_the_head():
    model = net()
    norms = [layer for layer in model.layers if isinstance(layer, LayerNorm)]
    assert len(norms) == 1 + 3 + 18 + 1
    assert {layer.epsilon for layer in norms} == {1e-6}
    assert [layer.name for layer in model.layers[-5:]] == [
        "pool",
        "head_norm",
        "flatten",
        "classifier",
        "probabilities",
    ]


def test_gelu_is_exact():
    layer = net().get_layer("stage0_block0_expand_act")
    x = np.array([[1.0, -2.0]], "float32")
    np.testing.assert_allclose(np.asarray(layer(x)), [[0.841345, -0.0455003]], atol=1e-6)  # tanh's: 0.841192


def test_layer_scale_starts_small_and_can_be_left_out():
    scales = [layer for layer in net().layers if isinstance(layer, LayerScale)]
    assert len(scales) == 18
    assert {layer.init_values for layer in scales} == {1e-6}
    assert not any(isinstance(layer, LayerScale) for layer in net(layer_scale=None).layers)


def test_drop_path_rises_to_the_last_block():
    model = net(drop_path=0.34)
    rates = [layer.rate for layer in model.layers if type(layer).__name__ == "DropPath"]
    assert rates == pytest.approx([0.02 * i for i in range(1, 18)])


def reference(scheme, model, shapes):
    """A checkpoint in a reference's names and shapes."""
    rng = np.random.default_rng(0)
    tensors = {}
    for ours, theirs in scheme:
        for name, shape in shapes(model.get_layer(ours), theirs):
            tensors[name] = rng.normal(size=shape).astype("float32")
    return tensors


def shapes(layer, theirs):
    """Linear layers as (F, C), torchvision's layer scale as a bare (C, 1, 1)."""
    if isinstance(layer, LayerScale):
        channels = layer.gamma.shape[0]
        yield (theirs, (channels, 1, 1)) if theirs.endswith("layer_scale") else (f"{theirs}.gamma", (channels,))
        return
    weights = layer.gamma if isinstance(layer, LayerNorm) else layer.kernel
    shape = tuple(weights.shape)
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        shape = (shape[2], 1, *shape[:2])
    elif len(shape) == 4 and shape[:2] == (1, 1):
        shape = (shape[3], shape[2])
    elif len(shape) == 4:
        shape = (shape[3], shape[2], *shape[:2])
    elif len(shape) == 2:
        shape = shape[::-1]
    yield f"{theirs}.weight", shape
    yield f"{theirs}.bias", shape[:1]


@pytest.mark.parametrize("source", ["timm", "torchvision"])
def test_loads_linears_and_bare_layer_scales(source, tmp_path):
    names = CHECKPOINTS[f"{source}/convnext_tiny{'.fb_in1k' if source == 'timm' else ''}"].torch_names
    small = {"input_shape": (32, 32, 3), "width": 0.1}
    tensors = reference(names(blocks=(3, 3, 9, 3)), net(), shapes)
    save_file(tensors, tmp_path / "reference.safetensors")
    model = keraslight.create_model(
        f"{source}/convnext_tiny", weights=tmp_path / "reference.safetensors", classes=10, **small
    )
    block = {"timm": "stages.2.blocks.4", "torchvision": "features.5.4"}[source]
    linear = tensors[f"{block}.{'mlp.fc1' if source == 'timm' else 'block.3'}.weight"]
    np.testing.assert_array_equal(np.asarray(model.get_layer("stage2_block4_expand").kernel)[0, 0], linear.T)
    scale = tensors[f"{block}.{'gamma' if source == 'timm' else 'layer_scale'}"]
    np.testing.assert_array_equal(np.asarray(model.get_layer("stage2_block4_layer_scale").gamma), scale.ravel())
    keraslight.create_model(
        f"{source}/convnext_tiny", weights=tmp_path / "reference.safetensors", **small, features_only=True
    )
