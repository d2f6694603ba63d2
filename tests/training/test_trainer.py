import csv
import json
import re
import shutil
import types

import keras
import numpy as np
import pytest

from keraslight.errors import InvalidArgumentError, TrainingError
from keraslight.layers import ImageNormalization
from keraslight.preprocessing import Preprocessing
from keraslight.training import ImageData, Recipe, load_run, train
from keraslight.training._trainer import _Keeper


class Kill(keras.callbacks.Callback):
    """Stands for a kill: nothing of the trainer runs after it."""

    def __init__(self, *, after_epoch=None, in_step=None):
        super().__init__()
        self.after_epoch, self.in_step = after_epoch, in_step

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 == self.after_epoch:
            raise KeyboardInterrupt

    def on_train_batch_end(self, batch, logs=None):
        if (self.params["epoch_now"], batch) == self.in_step:
            raise KeyboardInterrupt

    def on_epoch_begin(self, epoch, logs=None):
        self.params["epoch_now"] = epoch


def fresh(build, seed=1, **kwargs):
    keras.utils.set_random_seed(seed)
    return build(**kwargs)


def numbers(history):
    """The history without durations."""
    timed = ("seconds", "images_per_second", "waiting")
    return [[value for name, value in row.items() if name not in timed] for row in history]


def assert_equal_weights(model, other, atol=1e-6):
    for variable, expected in zip(model.variables, other.variables, strict=True):
        np.testing.assert_allclose(variable, expected, rtol=0, atol=atol, err_msg=variable.path)


@pytest.fixture(scope="module")
def run(build, data, recipe, tmp_path_factory):
    """A finished run, for all tests that only look at it."""
    return train(fresh(build), data, recipe, run_dir=tmp_path_factory.mktemp("finished") / "run", progress=False)


@pytest.fixture
def own_run(run, tmp_path):
    """A copy of its folder, to spoil."""
    return shutil.copytree(run.run_dir, tmp_path / "run")


def test_it_learns_and_keeps_the_best_epoch(data, recipe, run):
    assert run.best_accuracy > 0.9
    accuracies = [row["val_accuracy"] for row in run.history]
    assert run.best_accuracy == max(accuracies) == accuracies[run.best_epoch - 1]
    assert run.epochs == len(run.history) == recipe.epochs
    pixels, targets = data.validation_arrays()
    assert np.mean(run.model.predict(pixels, verbose=0).argmax(-1) == targets) == pytest.approx(run.best_accuracy)


def test_a_killed_run_ends_like_an_uninterrupted_one(build, data, recipe, run, tmp_path):
    # Another initialization on purpose: everything must come from the run folder.
    killed = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        train(fresh(build), data, recipe, run_dir=killed, callbacks=[Kill(after_epoch=1)], progress=False)
    assert not (killed / "curves.png").exists()
    assert load_run(killed)[1]["metrics"]["finished"] is False
    (killed / ".123.best.keras").write_bytes(b"half a file")
    with pytest.raises(KeyboardInterrupt):
        train(fresh(build, 2), data, recipe, run_dir=killed, callbacks=[Kill(in_step=(1, 2))], progress=False)
    resumed = train(fresh(build, 3), data, recipe, run_dir=killed, progress=False)

    np.testing.assert_allclose(numbers(resumed.history), numbers(run.history), rtol=0, atol=1e-6)
    assert_equal_weights(resumed.model, run.model)
    assert {file.name for file in killed.iterdir()} == {file.name for file in run.run_dir.iterdir()}
    with np.load(killed / "last.npz") as state, np.load(run.run_dir / "last.npz") as expected:
        assert state.files == expected.files
        for name in set(state.files) - {"meta"}:
            np.testing.assert_allclose(state[name], expected[name], rtol=0, atol=1e-6)


def test_same_seed_same_run(build, data, recipe, run, tmp_path):
    same = train(fresh(build), data, recipe, run_dir=tmp_path, progress=False)
    np.testing.assert_allclose(numbers(same.history), numbers(run.history), rtol=0, atol=1e-6)
    assert_equal_weights(same.model, run.model)


