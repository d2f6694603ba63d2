"""`keraslight train --teacher`: what may teach, and what the run folder then says."""

import json
import shutil

import pytest

from keraslight import compress
from keraslight.errors import InvalidArgumentError
from keraslight.training import Distillation, load_run


@pytest.fixture(scope="module")
def train(run):
    """Trains for an epoch; returns the model and its model.json."""

    def train(to, *options, model="lenet5_modern"):
        run("train", model, "--data", "digits", "--size", 32, "--epochs", 1, "--to", to, *options)
        return load_run(to)

    return train


@pytest.fixture(scope="module")
def teacher(digits_run):
    return digits_run[0]


@pytest.mark.slow
def test_a_run_folder_a_file_and_a_name_are_the_same_teacher(train, teacher, tmp_path):
    options = ("--temperature", 2, "--alpha", 0.3)
    _, details = train(tmp_path / "run", "--teacher", teacher, *options)
    _, of_file = train(tmp_path / "file", "--teacher", teacher / "best.keras", *options)
    weights = ("--teacher", "lenet5_modern", "--teacher-weights", teacher / "best.keras")
    _, of_name = train(tmp_path / "name", *weights, *options)
    assert details["distillation"] == of_file["distillation"] == of_name["distillation"]
    assert details["metrics"]["val_loss"] == pytest.approx(of_name["metrics"]["val_loss"], abs=1e-5)
    assert (details["distillation"]["temperature"], details["distillation"]["alpha"]) == (2.0, 0.3)


def test_a_distilled_model_is_a_plain_one(run, train, teacher, tmp_path):
    model, _ = train(tmp_path / "run", "--teacher", teacher)
    plain, without = load_run(teacher)
    assert without["distillation"] is None
    assert [layer.name for layer in model.layers] == [layer.name for layer in plain.layers]
    file = tmp_path / "student.tflite"
    run("litert", tmp_path / "run", "--to", file)
    assert file.stat().st_size > 10_000


def test_a_pruned_model_learns_from_the_float_one(run, teacher, tmp_path):
    run("prune", teacher, "--data", "digits", "--to", tmp_path, "--epochs", 1, "--teacher", teacher)
    model, details = load_run(tmp_path)
    assert compress.sparsity(model).total >= 0.7
    assert details["distillation"] == Distillation(load_run(teacher)[0]).to_dict()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--alpha", 0.5), r"These options need `--teacher`\. Received: --alpha=0\.5\."),
        (("--teacher", "nobody"), "No model has this name"),
    ],
)
def test_options_without_a_teacher(train, tmp_path, options, text):
    with pytest.raises(InvalidArgumentError, match=text):
        train(tmp_path, *options)
    assert not (tmp_path / "best.keras").exists()


def test_a_saved_teacher_has_its_own_weights(train, teacher, tmp_path):
    with pytest.raises(InvalidArgumentError, match="`--teacher-weights` must come with a model's name. Received: imag"):
        train(tmp_path, "--teacher", teacher, "--teacher-weights", "imagenet")
    assert not (tmp_path / "best.keras").exists()


def test_a_teacher_must_know_the_classes(train, teacher, tmp_path):
    other = shutil.copytree(teacher, tmp_path / "other")
    details = json.loads((other / "model.json").read_text())
    (other / "model.json").write_text(json.dumps({**details, "labels": ["cat", "dog"]}))
    with pytest.raises(InvalidArgumentError, match=r"the images' classes, \['0', .* a run with \['cat', 'dog'"):
        train(tmp_path, "--teacher", other)
    assert not (tmp_path / "best.keras").exists()


def test_a_teacher_must_take_the_images(train, teacher, tmp_path):
    with pytest.raises(InvalidArgumentError, match=r"the student's images, \(48, 48, 1\)\. Received: .*\(32, 32, 1\)"):
        train(tmp_path, "--teacher", teacher, "--size", 48, model="mobilenet_v3_small_050")
    assert not (tmp_path / "best.keras").exists()
