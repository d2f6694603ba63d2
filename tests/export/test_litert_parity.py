"""A file against its model: what is measured, and what is refused."""

import keras
import numpy as np
import pytest
from keras import layers

from keraslight.errors import DisagreementError, InvalidArgumentError
from keraslight.export import litert_parity, litert_runner, to_litert
from keraslight.export.litert import LiteRTParity

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3)).astype("float32")


def build(seed):
    keras.utils.set_random_seed(seed)
    images = keras.Input((8, 8, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1, name="preprocessing")(images)
    x = layers.ReLU()(layers.Conv2D(8, 3, name="conv")(x))
    x = layers.Dense(4, name="logits")(layers.Flatten()(x))
    return keras.Model(images, layers.Softmax()(x), name=f"net{seed}")


@pytest.fixture(scope="module")
def model():
    return build(0)


@pytest.fixture(scope="module")
def labels(model):
    return model.predict(IMAGES, verbose=0).argmax(-1)


def test_a_faithful_file(model, labels, tmp_path):
    path = to_litert(model, tmp_path / "model.tflite")
    parity = litert_parity(model, path, (IMAGES, labels))
    assert (parity.images, parity.agreement, parity.model_accuracy, parity.file_accuracy) == (40, 1.0, 1.0, 1.0)
    assert 0 < parity.largest_difference < 1e-5
    assert parity.drop == 0
    parity.require(max_drop=0, max_difference=1e-5)
    assert "40 images: top-1 agreement 100.00%" in str(parity)
    assert "accuracy 100.00% -> 100.00%" in str(parity)


def test_data_in_every_form(model, labels, tmp_path):
    import tensorflow as tf

    path = to_litert(model, tmp_path / "model.tflite", batch_size=3)  # 40 is no multiple of 3
    whole = litert_parity(model, path, IMAGES)
    assert whole.model_accuracy is None
    assert whole.drop == 0
    assert "accuracy" not in str(whole)
    batches = litert_parity(model, path, tf.data.Dataset.from_tensor_slices((IMAGES, labels)).batch(7))
    assert (batches.images, batches.agreement, batches.file_accuracy) == (40, 1.0, 1.0)


def test_another_models_file_is_refused(model, labels, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"old")
    other = build(1)

    def verify(file):
        litert_parity(other, file, (IMAGES, labels)).require(max_drop=0.1)

    agreement = (other.predict(IMAGES, verbose=0).argmax(-1) == labels).mean()
    assert agreement < 0.8
    # The labels are the first model's answers, so its file is better than the second model: no drop, but far off.
    parity = litert_parity(other, to_litert(model, tmp_path / "first.tflite"), (IMAGES, labels))
    assert parity.drop == pytest.approx(agreement - 1)
    with pytest.raises(DisagreementError, match="within max_difference=0.01 of its model. Received: 0[.]"):
        parity.require(max_difference=0.01)

    with pytest.raises(DisagreementError, match="within max_drop=0.1 of its model. Received: "):
        to_litert(model, path, verify=lambda file: litert_parity(other, file, IMAGES).require(max_drop=0.1))
    assert path.read_bytes() == b"old"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["first.tflite", "model.tflite"]
    to_litert(model, path, verify=verify)
    assert len(path.read_bytes()) > 1000


def test_nan_is_never_good_enough():
    broken = LiteRTParity(images=1, largest_difference=float("nan"), agreement=1.0)
    with pytest.raises(DisagreementError, match="Received: nan"):
        broken.require(max_difference=1.0)


def test_no_image(model, tmp_path):
    path = to_litert(model, tmp_path / "model.tflite")
    with pytest.raises(InvalidArgumentError, match="`data` must hold at least one image. Received: none"):
        litert_parity(model, path, IMAGES[:0])


@pytest.mark.parametrize(("source", "sink"), [("uint8", "uint8"), ("int8", "int8"), ("uint8", "float32")])
def test_integers_at_both_ends(model, source, sink, tmp_path):
    path = to_litert(
        model,
        tmp_path / "model.tflite",
        quantization="int8",
        representative_data=IMAGES,
        input_dtype=source,
        output_dtype=sink,
    )
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    assert interpreter.get_input_details()[0]["dtype"] == np.dtype(source)
    details = interpreter.get_output_details()[0]
    assert details["dtype"] == np.dtype(sink)
    if sink != "float32":
        assert details["quantization"] == (1 / 256, 0 if sink == "uint8" else -128)
    answers = litert_runner(path)(IMAGES)
    assert answers.dtype == np.float32
    np.testing.assert_allclose(answers, model.predict(IMAGES, verbose=0), atol=0.04)
