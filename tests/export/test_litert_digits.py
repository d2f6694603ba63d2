"""Models that are trained on the digits, as LiteRT files in every form: what they lose, and what MediaPipe reads.

How often int8 keeps the top-1 class, for a net of every family: tests/compress/test_digits_matrix.py. That and
test_litert_families.py measure three families in `make test`, and test_litert_mediapipe.py has MediaPipe read files.
"""

import keras
import numpy as np
import pytest

import keraslight
from keraslight.export import litert_parity, litert_report, litert_runner, to_litert
from keraslight.training import DIGITS_PREPROCESSING, Augmentation, load_digits

pytestmark = pytest.mark.slow
SPEC = DIGITS_PREPROCESSING.replace(size=(32, 32)).with_channels(3)  # MediaPipe reads images of three channels only
MODELS = {"mobilenet_v3_small_100": 0.5, "shufflenet_v2_050": 1.0}  # name -> width
EPOCHS, BATCH = 12, 64
SHIFTS = Augmentation(shift=0.06, edges="constant")  # without it shufflenet_v2_050 is right on 92% only


@pytest.fixture(autouse=True)
def _free_models():
    """The trained nets are kept for the tests that follow."""


@pytest.fixture(scope="module")
def digits():
    return load_digits(SPEC)


@pytest.fixture(scope="module")
def training_images(digits):
    return digits.pixels[digits.train_indices]


@pytest.fixture(scope="module")
def trained(digits):
    """A function name -> the trained model."""
    models = {}

    def get(name):
        if name not in models:
            keras.utils.set_random_seed(0)
            model = keraslight.create_model(
                name, width=MODELS[name], input_shape=(32, 32, 3), classes=10, preprocessing=SPEC
            )
            steps = EPOCHS * (digits.train_count // BATCH)
            rate = keras.optimizers.schedules.CosineDecay(0.0, steps, warmup_target=5e-3, warmup_steps=20)
            optimizer = keras.optimizers.AdamW(rate, clipnorm=1.0)
            model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
            optimizer.build(model.trainable_variables)  # else the first step is traced twice
            model.fit(digits.train(BATCH, SHIFTS, epochs=EPOCHS), shuffle=False, verbose=0)
            models[name] = model
        return models[name]

    return get


@pytest.mark.parametrize("name", list(MODELS))
def test_what_each_form_loses(name, trained, digits, training_images, tmp_path):
    model = trained(name)
    held_out = digits.validation_arrays()

    float32 = litert_parity(model, to_litert(model, tmp_path / "float32.tflite"), held_out)
    assert float32.model_accuracy > 0.95
    float32.require(max_difference=1e-4, max_drop=0)

    float16 = litert_parity(model, to_litert(model, tmp_path / "16.tflite", quantization="float16"), held_out)
    assert float16.agreement > 0.99
    float16.require(max_difference=2e-3, max_drop=0.005)

    dynamic = litert_parity(model, to_litert(model, tmp_path / "dynamic.tflite", quantization="dynamic"), held_out)
    assert dynamic.agreement >= 0.97

    path = to_litert(model, tmp_path / "int8.tflite", quantization="int8", representative_data=training_images)
    int8 = litert_parity(model, path, held_out)
    assert int8.agreement >= 0.97
    int8.require(max_drop=0.02)
    assert litert_report(path).float_operators == ()
    sizes = [(tmp_path / f"{form}.tflite").stat().st_size for form in ("float32", "16", "dynamic", "int8")]
    assert sizes[0] > 1.6 * sizes[1] > 1.6 * sizes[3]


@pytest.mark.parametrize("form", ["float32", "int8", "int8 at both ends"])
def test_mediapipe_gives_our_label(form, trained, digits, training_images, mediapipe_classify, tmp_path):
    model = trained("mobilenet_v3_small_100")
    images = digits.validation_arrays()[0][:200]
    arguments = {}
    if form != "float32":
        arguments = {"quantization": "int8", "representative_data": training_images, "input_dtype": "uint8"}
    if form == "int8 at both ends":
        arguments["output_dtype"] = "uint8"
    path = to_litert(model, tmp_path / "model.tflite", labels=digits.labels, **arguments)
    theirs = [ranking[0][0] for ranking in mediapipe_classify(path, images)]
    own = litert_runner(path)(images)
    keras_answers = model.predict(images.astype("float32"), verbose=0)
    for answers, share in ((own, 0.99), (keras_answers, 0.99 if form == "float32" else 0.97)):
        # A label is ours if no other has a higher score: 256ths tie now and then.
        ours = [
            answer[digits.labels.index(label)] == answer.max() for answer, label in zip(answers, theirs, strict=True)
        ]
        assert np.mean(ours) >= share
