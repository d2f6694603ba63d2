"""`keraslight litert` and `keraslight onnx` as a user types them."""

import json
import sys

import keras
import PIL.Image
import pytest
from keras import layers

from keraslight.errors import DataError, DisagreementError, InvalidArgumentError, MissingDependencyError
from keraslight.export import arm64_problem, litert_report, read_metadata
from keraslight.labels import imagenet_labels
from keraslight.layers import ImageNormalization
from keraslight.training import DIGITS_PREPROCESSING, load_digits


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small net that knows the digits, but whose answers are so close together that 256ths lose them."""
    keras.utils.set_random_seed(0)
    images = keras.Input((48, 48, 1))
    x = ImageNormalization(DIGITS_PREPROCESSING)(images)
    x = layers.ReLU()(layers.Conv2D(8, 6, strides=6)(x))
    logits = layers.Dense(10, activation="softmax", name="logits")
    net = keras.Model(images, logits(layers.Flatten()(x)), name="net")
    net.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", jit_compile=False)
    net.fit(load_digits(DIGITS_PREPROCESSING).train(32, epochs=4), shuffle=False, verbose=0)
    logits.set_weights([1e-3 * weight for weight in logits.get_weights()])
    path = tmp_path_factory.mktemp("saved") / "net.keras"
    net.save(path)
    return path


def test_litert_converts_measures_and_reports(run, saved, tmp_path):
    file = tmp_path / "net.tflite"
    text = run("litert", saved, "--to", file, "--data", "digits", "--max-drop", 0.01, "--report", "--threads", 2)
    assert "Against the model, 359 images: top-1 agreement 100.00%" in text
    assert f"Wrote {file}" in text
    report = litert_report(file)
    assert f"{report.size:,} bytes, tensor arena {report.arena:,} bytes" in text
    assert "not on NNAPI" in text
    assert "CONV_2D" in text
    assert "milliseconds here" in text


def test_a_file_that_loses_too_much_is_not_written(run, saved, tmp_path):
    file = tmp_path / "net.tflite"
    int8 = ("--quantization", "int8", "--data", "digits", "--output-dtype", "uint8")
    text = run("litert", saved, "--to", file, *int8)
    assert "accuracy 9" in text  # of the model, in percent; the file's is far below
    before = file.read_bytes()
    with pytest.raises(DisagreementError, match="within max_drop=0.05 of its model"):
        run("litert", saved, "--to", file, *int8, "--max-drop", 0.05)
    assert file.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.tflite"]


@pytest.fixture
def int8(saved, tmp_path):
    """The start of a conversion to int8."""
    return "litert", saved, "--to", tmp_path / "net.tflite", "--quantization", "int8", "--input-dtype", "uint8"


@pytest.fixture
def photos(tmp_path):
    """A folder of 40 digits."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, digit in enumerate(load_digits(DIGITS_PREPROCESSING).originals[:40]):
        PIL.Image.fromarray(digit).save(folder / f"{index}.png")
    return folder


def test_samples_set_the_ranges_of_int8(run, int8, photos, tmp_path):
    text = run(*int8, "--samples", photos)
    assert "Against the model, 40 images: top-1 agreement" in text
    assert "on the images that set the ranges" in text
    assert litert_report(tmp_path / "net.tflite").float_operators == ()


def test_samples_set_the_ranges_and_data_measure(run, int8, photos):
    # One of the files alone, and the held-out digits to measure on: these have other ranges.
    text = run(*int8, "--samples", photos / "3.png", "--samples", photos / "5.png", "--data", "digits")
    assert "Against the model, 359 images: top-1 agreement" in text


def test_samples_that_are_no_images(run, int8, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="must hold at least one .jpg, .* Received: .*/empty"):
        run(*int8, "--samples", tmp_path / "empty")
    (tmp_path / "notes.png").write_text("no image")
    with pytest.raises(DataError, match="must be readable. Received: .*/notes.png: Unknown image file format"):
        run(*int8, "--samples", tmp_path)


def test_without_data_random_pixels_are_compared(run, saved, tmp_path):
    text = run("litert", saved, "--to", tmp_path / "net.tflite", "--quantization", "float16", "--no-xnnpack")
    assert "Against the model, 2 images: top-1 agreement" in text
    assert "largest difference of a probability" in text
    assert "on random pixels." in text


