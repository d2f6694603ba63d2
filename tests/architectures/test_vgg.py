import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

import keraslight
from keraslight.errors import InvalidArgumentError, WeightsMismatchError

NARROW = {"width": 0.125, "classes": 10}


def test_batch_norm_follows_convolutions_that_keep_their_bias():
    model = keraslight.VGG("16_bn", **NARROW)
    assert model.get_layer("stage4_conv2").use_bias
    assert model.get_layer("stage4_conv2_bn").input is model.get_layer("stage4_conv2").output
    plain = keraslight.VGG("16", **NARROW)
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in plain.layers)


def test_dense_layers_cover_the_map_or_move_over_it():
    def shapes(*sides):
        model = keraslight.VGG("11", input_shape=(*sides, 3), **NARROW)
        return model.get_layer("fc1").kernel_size, model.get_layer("fc1").output.shape[1:3]

    assert shapes(224, 255) == ((7, 7), (1, 1))
    assert shapes(256, 300) == ((7, 7), (2, 3))
    assert shapes(100, 224) == ((3, 7), (1, 1))
    assert shapes(None, None) == ((7, 7), (None, None))


def test_larger_image_gives_the_mean_over_its_windows():
    small = keraslight.VGG("11", classifier_activation=None, **NARROW)
    large = keraslight.VGG("11", classifier_activation=None, input_shape=(None, None, 3), **NARROW)
    large.set_weights(small.get_weights())
    image = np.random.default_rng(0).normal(size=(1, 224, 288, 3)).astype("float32")
    maps = keras.Model(large.input, large.get_layer("fc2_act").output)(image)
    assert maps.shape[1:3] == (1, 3)
    logits = [large.get_layer("classifier")(maps[:, 0, i]) for i in range(3)]
    np.testing.assert_allclose(large(image), sum(logits) / 3, atol=1e-6)


def test_dropout_follows_both_hidden_layers():
    model = keraslight.VGG("11", **NARROW)
    assert [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)] == [0.5, 0.5]
    with pytest.raises(InvalidArgumentError, match=r"`dropout` must be in \[0, 1\). Received: dropout=1.0"):
        keraslight.VGG("11", dropout=1.0, **NARROW)


def test_torchvisions_linears_load_only_where_the_map_is_7x7(tmp_path):
    arguments = {"classifier_activation": None, "input_shape": (224, 224, 3), **NARROW}
    model = keraslight.create_model("torchvision/vgg11", **arguments)
    tensors = {}
    for ours, theirs in (("fc1", "classifier.0"), ("fc2", "classifier.3"), ("classifier", "classifier.6")):
        kernel, bias = (np.asarray(w) for w in model.get_layer(ours).weights)
        if kernel.ndim == 4:  # torch flattens (C, H, W)
            kernel = kernel.transpose(2, 0, 1, 3).reshape(-1, kernel.shape[-1])
        tensors |= {f"{theirs}.weight": np.ascontiguousarray(kernel.T), f"{theirs}.bias": bias}
    indices = iter((0, 3, 6, 8, 11, 13, 16, 18))
    for layer in model.layers:
        if layer.name.startswith("stage") and isinstance(layer, keras.layers.Conv2D):
            index = next(indices)
            kernel = np.asarray(layer.kernel).transpose(3, 2, 0, 1)
            tensors |= {f"features.{index}.weight": np.ascontiguousarray(kernel)}
            tensors |= {f"features.{index}.bias": np.asarray(layer.bias)}
    save_file(tensors, tmp_path / "vgg.safetensors")

    again = keraslight.create_model("torchvision/vgg11", weights=tmp_path / "vgg.safetensors", **arguments)
    for mine, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    arguments["input_shape"] = (128, 128, 3)
    with pytest.raises(WeightsMismatchError, match=r"\+ fc1/kernel \(4, 4, 64, 512\) in the model"):
        keraslight.create_model("torchvision/vgg11", weights=tmp_path / "vgg.safetensors", **arguments)
