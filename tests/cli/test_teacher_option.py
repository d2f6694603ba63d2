"""`keraslight train --teacher`: what may teach, and what the run folder then says."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from keraslight import compress
from keraslight.cli.app import app
from keraslight.errors import InvalidArgumentError
from keraslight.training import Distillation, load_run


def train(to, *options, model="lenet5_modern"):
    arguments = ["train", model, "--data", "digits", "--size", 32, "--epochs", 1, "--to", to, *options]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return load_run(to)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher") / "run"
    train(folder)
    return folder


def test_a_run_folder_a_file_and_a_name_are_the_same_teacher(teacher, tmp_path):
    options = ("--temperature", 2, "--alpha", 0.3)
    model, details = train(tmp_path / "run", "--teacher", teacher, *options)
    _, of_file = train(tmp_path / "file", "--teacher", teacher / "best.keras", *options)
    weights = ("--teacher", "lenet5_modern", "--teacher-weights", teacher / "best.keras")
    _, of_name = train(tmp_path / "name", *weights, *options)
    assert details["distillation"] == of_file["distillation"] == of_name["distillation"]
    assert details["metrics"]["val_loss"] == pytest.approx(of_name["metrics"]["val_loss"], abs=1e-5)
    assert (details["distillation"]["temperature"], details["distillation"]["alpha"]) == (2.0, 0.3)
    plain, without = load_run(teacher)
    assert without["distillation"] is None
    assert [layer.name for layer in model.layers] == [layer.name for layer in plain.layers]
    file = tmp_path / "student.tflite"
    result = CliRunner().invoke(app, ["litert", str(tmp_path / "run"), "--to", str(file)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert file.stat().st_size > 10_000


def test_a_pruned_model_learns_from_the_float_one(teacher, tmp_path):
    arguments = ["prune", teacher, "--data", "digits", "--to", tmp_path, "--epochs", 1, "--teacher", teacher]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    model, details = load_run(tmp_path)
    assert compress.sparsity(model).total >= 0.7
    assert details["distillation"] == Distillation(load_run(teacher)[0]).to_dict()


def test_teachers_that_do_not_fit(teacher, tmp_path):
    with pytest.raises(InvalidArgumentError, match=r"These options need `--teacher`\. Received: --alpha=0\.5\."):
        train(tmp_path, "--alpha", 0.5)
    with pytest.raises(InvalidArgumentError, match="`--teacher-weights` must come with a model's name. Received: imag"):
        train(tmp_path, "--teacher", teacher, "--teacher-weights", "imagenet")
    other = shutil.copytree(teacher, tmp_path / "other")
    details = json.loads((other / "model.json").read_text())
    (other / "model.json").write_text(json.dumps({**details, "labels": ["cat", "dog"]}))
    with pytest.raises(InvalidArgumentError, match=r"the images' classes, \['0', .* a run with \['cat', 'dog'"):
        train(tmp_path, "--teacher", other)
    with pytest.raises(InvalidArgumentError, match=r"the student's images, \(48, 48, 1\)\. Received: .*\(32, 32, 1\)"):
        train(tmp_path, "--teacher", teacher, "--size", 48, model="mobilenet_v3_small_050")
    with pytest.raises(InvalidArgumentError, match="No model has this name"):
        train(tmp_path, "--teacher", "nobody")
    assert not (tmp_path / "best.keras").exists()