def test_litert_of_a_name_gets_imagenets_labels(run, tmp_path):
    file = tmp_path / "net.tflite"
    run("litert", "squeezenet_1_1", "--size", 64, "--to", file)
    assert read_metadata(file).labels == imagenet_labels()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("litert", "net.keras"), "needs the file to write. Received: no --to"),
        (("litert", "net.tflite", "--to", "x.tflite"), "can't be converted; leave out --to"),
        (("litert", "net.keras", "--to", "x.tflite", "--quantization", "int8"), "Received: no --data"),
        (("litert", "net.keras", "--to", "x.tflite", "--max-drop", "0.1"), "Received: no --data"),
        (
            ("litert", "net.keras", "--to", "x.tflite", "--samples", "photos"),
            "--samples set the ranges of int8. Received: --samples with --quantization float32",
        ),
    ],
)
def test_options_that_do_not_go_together(run, arguments, message):
    with pytest.raises(InvalidArgumentError, match=message):
        run(*arguments)


@pytest.mark.parametrize("command", ["litert", "onnx", "export"])
@pytest.mark.parametrize("option", [("--weights", "imagenet"), ("--size", 64)])
def test_a_saved_model_has_its_own_weights_and_size(run, saved, tmp_path, command, option):
    with pytest.raises(InvalidArgumentError, match="are for a model's name. Received: --weights .*net.keras"):
        run(command, saved, "--to", tmp_path / "net", *option)
    assert not any(tmp_path.iterdir())


def test_threads_are_for_a_report(run, saved, tmp_path):
    with pytest.raises(InvalidArgumentError, match="`--threads` must come with `--report`. Received: --threads 2"):
        run("litert", saved, "--to", tmp_path / "net.tflite", "--threads", 2)
    assert not any(tmp_path.iterdir())


def test_a_report_on_arm64(run, saved, tmp_path, monkeypatch):
    file = tmp_path / "net.tflite"
    run("litert", saved, "--to", file)
    if not arm64_problem():
        text = run("litert", file, "--report", "--on", "arm64", "--threads", 1)
        assert "million instructions" in text
        found = json.loads(run("litert", file, "--report", "--on", "arm64", "--threads", 1, "--json"))
        assert found["arm64"]["instructions"] > 10_000
        assert found["arm64"]["largest_difference"] < 1e-4
        assert found["arm64"]["outside_xnnpack"] == {}
        assert found["sparse_on_arm"]["accepted"] is False
    with pytest.raises(InvalidArgumentError, match="`--on` must come with `--report`. Received: --on alone"):
        run("litert", saved, "--to", file, "--on", "arm64")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(MissingDependencyError, match="Running on ARM64 kernels needs an emulator. Received: "):
        run("litert", file, "--report", "--on", "arm64")
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(MissingDependencyError, match="needs Linux on x86-64; this is win32"):
        run("install-arm64")


def test_a_report_needs_a_file(run):
    with pytest.raises(InvalidArgumentError, match="A report needs a .tflite file. Received: nothing.tflite"):
        run("litert", "nothing.tflite", "--report")


def test_onnx(run, saved, tmp_path):
    file = tmp_path / "net.onnx"
    assert "ONNX Runtime gives the model's answers" in run("onnx", saved, "--to", file)
    assert file.stat().st_size > 1000


@pytest.fixture
def names(tmp_path):
    """A file with the names of the classes."""
    (tmp_path / "names.txt").write_text("zero\none\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\n")
    return tmp_path / "names.txt"


def test_export_takes_a_model_file_and_names_for_its_classes(run, saved, names, tmp_path):
    to = tmp_path / "savedmodels" / "digits"
    text = run("export", saved, "--to", to, "--labels", names, "--quantization", "float16")
    assert "--model_name=digits" in text
    assert (to / "1/assets/labels.txt").read_text().split() == names.read_text().split()
    assert read_metadata(to / "1/model.tflite").labels == tuple(names.read_text().split())
    kinds = [operator.kind for operator in litert_report(to / "1/model.tflite").operators]
    assert "DEQUANTIZE" in kinds  # the float16 weights


def test_export_without_names_writes_nothing(run, saved, tmp_path):
    to = tmp_path / "savedmodels" / "digits"
    with pytest.raises(InvalidArgumentError, match="names of its classes. Received: .*net.keras, no --labels"):
        run("export", saved, "--to", to)
    assert not to.exists()


def test_litert_takes_names_for_its_classes(run, saved, names, tmp_path):
    file = tmp_path / "net.tflite"
    run("litert", saved, "--to", file, "--labels", names)
    assert read_metadata(file).labels == tuple(names.read_text().split())
