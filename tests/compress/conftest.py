"""A small trained net of MobileNetV4's vocabulary, and the digits that it was trained on."""

import functools
import os

import filelock
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from sklearn.datasets import load_digits

from keraslight.layers import DropPath, ImageNormalization, LayerScale
from keraslight.preprocessing import Preprocessing


@pytest.fixture(autouse=True)
def _free_models():
    """The nets here are small: collecting garbage after every test would take longer than the tests."""


def _conv(x, channels, kernel, stride=1, *, name, depthwise=False, active=True):
    if stride == 2:
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    common = {"strides": stride, "padding": "valid" if stride == 2 else "same", "use_bias": False, "name": name}
    conv = layers.DepthwiseConv2D(kernel, **common) if depthwise else layers.Conv2D(channels, kernel, **common)
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(conv(x))
    return layers.ReLU(name=f"{name}_act")(x) if active else x


def _attention(inputs, heads, dim, name):
    height, width, channels = inputs.shape[1:]
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(inputs)
    query = layers.Conv2D(heads * dim, 1, use_bias=False, name=f"{name}_query")(x)
    query = layers.Reshape((height * width * heads, dim), name=f"{name}_query_rows")(query)
    key, value = (
        layers.Reshape((height * width, dim), name=f"{name}_{part}_rows")(
            layers.Conv2D(dim, 1, use_bias=False, name=f"{name}_{part}")(x)
        )
        for part in ("key", "value")
    )
    x = layers.Dot(axes=(2, 2), name=f"{name}_scores")([query, key])
    x = layers.Softmax(name=f"{name}_attention")(layers.Rescaling(dim**-0.5, name=f"{name}_temperature")(x))
    x = layers.Dot(axes=(2, 1), name=f"{name}_context")([x, value])
    x = layers.Reshape((height, width, heads * dim), name=f"{name}_merge")(x)
    x = layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_output")(x)
    x = DropPath(0.05, name=f"{name}_drop_path")(LayerScale(0.5, name=f"{name}_layer_scale")(x))
    return layers.Add(name=f"{name}_add")([inputs, x])


def build_tiny():
    """A hybrid MobileNetV4 in small: 56,000 parameters, raw pixels (32, 32, 1) -> 10 classes."""
    images = keras.Input((32, 32, 1), name="images")
    x = ImageNormalization(Preprocessing((32, 32), mean=(0.3,), std=(0.35,)))(images)
    x = _conv(x, 16, 3, 2, name="stem")
    x = _conv(x, 24, 3, 2, name="fused")
    for block, stride in enumerate((2, 1)):
        y = _conv(x, 0, 3, name=f"block{block}_start", depthwise=True, active=False)
        y = _conv(y, 96, 1, name=f"block{block}_expand")
        y = _conv(y, 0, 5, stride, name=f"block{block}_depthwise", depthwise=True)
        y = _conv(y, 48, 1, name=f"block{block}_project", active=False)
        y = LayerScale(0.5, name=f"block{block}_layer_scale")(y)
        x = y if stride == 2 else layers.Add(name=f"block{block}_add")([x, y])
    x = _attention(x, 2, 16, "attention")
    x = _conv(x, 128, 1, name="head")
    x = layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
    x = _conv(x, 128, 1, name="neck")
    x = layers.Dropout(0.1, name="dropout")(layers.Flatten(name="flatten")(x))
    x = layers.Activation("softmax", name="probabilities")(layers.Dense(10, name="logits")(x))
    return keras.Model(images, x, name="tiny")


@pytest.fixture(scope="session")
def digits():
    """((images, labels) to train on, (images, labels) to test on): whole numbers 0..255, (n, 32, 32, 1)."""
    source = load_digits()
    images = tf.image.resize(source.images[..., None] * (255 / 16), (32, 32)).numpy().round().clip(0, 255)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order].astype("float32"), source.target[order]
    return (images[:1400], labels[:1400]), (images[1400:], labels[1400:])


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A function (name, make) -> make(), or `build_tiny()` with the weights that another worker has kept of it."""

    def get(name, make):
        folder = tmp_path_factory.getbasetemp()  # each worker's is in one of the whole run
        path = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / f"{name}.weights.h5"
        with filelock.FileLock(f"{path}.lock"):
            if path.exists():
                model = build_tiny()
                model.load_weights(path)
            else:
                model = make()
                model.save_weights(path)
        return model

    return get


def _train(digits):
    keras.utils.set_random_seed(0)
    model = build_tiny()
    rate = keras.optimizers.schedules.CosineDecay(5e-3, 8 * 22)
    model.compile(keras.optimizers.AdamW(rate), "sparse_categorical_crossentropy", jit_compile=False)
    model.optimizer.build(model.trainable_variables)  # else the first step is traced twice
    model.fit(*digits[0], batch_size=64, epochs=8, verbose=0)
    return model


@pytest.fixture(scope="session")
def trained(digits, shared):
    """The small net after eight epochs. Tests must not change it."""
    return shared("trained", lambda: _train(digits))


@pytest.fixture(scope="session")
def accuracy(digits):
    """A Keras 3 model's share of right answers on the test digits."""

    def measure(model):
        images, labels = digits[1]
        return float((model.predict(images, verbose=0).argmax(-1) == labels).mean())

    return measure


@pytest.fixture(scope="session")
def pruned(trained, digits, shared):
    """`trained` after pruning to 70%."""
    from keraslight import compress

    prune = functools.partial(compress.prune, sparsity=0.7, epochs=4, batch_size=64, verbose=0)
    return shared("pruned", lambda: prune(trained, digits[0]))
