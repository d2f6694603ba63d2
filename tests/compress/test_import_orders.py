"""Compression works whatever was imported before it, and whatever TF_USE_LEGACY_KERAS says."""

import os
import subprocess
import sys

import pytest

WORK = """
import os, keras, numpy as np
model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2, name="logits")])
from keraslight import compress, errors
{before}
import tensorflow_model_optimization as tfmot
data, half = (np.ones((4, 4, 4, 1), "float32"), np.arange(4) % 2), tfmot.sparsity.keras.ConstantSparsity(0.5, 1)
pruned = compress.prune(model, data, schedule=half, epochs=1, verbose=0)
assert compress.sparsity(pruned, "logits").total >= 0.5
print(type(compress.quantize_aware(pruned)).__module__.split(".")[0], keras.__version__[0])
{after}
"""
FOREIGN = """
import tensorflow as tf
foreign = tf.keras.Sequential([tf.keras.layers.Input((4, 4, 1)), tf.keras.layers.Flatten(), tf.keras.layers.Dense(2)])
for door in (compress.fuse, compress.quantize_aware, lambda model: compress.prune(model, data)):
    try:
        door(foreign)
    except errors.CompressionError as error:
        print(error)
"""


def run(first, before="", after="", **environment):
    code = f"{first}\n{WORK.format(before=before, after=after)}"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "before", "environment"),
    [
        ("", "", {}),
        ("import tensorflow_model_optimization", "", {}),
        ("import tf_keras, tensorflow as tf; tf.keras.layers.Dense", "", {}),
        ("", "compress.quantize_aware(model)", {}),
        ("import tf_keras", "", {}),
        ("import tensorflow", "import tf_keras", {}),
        ("import tensorflow_model_optimization", "", {"TF_USE_LEGACY_KERAS": "0"}),
        ("", "", {"TF_USE_LEGACY_KERAS": "True"}),
        ("import tf_keras", "import keraslight.zoo", {"TF_USE_LEGACY_KERAS": "1"}),
    ],
)
def test_every_import_order_works(first, before, environment):
    assert run(first, before, **environment) == ["keraslight 3"]


def test_models_of_a_forced_keras_2_are_an_error_that_says_so():
    done, *errors = run("import tensorflow_model_optimization", after=FOREIGN, TF_USE_LEGACY_KERAS="1")
    assert done == "keraslight 3"  # models of Keras 3 are compressed all the same
    assert len(errors) == 3
    assert all("must be a model of Keras 3" in error and "of tf_keras (Keras 2)" in error for error in errors)
