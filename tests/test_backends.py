"""The zoo on Keras' JAX backend: the same weights give the same answers, without TensorFlow."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import keraslight.zoo
from keraslight import registry

DEFAULTS = [next(iter(family.variants)) for family in registry.FAMILIES.values()]
# JAX compiles each net anew, which takes long; test_vocabulary.py has every layer and block on it.
_QUICK = ("AlexNet", "ConvNeXtV2", "LeNet5", "ShuffleNetV2")
QUICK = [next(iter(registry.FAMILIES[name].variants)) for name in _QUICK]
CHILD = """
import json, sys
import numpy as np
import keraslight

folder, *names = sys.argv[1:]
differences = {}
for name in names:
    images, answers = np.load(f"{folder}/{name}.images.npy"), np.load(f"{folder}/{name}.answers.npy")
    model = keraslight.create_model(name, width=0.5, classes=10, input_shape=images.shape[1:])
    model.load_weights(f"{folder}/{name}.weights.h5")
    differences[name] = float(abs(model.predict(images, verbose=0) - answers).max())
import keras
print(json.dumps([keras.backend.backend(), "tensorflow" in sys.modules, differences]))
"""


@pytest.mark.parametrize("names", [QUICK, pytest.param(DEFAULTS, marks=pytest.mark.slow)], ids=["quick", "all"])
def test_every_family_answers_on_jax_as_on_tensorflow(names, tmp_path):
    for name in names:
        shape = (32, 32, 1) if name.startswith("lenet") else (72, 80, 3)
        model = keraslight.create_model(name, width=0.5, classes=10, input_shape=shape)
        images = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
        np.save(tmp_path / f"{name}.images.npy", images)
        np.save(tmp_path / f"{name}.answers.npy", model.predict(images, verbose=0))
        model.save_weights(tmp_path / f"{name}.weights.h5")

    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",  # compiling is most of the time here
        "PYTHONPATH": str(Path(keraslight.__file__).parent.parent),
    }
    run = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), *names], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    backend, tensorflow_loaded, differences = json.loads(run.stdout.splitlines()[-1])
    assert backend == "jax"
    assert not tensorflow_loaded
    assert set(differences) == set(names)
    assert {name: d for name, d in differences.items() if not d < 1e-4} == {}
