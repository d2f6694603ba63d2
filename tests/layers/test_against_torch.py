"""Stock layers, as this project uses them, and its own normalization against PyTorch's operators.

`against_torch.npz` was written with torch 2.13 by

    import numpy as np, torch
    from torch.nn import functional as F
    torch.manual_seed(0)
    last = lambda t: t.permute(0, 2, 3, 1).numpy()
    x = torch.randn(1, 6, 11, 13)
    out = {"x": last(x), "gelu": last(F.gelu(x)), "lrn": last(F.local_response_norm(x, 5, 0.5, 0.75, 2.0))}
    for h, w in [(4, 5), (1, 1), (11, 6)]:
        out[f"average_{h}x{w}"] = last(F.adaptive_avg_pool2d(x, (h, w)))
        out[f"max_{h}x{w}"] = last(F.adaptive_max_pool2d(x, (h, w)))
    for name, shape, settings in [("grouped", (9, 2, 3, 3), {"groups": 3, "padding": 1}),
                                  ("grouped_strided", (9, 2, 3, 3), {"groups": 3, "stride": 2}),
                                  ("dilated", (4, 6, 3, 3), {"dilation": 2, "padding": 2}),
                                  ("dilated_wide", (4, 6, 3, 3), {"dilation": (3, 4)})]:
        w, b = torch.randn(shape) / 4, torch.randn(shape[0])
        y = F.conv2d(x, w, b, **settings)
        out |= {f"{name}_w": w.permute(2, 3, 1, 0).numpy(), f"{name}_b": b.numpy(), name: last(y)}
    for name, k, settings in [("transposed_2", 2, {"stride": 2}), ("transposed_4", 4, {"stride": 2, "padding": 1}),
                              ("transposed_3", 3, {"stride": 2})]:
        w, b = torch.randn(6, 4, k, k) / 4, torch.randn(4)
        y = F.conv_transpose2d(x, w, b, **settings)
        out |= {f"{name}_w": w.permute(2, 3, 1, 0).numpy(), f"{name}_b": b.numpy(), name: last(y)}
    np.savez_compressed("tests/layers/against_torch.npz", **out)
"""

from pathlib import Path

import keras
import numpy as np
import pytest

from keraslight.blocks.conv import activate, conv
from keraslight.layers import GroupedConv2D, LocalResponseNorm

TORCH = np.load(Path(__file__).with_name("against_torch.npz"))


def agrees(name, layer, *, crop=None):
    """Runs a layer, with the fixture's weights if it has any, and compares."""
    x = TORCH["x"]
    layer.build(x.shape)
    if f"{name}_w" in TORCH:
        layer.kernel.assign(TORCH[f"{name}_w"])
        layer.bias.assign(TORCH[f"{name}_b"])
    np.testing.assert_allclose(np.asarray(layer(x)), TORCH[name][:, :crop, :crop], atol=1e-5)


@pytest.mark.parametrize("size", [(4, 5), (1, 1), (11, 6)])
def test_adaptive_pooling(size):
    agrees("average_{}x{}".format(*size), keras.layers.AdaptiveAveragePooling2D(size))
    # To one pixel Keras 3.15's adaptive maximum takes a window larger than the map: TensorFlow ends the process.
    largest = (
        keras.layers.GlobalMaxPooling2D(keepdims=True) if size == (1, 1) else keras.layers.AdaptiveMaxPooling2D(size)
    )
    agrees("max_{}x{}".format(*size), largest)


def test_local_response_norm():
    agrees("lrn", LocalResponseNorm(5, alpha=0.5 / 5, beta=0.75, bias=2.0))  # PyTorch divides alpha by the window


def test_gelu_is_the_exact_one():
    images = keras.Input((None, None, 6))
    model = keras.Model(images, activate(images, "gelu", name="act"))
    np.testing.assert_allclose(np.asarray(model(TORCH["x"])), TORCH["gelu"], atol=1e-6)
    rough = np.asarray(keras.activations.gelu(TORCH["x"], approximate=True))
    assert abs(rough - TORCH["gelu"]).max() > 1e-4  # the tanh form would be seen


@pytest.mark.parametrize("kind", [GroupedConv2D, keras.layers.Conv2D])
def test_grouped_convolution(kind):
    agrees("grouped", kind(9, 3, groups=3, padding="same"))
    agrees("grouped_strided", kind(9, 3, groups=3, strides=2))


def test_grouped_convolution_as_blocks_build_it():
    images = keras.Input((11, 13, 6))
    model = keras.Model(images, conv(images, 9, 3, groups=3, name="conv"))
    layer = model.get_layer("conv")
    layer.kernel.assign(TORCH["grouped_w"])
    layer.bias.assign(TORCH["grouped_b"])
    np.testing.assert_allclose(np.asarray(model(TORCH["x"])), TORCH["grouped"], atol=1e-5)


def test_dilated_convolution():
    agrees("dilated", keras.layers.Conv2D(4, 3, dilation_rate=2, padding="same"))
    agrees("dilated_wide", keras.layers.Conv2D(4, 3, dilation_rate=(3, 4)))


def test_transposed_convolution():
    agrees("transposed_2", keras.layers.Conv2DTranspose(4, 2, strides=2))
    agrees("transposed_4", keras.layers.Conv2DTranspose(4, 4, strides=2, padding="same"))  # padding=1 in PyTorch
    agrees("transposed_3", keras.layers.Conv2DTranspose(4, 3, strides=2))
    # An odd kernel with "same" is PyTorch's without padding less its last row and column; `output_padding` is not it.
    agrees("transposed_3", keras.layers.Conv2DTranspose(4, 3, strides=2, padding="same"), crop=-1)
