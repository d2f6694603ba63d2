"""SSDLite and LR-ASPP on every family that has the maps: they build, save, load and convert."""

import keras
import numpy as np
import pytest

import keraslight
import keraslight.zoo
from keraslight import registry

HEADS = {"SSDLite": keraslight.SSDLite, "LRASPP": keraslight.LRASPP}
WITHOUT = {("SSDLite", "LeNet5"), ("LRASPP", "LeNet5"), ("SSDLite", "SqueezeNet")}  # their maps end before that
QUICK = ("GhostNet", "MobileNetV4", "Xception")  # shortcuts of every kind, attention-free, and odd sizes
SHAPE = (96, 80, 3)


def cases(*, quick=QUICK):
    for head in HEADS:
        for family in registry.FAMILIES.values():
            if (head, family.name) not in WITHOUT:
                name = min(family.variants, key=lambda name: family.variants[name].parameters)
                yield pytest.param(head, name, marks=() if family.name in quick else pytest.mark.slow)


def build(head, name):
    keras.utils.set_random_seed(0)
    return HEADS[head](name, classes=3, input_shape=SHAPE, backbone_arguments={"width": 0.5})


def images():
    return np.random.default_rng(0).normal(size=(1, *SHAPE)).astype("float32")


@pytest.mark.parametrize(("head", "name"), list(cases()))
def test_it_builds_saves_and_loads(head, name, tmp_path):
    model = build(head, name)
    assert not any(isinstance(layer, keras.Model) for layer in model.layers), "the graph must be flat"
    model.save(tmp_path / "model.keras")
    again = keraslight.load_model(tmp_path / "model.keras")
    answers = model(images(), training=False)
    keras.tree.map_structure(np.testing.assert_array_equal, again(images(), training=False), answers)
    assert all(np.isfinite(answer).all() for answer in answers.values())


@pytest.mark.parametrize(("head", "name"), list(cases(quick=("MobileNetV4",))))
def test_it_converts_to_operators_of_litert(head, name, tmp_path):
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    model = build(head, name)
    model.export(tmp_path / "saved", verbose=False, input_signature=[tf.TensorSpec((1, *SHAPE), name="images")])
    file = tmp_path / "model.tflite"  # of builtin operators alone
    file.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved")).convert())
    runner = Interpreter(str(file), num_threads=1).get_signature_runner("serving_default")
    answers = runner(images=images())
    for key, wanted in model(images(), training=False).items():
        np.testing.assert_allclose(answers[key], wanted, atol=1e-3 * float(np.std(wanted)))


@pytest.mark.parametrize(("head", "family"), sorted(WITHOUT))
def test_the_families_left_out_lack_a_map(head, family):
    name = next(iter(registry.FAMILIES[family].variants))
    with pytest.raises(
        keraslight.errors.InvalidArgumentError, match="A backbone must give the maps .* without stride_"
    ):
        HEADS[head](name)
