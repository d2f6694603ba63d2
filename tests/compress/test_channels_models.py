"""Removed channels of every family, and of models from elsewhere, against the same channels at zero."""

import keras
import numpy as np
import pytest

from keraslight import compress
from keraslight._litert_files import interpreter
from keraslight.export import to_litert
from tests.compress import digit_models
from tests.compress.masking import distance, images_for, outputs, random_keep, randomize, shrunk_and_distance

NORMS_OVER_CHANNELS = ("ConvNeXt", "ConvNeXtV2", "ConvNeXtTiny", "kimm ConvNeXtAtto")
FAST = ("LeNet5", "ResNet")  # smaller nets with the others' mechanisms are in test_channels.py
FAMILIES = [
    pytest.param(family, marks=() if family in FAST else pytest.mark.slow) for family in digit_models.families()
]
ELSEWHERE = (
    *("MobileNetV2", "MobileNetV3Large", "EfficientNetB0", "ResNet50V2", "DenseNet121", "NASNetMobile", "ConvNeXtTiny"),
    "InceptionResNetV2",
    *(
        "kimm MobileNetV3W050Small",
        "kimm GhostNetW050",
        "kimm RegNetX002",
        "kimm EfficientNetLiteB0",
        "kimm ConvNeXtAtto",
    ),
)


@pytest.fixture
def double():
    """Layers in float64, in which rounding errors of badly conditioned nets don't matter."""
    before = keras.config.dtype_policy().name, keras.config.floatx()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(before[1])
    keras.config.set_dtype_policy(before[0])


def _check_files(small, tmp_path):
    """A saved and loaded model and a LiteRT file compute the same."""
    images = images_for(small, 1)
    expected = outputs(small, images)
    small.save(tmp_path / "small.keras")
    assert distance(expected, outputs(keras.saving.load_model(tmp_path / "small.keras"), images)) == 0
    run = interpreter(to_litert(small, tmp_path / "small.tflite"), 1).get_signature_runner()
    (answers,) = run(**{next(iter(run.get_input_details())): images[0]}).values()
    assert distance(expected, [np.asarray(answers, np.float64)]) <= 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_shrinks_to_its_masked_self(family, double):
    model = digit_models.build(family, classifier_activation=None)
    small, error = shrunk_and_distance(model, 0.25, 0)
    assert small.count_params() < model.count_params()
    if family not in NORMS_OVER_CHANNELS:
        assert error <= 1e-9
        assert shrunk_and_distance(model, 0.5, 1)[1] <= 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("family", digit_models.families())
def test_shrunk_families_are_saved_and_converted(family, tmp_path):
    model = digit_models.build(family, classifier_activation=None)
    randomize(model)
    _check_files(compress.shrink(model, keep=random_keep(model)), tmp_path)


@pytest.mark.filterwarnings("ignore:GhostNetW050 doesn't have pretrained weights")
@pytest.mark.slow
@pytest.mark.parametrize("name", ELSEWHERE)
def test_models_from_elsewhere_shrink_to_their_masked_selves(name, tmp_path):
    source = keras.applications
    if name.startswith("kimm "):
        source = pytest.importorskip("kimm", reason="a dev dependency: pip install 'keraslight[dev]'").models
    make = getattr(source, name.removeprefix("kimm "))
    model = make(weights=None, classes=10, input_shape=(96, 96, 3), classifier_activation=None)
    groups = compress.channel_groups(model)
    assert ["the model's output" in group.reason for group in groups if not group.removable] == [True]
    small, error = shrunk_and_distance(model, 0.25)
    if name not in NORMS_OVER_CHANNELS:
        assert error <= 1e-4
    _check_files(small, tmp_path)
