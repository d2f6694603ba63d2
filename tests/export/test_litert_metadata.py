"""The metadata inside a file; MediaPipe itself reads it in test_litert_mediapipe.py."""

import zipfile

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from keras import layers

from keraslight.errors import ExportError, InvalidArgumentError
from keraslight.export import (
    LiteRTMetadata,
    litert_parity,
    litert_report,
    litert_runner,
    read_metadata,
    save_servable,
    to_litert,
    write_metadata,
)
from keraslight.layers import ImageNormalization
from keraslight.preprocessing import Preprocessing

SPEC = Preprocessing((16, 16), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
LABELS = ["cat", "grüner Hund", "虎"]
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3)).astype("float32")


def build(channels=3, normalized=False):
    keras.utils.set_random_seed(0)
    images = x = keras.Input((16, 16, channels))
    if not normalized:
        x = ImageNormalization(SPEC.with_channels(channels))(x)
    x = layers.ReLU()(layers.Conv2D(7, 3)(x))
    x = layers.Dense(3, activation="softmax")(layers.Flatten()(x))
    return keras.Model(images, x, name="pets")


@pytest.fixture(scope="module")
def model():
    return build()


def test_labels_and_images_are_described(model, tmp_path):
    plain = to_litert(model, tmp_path / "plain.tflite")
    path = to_litert(model, tmp_path / "model.tflite", labels=LABELS)
    assert read_metadata(plain) is None
    assert read_metadata(path) == LiteRTMetadata(
        name="pets",
        description="An image classifier with 3 classes, float32, made with keraslight.",
        labels=tuple(LABELS),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        color_space="RGB",
    )
    with zipfile.ZipFile(path) as archive:  # as Android's tools list it
        assert archive.namelist() == ["labels.txt"]
        assert archive.read("labels.txt").decode() == "cat\ngrüner Hund\n虎\n"
    np.testing.assert_array_equal(litert_runner(path)(IMAGES), litert_runner(plain)(IMAGES))
    before, after = litert_report(plain), litert_report(path)
    assert (after.signatures, after.operators, after.arena) == (before.signatures, before.operators, before.arena)
    assert after.metadata.labels == tuple(LABELS)


def test_the_same_model_gives_the_same_file(model, tmp_path):
    first, second = (to_litert(model, tmp_path / f"{i}.tflite", labels=LABELS).read_bytes() for i in range(2))
    assert first == second


def test_grey_images_and_int8(tmp_path):
    path = to_litert(
        build(channels=1),
        tmp_path / "model.tflite",
        labels=LABELS,
        quantization="int8",
        representative_data=IMAGES[..., :1],
        input_dtype="uint8",
        output_dtype="uint8",
    )
    metadata = read_metadata(path)
    assert (metadata.color_space, metadata.mean, metadata.std) == ("GRAYSCALE", (0.0,), (1.0,))
    assert "3 classes, int8" in metadata.description


def test_weights_stay_aligned(model, tmp_path):
    content = to_litert(model, tmp_path / "model.tflite", labels=LABELS).read_bytes()
    flat = schema.Model.GetRootAs(content, 0)
    starts = []
    for index in range(flat.BuffersLength()):
        array = flat.Buffers(index).DataAsNumpy()
        if not isinstance(array, int):  # 0 for an empty buffer
            starts.append(array.__array_interface__["data"][0] - np.frombuffer(content, np.uint8).ctypes.data)
    assert len(starts) >= 5
    assert {start % 16 for start in starts} == {0}


def test_normalization_goes_into_the_file(model, tmp_path):
    bare = build(normalized=True)
    bare.set_weights(model.get_weights())
    path = to_litert(bare, tmp_path / "model.tflite", labels=LABELS, preprocessing=SPEC)
    np.testing.assert_allclose(litert_runner(path)(IMAGES), model.predict(IMAGES, verbose=0), atol=1e-5)
    with pytest.raises(
        InvalidArgumentError, match="takes normalized images. Received: 'pets', which normalizes itself"
    ):
        to_litert(model, tmp_path / "twice.tflite", preprocessing=SPEC)
    with pytest.raises(InvalidArgumentError, match="the model's channels. Received: 1 channels for images of shape"):
        to_litert(bare, tmp_path / "grey.tflite", preprocessing=SPEC.with_channels(1))


