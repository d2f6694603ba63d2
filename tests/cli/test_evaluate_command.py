"""`keraslight evaluate` on everything that it takes: runs, model files, .tflite files and servables."""

import dataclasses
import functools
import json
import shutil
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image

from keraslight import training
from keraslight.cli._subjects import Subject, matched
from keraslight.errors import DataError, InvalidArgumentError
from keraslight.export import save_servable, to_litert
from keraslight.layers import ImageNormalization
from keraslight.preprocessing import Preprocessing
from keraslight.training import Recipe, load_run, train

SPEC = Preprocessing((8, 8), mean=(0.5,), std=(0.5,), per_image=True)
LABELS = [str(digit) for digit in range(10)]


@pytest.fixture(autouse=True)
def _free_models():
    """The trained net is kept for the tests that follow."""


@pytest.fixture(scope="module", autouse=True)
def digits():
    """Decoded once."""
    kept = functools.cache(training.load_digits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "load_digits", kept)
        yield kept


@pytest.fixture(scope="module")
def folder(digits, tmp_path_factory):
    """A run on digits, and the same model as other files."""
    folder = tmp_path_factory.mktemp("evaluated")
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(16, 3, activation="relu")(ImageNormalization(SPEC)(images))
    model = keras.Model(images, keras.layers.Dense(10, activation="softmax")(keras.layers.Flatten()(x)), name="net")
    train(model, digits(SPEC), Recipe(epochs=2, learning_rate=0.01), run_dir=folder / "run")
    model, _ = load_run(folder / "run")
    model.save(folder / "net.keras")
    to_litert(model, folder / "net.tflite", labels=LABELS)
    save_servable(model, folder / "servable", labels=LABELS)
    return folder


@pytest.fixture(scope="module")
def held_out(digits):
    return digits(SPEC).validation_arrays()


def test_a_run_is_evaluated_on_the_digits_that_it_held_out(run, folder, held_out, tmp_path):
    found = json.loads(run("evaluate", folder / "run", "--to", tmp_path / "report", "--json"))
    model, _ = load_run(folder / "run")
    accuracy = np.mean(model.predict(held_out[0].astype("float32"), verbose=0).argmax(1) == held_out[1])
    assert found["accuracy"] == accuracy > 0.8
    assert (found["data"], found["images"], found["views"]) == ("digits", 359, None)
    assert found["robustness"]["low contrast"] == pytest.approx(accuracy)  # normalized image by image
    assert json.loads((tmp_path / "report" / "evaluation.json").read_text()) == found
    text = (tmp_path / "report" / "evaluation.txt").read_text()
    assert "359 held-out images of digits" in text
    assert max(map(len, text.splitlines())) <= 80
    assert (tmp_path / "report" / "evaluation.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", ["net.keras", "net.tflite", "servable", "servable/1"])
def test_files_and_servables_answer_as_the_run_does(run, folder, name):
    wanted, found = (
        json.loads(run("evaluate", folder / each, "--data", "digits", "--no-robustness", "--json"))
        for each in ("run", name)
    )
    assert found["confusion"] == wanted["confusion"]
    assert found["labels"] == LABELS
    assert found["robustness"] == {}
    assert found["calibration"]["ece"] == pytest.approx(wanted["calibration"]["ece"], abs=1e-3)


def test_views_of_a_model_and_of_a_file_are_the_same(run, folder):
    views = ("--scales", "0.8,1", "--rotations", "-20,0,20", "--flip", "--merge", "mean", "--data", "digits")
    found = [
        json.loads(run("evaluate", folder / name, *views, "--no-robustness", "--json"))
        for name in ("run", "net.tflite")
    ]
    assert found[0]["confusion"] == found[1]["confusion"]
    assert found[0]["views"] == {"scales": [0.8, 1], "rotations": [-20, 0, 20], "flip": True, "merge": "mean"}
    assert found[0]["name"] == "net, 12 views merged by mean"


@pytest.mark.parametrize("rows", [False, True])
def test_targets_follow_the_models_order_of_classes(rows):
    targets = np.array([0, 1, 2, 2])
    images = SimpleNamespace(labels=("a", "b", "c"))
    subject = Subject("net", None, ["c", "a", "b"], None, None)
    names, found = matched(subject, images, np.eye(3)[targets] if rows else targets)
    assert names == ["c", "a", "b"]
    assert (found.argmax(1) if rows else found).tolist() == [1, 2, 0, 0]
    with pytest.raises(DataError, match="The images must have the model's classes, .*Received: classes"):
        matched(dataclasses.replace(subject, labels=["a", "b"]), images, targets)


@pytest.mark.slow
def test_classes_of_a_folder_are_matched_by_name(run, folder, digits, tmp_path):
    scans = digits(SPEC)
    for place in range(60):
        image = Image.fromarray(scans.pixels[place, ..., 0])
        (tmp_path / "photos" / LABELS[scans.targets[place]]).mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "photos" / LABELS[scans.targets[place]] / f"{place}.png")
    arguments = ("--no-robustness", "--json", "--part", "all", "--data", tmp_path / "photos")
    found = json.loads(run("evaluate", folder / "run", *arguments))
    assert found["images"] == 60
    names = tmp_path / "names.txt"
    names.write_text("\n".join(["9", *LABELS[:9]]) + "\n")
    moved = json.loads(run("evaluate", folder / "net.keras", "--labels", names, *arguments))
    np.testing.assert_array_equal(np.roll(found["confusion"], 1, axis=0), moved["confusion"])
    shutil.rmtree(tmp_path / "photos" / "9")
    with pytest.raises(DataError, match="The images must have the model's classes, .* Received: classes"):
        run("evaluate", folder / "run", "--data", tmp_path / "photos")


def test_what_it_cannot_know_it_says(run, folder, tmp_path):
    with pytest.raises(InvalidArgumentError, match="`--data` must say what to evaluate on.*net.keras holds no images"):
        run("evaluate", folder / "net.keras")
    shutil.copytree(folder / "run", tmp_path / "run")
    (tmp_path / "run" / "last.npz").unlink()
    with pytest.raises(InvalidArgumentError, match="run doesn't say which images it was trained on"):
        run("evaluate", tmp_path / "run")
    for arguments, text in (
        (("no/such/run",), "must be a run folder, a .keras, .h5 or .tflite file, or a servable.*no/such/run"),
        ((folder / "run", "--scales", "1;2"), "`--scales` must be numbers with commas between them"),
        ((folder / "servable", "--data", "digits", "--preprocessing", "raw"), "A servable has its own preprocessing"),
        ((folder / "net.tflite", "--data", "digits", "--preprocessing", "raw"), "must be a JSON file"),
    ):
        with pytest.raises(InvalidArgumentError, match=text):
            run("evaluate", *arguments)
    (tmp_path / "foreign" / "1").mkdir(parents=True)
    (tmp_path / "foreign" / "1" / "saved_model.pb").write_bytes(b"")
    with pytest.raises(InvalidArgumentError, match="A servable must be one that keraslight wrote"):
        run("evaluate", tmp_path / "foreign", "--data", "digits")
