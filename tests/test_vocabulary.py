"""Every layer and every block alike: they serialize, train, run in half precision, convert, and run on JAX."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from keraslight import blocks, layers
from keraslight.export import to_litert
from tests import vocabulary

# What `keraslight.blocks` lists and is no block: numbers and settings.
NO_BLOCKS = {"PLAIN", "TENSORFLOW", "TORCH", "ConvStyle", "eca_kernel_size", "effective_kernel_size", "make_divisible"}

# Shifts that the batch norm behind the next, linear convolution takes away again, and one of all keys alike, which a
# softmax does not see.
WITHOUT_EFFECT = {
    "its_mobile_mqa_key_down_bn/beta",
    "its_sandglass_reduce_bn/beta",
    "its_shuffle_down_depthwise_bn/beta",
    "its_shuffle_down_shortcut_depthwise_bn/beta",
    "its_shuffle_plus_unit_depthwise_bn/beta",
    "its_shuffle_plus_unit_shortcut_depthwise_bn/beta",
    "its_shuffle_unit_depthwise_bn/beta",
    "its_universal_inverted_bottleneck_start_bn/beta",
}


def images(count=3):
    return np.random.default_rng(0).normal(size=(count, *vocabulary.SHAPE)).astype("float32")


def randomize(model):
    """Weights of no special value: zeros and ones hide what they multiply."""
    rng = np.random.default_rng(1)
    for variable in model.weights:
        if "seed" not in variable.path:
            low, high = (0.5, 1.5) if "variance" in variable.path else (-0.3, 0.3)
            if variable.path.endswith("bias"):
                low, high = 0.3, 0.6  # no ReLU that is 0 for all images
            variable.assign(rng.uniform(low, high, variable.shape))


@pytest.fixture(scope="module", params=list(vocabulary.MODELS))
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def model(kind):
    model = vocabulary.MODELS[kind]()
    randomize(model)
    return model


@pytest.fixture(scope="module")
def answers(model):
    return model.predict(images(), verbose=0)


def test_nothing_is_left_out():
    assert sorted(name for names in vocabulary.LAYERS for name in names) == sorted(layers.__all__)
    assert sorted([*vocabulary.BLOCKS, "add_residual"]) == sorted(set(blocks.__all__) - NO_BLOCKS)
    model = vocabulary.every_layer()
    assert {type(layer).__name__ for layer in model.layers} >= set(layers.__all__)


def test_saved_and_loaded_it_answers_the_same(model, answers, tmp_path):
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras").predict(images(), verbose=0)
    assert set(again) == set(answers)
    for name, values in answers.items():
        np.testing.assert_array_equal(again[name], values, err_msg=name)


def test_every_weight_learns(kind):
    model = vocabulary.MODELS[kind]()
    randomize(model)
    rng = np.random.default_rng(2)
    targets = {name: rng.normal(size=(3, *output.shape[1:])) for name, output in model.output.items()}
    before = [np.array(v) for v in model.trainable_variables]
    # Eagerly: tracing takes longer than a single step.
    model.compile(keras.optimizers.SGD(0.1), loss=dict.fromkeys(targets, "mse"), run_eagerly=True)
    loss = model.train_on_batch(images(), targets)
    assert np.isfinite(loss if np.isscalar(loss) else loss[0])
    still = [
        v.path for v, old in zip(model.trainable_variables, before, strict=True) if np.array_equal(np.array(v), old)
    ]
    assert set(still) <= WITHOUT_EFFECT
    assert all(np.isfinite(np.array(v)).all() for v in model.trainable_variables)


def test_half_precision_is_close(kind, model, answers):
    policy = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        half = vocabulary.MODELS[kind]()
    finally:
        keras.mixed_precision.set_global_policy(policy)
    half.set_weights(model.get_weights())
    assert all(v.dtype == "float32" for v in half.trainable_variables)
    far = {}
    for name, values in half.predict(images(), verbose=0).items():
        difference = np.abs(values.astype("float64") - answers[name]).max() / answers[name].std()
        if not difference < 0.03:
            far[name] = difference
    assert far == {}


def test_the_litert_file_answers_the_same(model, answers, tmp_path):
    flat = [keras.layers.Flatten()(output) for output in model.output.values()]  # a file has one output
    file = to_litert(keras.Model(model.inputs, keras.layers.Concatenate()(flat)), tmp_path / "model.tflite")
    run = Interpreter(str(file)).get_signature_runner("serving_default")
    ends = np.cumsum([math.prod(output.shape[1:]) for output in flat])
    far = {}
    for place, image in enumerate(images()):
        (values,) = run(images=image[None]).values()
        for name, found in zip(model.output, np.split(values[0], ends[:-1]), strict=True):
            difference = np.abs(found - answers[name][place].ravel()).max() / answers[name].std()
            if not difference < 1e-4:
                far[name] = difference
    assert far == {}


CHILD = """
import json, sys
import numpy as np
import keras
from tests import vocabulary

folder, kind = sys.argv[1:]
model = vocabulary.MODELS[kind]()
model.load_weights(f"{folder}/model.weights.h5")
answers = np.load(f"{folder}/answers.npz")
found = model.predict(np.load(f"{folder}/images.npy"), verbose=0)
far = {name: float(abs(values - answers[name]).max() / answers[name].std()) for name, values in found.items()}
print(json.dumps([keras.backend.backend(), "tensorflow" in sys.modules, far]))
"""


@pytest.mark.parametrize("kind", ["layers", pytest.param("blocks", marks=pytest.mark.slow)], indirect=True)
def test_jax_answers_as_tensorflow_does(kind, model, answers, tmp_path):
    model.save_weights(tmp_path / "model.weights.h5")
    np.savez(tmp_path / "answers.npz", **answers)
    np.save(tmp_path / "images.npy", images())
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",  # compiling is most of the time here
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    run = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), kind], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    backend, tensorflow_loaded, far = json.loads(run.stdout.splitlines()[-1])
    assert (backend, tensorflow_loaded) == ("jax", False)
    assert set(far) == set(answers)
    assert {name: difference for name, difference in far.items() if not difference < 1e-4} == {}