def test_a_model_without_normalization_is_mentioned(model, tmp_path, caplog):
    to_litert(model, tmp_path / "model.tflite", labels=LABELS)
    assert not caplog.records
    to_litert(build(normalized=True), tmp_path / "model.tflite", labels=LABELS)
    assert "carries no preprocessing" in caplog.text


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["cat", "dog"], "`labels` must name every class once. Received: 2 labels for 3 classes"),
        (["cat", "dog", "a\nb"], "written one per line. Received: a label with a line break"),
    ],
)
def test_labels_that_do_not_fit(model, labels, message, tmp_path):
    with pytest.raises(InvalidArgumentError, match=message):
        to_litert(model, tmp_path / "model.tflite", labels=labels)
    assert not any(tmp_path.iterdir())


def test_files_that_cannot_be_read(model, tmp_path):
    path = tmp_path / "not.tflite"
    path.write_bytes(b"nothing like it")
    with pytest.raises(ExportError, match="identifier TFL3. Received"):
        read_metadata(path)
    content = to_litert(model, path, labels=LABELS).read_bytes()
    path.write_bytes(content[: content.index(b"PK\x03\x04")])
    with pytest.raises(ExportError, match="must bring its label file. Received: .*not.tflite"):
        read_metadata(path)


def test_a_file_without_labels_gets_them_as_if_it_had_been_converted_with_them(model, tmp_path):
    wanted = to_litert(model, tmp_path / "pets.tflite", labels=LABELS)
    (tmp_path / "plain").mkdir()
    path = write_metadata(to_litert(model, tmp_path / "plain" / "pets.tflite"), LABELS)
    assert read_metadata(path) == read_metadata(wanted)
    np.testing.assert_array_equal(litert_runner(path)(IMAGES), litert_runner(wanted)(IMAGES))
    content = path.read_bytes()
    for given, options, text in (
        (LABELS, {}, "must be a file without metadata. Received: .*pets.tflite', which has some"),
        (LABELS, {"task": "other"}, "`task` must be one of .* Received: 'other'"),
    ):
        with pytest.raises(InvalidArgumentError, match=text):
            write_metadata(path, given, **options)
    bare = to_litert(model, tmp_path / "bare.tflite")
    before = bare.read_bytes()
    with pytest.raises(InvalidArgumentError, match="3"):
        write_metadata(bare, LABELS[:2])
    with pytest.raises(InvalidArgumentError, match="missing.tflite', which is not a file"):
        write_metadata(tmp_path / "missing.tflite", LABELS)
    assert (path.read_bytes(), bare.read_bytes()) == (content, before)


def test_a_quantization_aware_model_gets_labels_too(model, tmp_path, caplog):
    from keraslight import compress

    targets = model.predict(IMAGES, verbose=0).argmax(-1)
    aware = compress.train_quantized(model, (IMAGES, targets), epochs=1, verbose=0)
    ends = {"input_dtype": "uint8", "output_dtype": "uint8"}
    path = to_litert(aware, tmp_path / "model.tflite", labels=LABELS, **ends)
    assert "carries no preprocessing" not in caplog.text
    assert read_metadata(path).labels == tuple(LABELS)
    assert litert_report(path).float_operators == ()
    assert litert_parity(aware, path, IMAGES).largest_difference < 0.05
    version = save_servable(aware, tmp_path / "pets", labels=LABELS, quantization="int8")
    assert read_metadata(version / "model.tflite").labels == tuple(LABELS)
    with pytest.raises(InvalidArgumentError, match="Received: 'pets', which is quantization-aware"):
        to_litert(aware, path, preprocessing=SPEC)