def test_a_finished_run_is_not_trained_again(build, data, recipe, run):
    class Never(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            raise AssertionError("trained again")

    again = train(fresh(build, 2), data, recipe, run_dir=run.run_dir, callbacks=[Never()], progress=False)
    assert again.history == run.history
    assert_equal_weights(again.model, run.model)


def test_another_recipe_data_or_model_is_no_resume(build, data, recipe, run):
    start = r"To start over, pass another `run_dir` or `resume=False`.*Received: .*run, where "
    with pytest.raises(InvalidArgumentError, match=start + r"recipe\.learning_rate was 0\.01 and is now 0\.02\."):
        train(fresh(build), data, recipe.replace(learning_rate=0.02), run_dir=run.run_dir, progress=False)
    other = ImageData.from_arrays(255 - data.pixels, data.targets, data.labels, data.preprocessing)
    with pytest.raises(InvalidArgumentError, match=start + r"data\.sha256 was '\w+' and is now '\w+'\."):
        train(fresh(build), other, recipe, run_dir=run.run_dir, progress=False)
    with pytest.raises(InvalidArgumentError, match=start + r"model\.parameters was \d+ and is now \d+; model\.sha256"):
        train(fresh(build, filters=7), data, recipe, run_dir=run.run_dir, progress=False)


def test_starting_afresh_overwrites_the_run_and_nothing_else(build, data, recipe, run, own_run):
    (own_run / "notes.txt").write_text("mine")
    other = recipe.replace(seed=6)
    result = train(fresh(build), data, other, run_dir=own_run, resume=False, progress=False)
    assert load_run(own_run)[1]["seed"] == 6
    assert (own_run / "notes.txt").read_text() == "mine"
    # Same weights to begin with, but other shuffling and augmentation.
    assert result.history[0]["loss"] != pytest.approx(run.history[0]["loss"], abs=1e-4)


def test_a_damaged_run_is_no_resume(build, data, recipe, own_run):
    state = (own_run / "last.npz").read_bytes()
    (own_run / "last.npz").write_bytes(state[: len(state) // 2])
    with pytest.raises(InvalidArgumentError, match=r"A run to resume must be complete\..*Received: .*last\.npz"):
        train(fresh(build), data, recipe, run_dir=own_run, progress=False)
    (own_run / "last.npz").write_bytes(state)
    (own_run / "best.keras").unlink()
    with pytest.raises(InvalidArgumentError, match=r"A run to resume must be complete\..*no best\.keras\."):
        train(fresh(build), data, recipe, run_dir=own_run, progress=False)


def test_the_run_folder_reads_back(data, recipe, run):
    names = {file.name for file in run.run_dir.iterdir()}
    assert names == {"best.keras", "last.npz", "model.json", "history.csv", "curves.png"}
    model, info = load_run(run.run_dir)
    assert model is not run.model
    pixels, _ = data.validation_arrays()
    np.testing.assert_allclose(model.predict(pixels, verbose=0), run.model.predict(pixels, verbose=0), atol=1e-6)
    assert info["labels"] == list(data.labels)
    assert Preprocessing.from_dict(info["preprocessing"]) == data.preprocessing
    assert Recipe.from_dict(info["recipe"]) == recipe
    assert info["metrics"]["val_accuracy"] == run.best_accuracy
    assert info["metrics"]["finished"] is True
    assert info["versions"]["keras"] == keras.__version__
    with open(run.run_dir / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val_loss"]) for row in rows] == [row["val_loss"] for row in run.history]
    assert (run.run_dir / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not load_run(run.run_dir)[0].compiled


def test_a_folder_that_is_no_run(tmp_path):
    text = r"must hold model\.json and best\.keras.*Received: .* without model\.json and best\.keras\."
    with pytest.raises(InvalidArgumentError, match=text):
        load_run(tmp_path)


def test_a_run_with_a_damaged_description(tmp_path):
    (tmp_path / "best.keras").touch()
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(InvalidArgumentError, match=r"model\.json must be JSON as `train` writes it\."):
        load_run(tmp_path)


def test_the_learning_rate_warms_up_and_decays_to_zero(run, recipe):
    rates = [row["learning_rate"] for row in run.history]
    # One epoch of warm-up, then half a cosine over three: (1 + cos(pi * t)) / 2.
    np.testing.assert_allclose(rates, np.multiply([1, 0.75, 0.25, 0], recipe.learning_rate), rtol=1e-3, atol=1e-6)


def test_weight_decay_spares_vectors(build, data, tmp_path):
    # With next to no gradient step, decay is all that moves a weight.
    model = fresh(build)
    before = [np.array(variable) for variable in model.trainable_variables]
    recipe = Recipe(epochs=1, warmup_epochs=0, batch_size=96, learning_rate=1e-6, weight_decay=1e5)
    train(model, data, recipe, run_dir=tmp_path, progress=False)
    for variable, old in zip(model.trainable_variables, before, strict=True):
        expected = old * 0.9 if old.ndim > 1 else old
        np.testing.assert_allclose(variable, expected, atol=1e-5, err_msg=variable.path)


@pytest.mark.parametrize(("activation", "own_layer"), [("softmax", True), (None, False)])
def test_probabilities_and_logits_give_the_same_loss(data, recipe, tmp_path, activation, own_layer):
    keras.utils.set_random_seed(0)
    images = keras.Input((12, 12, 1))
    x = keras.layers.Flatten()(ImageNormalization(data.preprocessing)(images))
    x = keras.layers.Dense(3, activation=None if own_layer else activation)(x)
    x = keras.layers.Activation(activation, dtype="float32")(x) if own_layer else x
    result = train(keras.Model(images, x), data, recipe.replace(epochs=2), run_dir=tmp_path, progress=False)
    logits = keras.Model(images, x)
    if activation == "softmax":
        probabilities = logits.predict(data.validation_arrays()[0], verbose=0)
    else:
        probabilities = keras.ops.softmax(logits.predict(data.validation_arrays()[0], verbose=0))
    smooth = np.eye(3)[data.validation_arrays()[1]] * 0.9 + 0.1 / 3
    expected = -(smooth * np.log(probabilities)).sum(-1).mean()
    best = result.history[result.best_epoch - 1]
    assert best["val_loss"] == pytest.approx(expected, rel=1e-4)


def test_of_equal_accuracies_the_smaller_loss_is_better_and_then_the_first():
    figures = [(0.9, 0.5), (0.9, 0.4), (0.8, 0.1), (0.9, 0.4)]
    rows = [{"epoch": n, "val_accuracy": a, "val_loss": b} for n, (a, b) in enumerate(figures, 1)]
    assert _Keeper.best.fget(types.SimpleNamespace(_history=rows))["epoch"] == 2


def test_patience_stops_early_and_stays_stopped(build, data, recipe, tmp_path):
    recipe = recipe.replace(epochs=30, patience=2)
    model, kernels = fresh(build), []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_, **__: kernels.append(np.array(model.trainable_variables[0]))
    )
    result = train(model, data, recipe, run_dir=tmp_path, progress=False, callbacks=[watch])
    assert result.epochs == result.best_epoch + 2 < 30
    np.testing.assert_array_equal(result.model.trainable_variables[0], kernels[result.best_epoch - 1])
    assert not np.array_equal(kernels[-1], kernels[result.best_epoch - 1])
    assert train(fresh(build), data, recipe, run_dir=tmp_path, progress=False).history == result.history


def test_a_loss_that_explodes_stops_with_a_text(build, data, recipe, tmp_path):
    model = fresh(build)
    model.layers[-1].kernel.assign(model.layers[-1].kernel * np.nan)
    text = r"must keep the loss finite: try a lower `learning_rate`.*Received: loss=nan in epoch 1, step 1, with "
    with pytest.raises(TrainingError, match=text):
        train(model, data, recipe, run_dir=tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_progress_is_a_line_per_epoch(build, data, recipe, tmp_path, capsys):
    train(fresh(build), data, recipe.replace(epochs=2), run_dir=tmp_path)
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 2
    assert re.fullmatch(
        r"epoch 2/2  loss \d\.\d{4}  accuracy [\d.]+%  val_loss \d\.\d{4}  val_accuracy [\d.]+%  [\d.]+ s"
        r"  \d+ images/s, \d+% waiting for data",
        lines[1],
    )


def test_progress_shows_a_bar_on_a_terminal(build, data, recipe, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes this for a terminal
    train(fresh(build), data, recipe.replace(epochs=2), run_dir=tmp_path)
    err = capsys.readouterr().err
    assert "epoch 2/2" in err
    assert re.search(r"\d+/12", err)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"classes": 4}, r"one score for each of the 3 labels\. Received: .*\(None, 4\)\."),
        ({"size": 16}, r"size, \(12, 12, 1\)\. Received: a model for \(16, 16, 1\)\."),
        ({"activation": "sigmoid"}, r"labels for task='multi-label', rows of 3 numbers .* of shape \(120,\), int32"),
        ({"activation": "tanh"}, r"`task` must say what the outputs are: 'softmax' .* tanh at the end"),
    ],
)
def test_models_that_do_not_fit_the_data(build, data, recipe, tmp_path, arguments, text):
    with pytest.raises(InvalidArgumentError, match=text):
        train(build(**arguments), data, recipe, run_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_model_with_another_preprocessing_than_the_data(build, data, recipe, tmp_path):
    other = ImageNormalization(data.preprocessing.replace(mean=(0.4,), crop_mode="center"))
    text = (
        r"crop_mode=center in the model and squash in the data, mean=\(0\.4,\) in the model and \(0\.5,\) in the data\."
    )
    with pytest.raises(InvalidArgumentError, match=text):
        train(build(normalization=other), data, recipe, run_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_model_with_two_outputs(data, recipe, tmp_path):
    images = keras.Input((12, 12, 1))
    two = keras.Model(images, [images, images])
    with pytest.raises(InvalidArgumentError, match=r"Received: Functional with 1 inputs and 2 outputs\."):
        train(two, data, recipe, run_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_normalization_is_warned_about_and_nothing_is_printed(
    build, data, recipe, tmp_path, caplog, capsys
):
    layer = keras.layers.Rescaling(1 / 255)
    train(build(normalization=layer), data, recipe.replace(epochs=2), run_dir=tmp_path, progress=False)
    assert capsys.readouterr() == ("", "")
    assert "The model has no ImageNormalization layer" in caplog.text
    assert json.loads((tmp_path / "model.json").read_text())["labels"] == ["top", "middle", "bottom"]
