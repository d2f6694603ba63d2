"""Gradients, on TensorFlow here and on JAX in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops

import keraslight
from keraslight.analysis._gradient import gradient
from keraslight.errors import InvalidArgumentError


def check_all():
    """Every case, on the backend that runs."""
    x = np.arange(6.0).reshape(2, 3)
    value, slope = gradient(lambda t: t**2, x)  # of the sum
    np.testing.assert_array_equal(value, x**2)
    np.testing.assert_array_equal(slope, 2 * x)
    assert type(value) is type(slope) is np.ndarray

    value, slope = gradient(lambda t: t[1, 2] * t[0, 1], x)  # a scalar
    assert value == 5
    np.testing.assert_array_equal(slope, [[0, 5, 0], [0, 0, 1]])

    value, slope = gradient(lambda t: ops.ones((2,)), np.arange(3))  # no dependence, and integers
    np.testing.assert_array_equal(value, [1, 1])
    np.testing.assert_array_equal(slope, [0, 0, 0])

    images = keras.Input((5, 5, 2))
    y = layers.BatchNormalization()(layers.Conv2D(3, 3, kernel_initializer="ones", use_bias=False)(images))
    model = keras.Model(images, layers.Dropout(0.5)(y))
    value, slope = gradient(lambda t: model(t, training=False)[:, 1, 1], np.ones((1, 5, 5, 2)))
    scale = 1 / np.sqrt(1 + 1e-3)  # the batch norm's, as it starts
    np.testing.assert_allclose(value, np.full((1, 3), 18 * scale), rtol=1e-6)
    expected = np.zeros((1, 5, 5, 2))
    expected[:, 1:4, 1:4] = 3 * scale  # three filters, each with a one there
    np.testing.assert_allclose(slope, expected, rtol=1e-6)


def test_on_tensorflow():
    check_all()


@pytest.mark.slow
def test_on_jax():
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(Path(keraslight.__file__).parent.parent), str(Path(__file__).parent)]
    )
    code = (
        "import sys, test_gradient as t; t.check_all(); print(t.keras.backend.backend(), 'tensorflow' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["jax", "False"]


def test_backends_without_gradients_are_named(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "numpy")
    with pytest.raises(InvalidArgumentError, match="need Keras' TensorFlow, JAX or PyTorch backend. Received: 'numpy'"):
        gradient(lambda t: t, np.ones(1))
