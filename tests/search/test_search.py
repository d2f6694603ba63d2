"""`search`: cost before training, a loss on held-out images, and a front that the same call finds again."""

import csv
import dataclasses

import keras
import numpy as np
import optuna
import pytest
from optuna.trial import FixedTrial

import keraslight
from keraslight import search as package
from keraslight.errors import ExportError, InvalidArgumentError, TrainingError
from keraslight.search import MobileNetV3Space, _measure, _search, retrain, search
from keraslight.search._measure import Meter, judge
from keraslight.training import ImageData, Recipe, load_run
from tests.search.conftest import SMALL, small_net


@pytest.fixture(scope="module")
def found(data, recipe, tmp_path_factory):
    """Two trials that were trained."""
    return search(small_net, data, recipe, run_dir=tmp_path_factory.mktemp("search"), trials=2, metric="parameters")


def rows(folder):
    with (folder / "front.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_trained_trials_have_run_folders(found, data):
    best = found.pick()
    model, info = load_run(found.run_dir / "trials" / f"{best.number:04d}")
    inner = data.resplit(0.2, 0)
    assert info["metrics"]["train_images"] == inner.train_count < data.train_count
    assert judge(model, inner, None) == pytest.approx((best.loss, best.accuracy), abs=1e-6)
    np.testing.assert_array_equal(found.best().get_weights()[-1], model.get_weights()[-1])
    assert model.count_params() == best.parameters
    assert not list(found.run_dir.glob("trials/*/last.npz"))
    assert (found.run_dir / "front.png").stat().st_size > 1000


def test_the_front_is_written_as_a_table(found):
    table = rows(found.run_dir)
    assert [int(row["trial"]) for row in table] == list(found.front)
    assert [int(row["parameters"]) for row in table] == sorted(int(row["parameters"]) for row in table)
    best = found[int(table[-1]["trial"])]
    assert float(table[-1]["loss"]) == best.loss
    assert int(table[-1]["width"]) == best.choices["width"]
    assert "seconds" not in table[0]
    assert "latency_ms" not in table[0]
    lines = str(found).splitlines()
    assert len(lines) == 1 + len(found.front) + 1
    assert lines[-1] == f"2 nets trained, 0 stopped before. Run folder: {found.run_dir}"


def test_picks_are_retrained_and_compared(found, data, recipe, monkeypatch):
    monkeypatch.setattr("keraslight.search._retrain.create_model", lambda name, **ends: small_net(CHOICES))
    again = retrain(found, [1], data, recipe, seeds=1, against=["mobilenet_v3_small_050"], progress=False)
    assert [net.name for net in again.nets] == ["trial 1", "mobilenet_v3_small_050"]
    model, info = load_run(found.run_dir / "retrained" / "0001_seed0")
    assert again.nets[0].run_dirs == (found.run_dir / "retrained" / "0001_seed0",)
    assert again.nets[0].accuracy == info["metrics"]["val_accuracy"]
    assert info["metrics"]["train_images"] == data.train_count
    assert (model.count_params(), again.nets[1].parameters) == (found[1].parameters, small_net(CHOICES).count_params())
    table = (found.run_dir / "retrained.csv").read_text().splitlines()
    assert table[0] == "net,accuracy,seed 0,latency_ms,macs,parameters"
    assert table[1].startswith(f"trial 1,{again.nets[0].accuracy},")
    assert str(again).splitlines()[1].startswith("trial 1 ")


CHOICES = FixedTrial({"width": 4, "stride": 3})


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"picks": [7]}, "The number must be that of a finished trial, 0, 1. Received: 7."),
        ({"picks": []}, "`seeds` must be at least 1, and there must be a pick or a name."),
        ({"picks": [0], "seeds": 0}, "Received: seeds=0, picks=.0., against=.."),
        ({"picks": [0], "against": ["mobilenet_v3_smal"]}, "mobilenet_v3_smal"),
    ],
)
def test_bad_picks_are_refused(found, data, recipe, arguments, text):
    with pytest.raises(InvalidArgumentError, match=text):
        retrain(found, data=data, recipe=recipe, **arguments)


def test_the_same_seed_gives_the_same_bytes_even_if_interrupted(data, recipe, trained, tmp_path):
    # All samplers are interrupted in test_study.py.
    arguments = {"metric": "macs", "seed": 3, "progress": False}
    search(small_net, data, recipe, run_dir=tmp_path / "whole", trials=4, **arguments)
    assert trained == [f"{number:04d}" for number in range(4)]
    trained.clear()

    def broken(trial):
        if trial.number == 2:
            small_net(trial)
            raise RuntimeError("killed")
        return small_net(trial)

    broken.__qualname__, broken.__module__ = small_net.__qualname__, small_net.__module__
    with pytest.raises(RuntimeError, match="killed"):
        search(broken, data, recipe, run_dir=tmp_path / "parts", trials=4, **arguments)
    assert len(rows(tmp_path / "parts")) > 0
    result = search(small_net, data, recipe, run_dir=tmp_path / "parts", trials=4, **arguments)
    assert trained == [f"{number:04d}" for number in range(4)]
    assert [candidate.number for candidate in result.candidates] == list(range(4))
    assert (tmp_path / "parts" / "front.csv").read_bytes() == (tmp_path / "whole" / "front.csv").read_bytes()
    other = search(small_net, data, recipe, run_dir=tmp_path / "other", trials=4, **arguments | {"seed": 4})
    assert [c.choices for c in other.candidates] != [c.choices for c in result.candidates]


def test_a_finished_search_is_returned_and_can_be_enlarged(data, recipe, trained, tmp_path):
    arguments = {"run_dir": tmp_path, "metric": "macs", "progress": False}
    first = search(small_net, data, recipe, trials=2, **arguments)
    again = search(small_net, data, recipe, trials=2, **arguments)
    assert (again.candidates, again.front) == (first.candidates, first.front)
    assert len(search(small_net, data, recipe, trials=3, **arguments).candidates) == 3
    assert trained == ["0000", "0001", "0002"]
    for changed in ({"seed": 1}, {"metric": "parameters"}, {"target": 3000}, {"hold_out": 0.3}):
        with pytest.raises(InvalidArgumentError, match="A search can only be resumed with the arguments"):
            search(small_net, data, recipe, trials=3, **arguments | changed)
    with pytest.raises(InvalidArgumentError, match="other values of recipe"):
        search(small_net, data, recipe.replace(learning_rate=0.1), trials=3, **arguments)
    fresh = search(small_net, data, recipe, trials=1, resume=False, **arguments | {"seed": 1})
    assert len(fresh.candidates) == 1


def test_what_is_too_slow_is_stopped_before_it_trains(data, recipe, trained, tmp_path, monkeypatch):
    times = iter([0.3, 0.1, 0.2])
    monkeypatch.setattr(Meter, "latencies", lambda self, models, data: dict.fromkeys(models, next(times)))
    result = search(small_net, data, recipe, run_dir=tmp_path, trials=3, limit=0.2, progress=False)
    assert trained == ["0001", "0002"]
    assert [candidate.latency_ms for candidate in result.candidates] == [0.3, 0.1, 0.2]
    assert [candidate.loss is None for candidate in result.candidates] == [True, False, False]
    assert result.candidates[0].stopped == "latency of 0.3 above 0.2"
    assert 0 not in result.front
    assert result.pick(at_most=0.15).number == 1
    with pytest.raises(InvalidArgumentError, match="`at_most` must be at least the cheapest trained net's latency."):
        result.pick(at_most=0.05)
    assert str(result).splitlines()[-1].startswith("2 nets trained, 1 stopped before.")


def test_a_target_makes_one_objective(data, recipe, trained, tmp_path):
    target = {"metric": "macs", "target": 2000, "exponent": 0.5, "progress": False}
    result = search(small_net, data, recipe, run_dir=tmp_path, trials=6, **target)
    macs = [candidate.macs for candidate in result.candidates]
    assert [candidate.loss is None for candidate in result.candidates] == [number > 4000 for number in macs]
    scores = {c.number: c.loss * (c.macs / 2000) ** 0.5 for c in result.candidates if c.loss is not None}
    assert result.pick().number == min(scores, key=scores.get)
    journal = (tmp_path / "trials.journal").read_text()
    for score in scores.values():
        assert f'"values":[{score}]' in journal


def test_nets_that_diverge_or_are_not_built_are_recorded(data, recipe, tmp_path, monkeypatch):
    def odd(trial):
        if trial.number == 0:
            raise optuna.TrialPruned("too odd")
        return small_net(trial)

    def train(*given, **options):
        raise TrainingError("The loss is nan.")

    monkeypatch.setattr(_search, "train", train)
    result = search(odd, data, recipe, run_dir=tmp_path, trials=2, metric="macs", progress=False)
    assert [candidate.stopped for candidate in result.candidates] == ["too odd", "The loss is nan."]
    assert result.front == ()
    assert rows(tmp_path) == []
    with pytest.raises(InvalidArgumentError, match="no trained net"):
        result.pick()
    again = search(odd, data, recipe, run_dir=tmp_path, trials=2, metric="macs", progress=False)
    assert again.candidates == result.candidates


def test_held_out_images_of_the_data_take_no_part(data):
    inner = data.resplit(0.25, 1)
    own = set(inner.train_indices) | set(inner.validation_indices)
    assert own == set(data.train_indices)
    assert np.bincount(inner.targets[inner.validation_indices]).tolist() == [8, 8, 8]
    assert set(data.resplit(0.25, 2).validation_indices) != set(inner.validation_indices)
    scores = ImageData.from_arrays(np.zeros((20, 12, 12, 1), "uint8"), np.random.rand(20, 2), ["a", "b"], SMALL)
    assert scores.resplit(0.5).validation_count == 8


@pytest.mark.parametrize(
    ("activation", "task", "targets", "loss", "accuracy"),
    [
        ("softmax", None, [0, 1], -np.log([0.5, 0.5]).mean(), 0.5),
        (None, None, [0, 1], np.log(2), 0.5),
        ("sigmoid", None, [[1.0, 0.0], [1.0, 1.0]], np.log(2), 0.25),
        (None, "regression", [[1.0, 0.0], [0.0, 0.0]], 0.25, None),
    ],
)
def test_the_loss_is_that_of_the_task(activation, task, targets, loss, accuracy):
    images = keras.Input((12, 12, 1))
    dense = keras.layers.Dense(2, activation=activation, kernel_initializer="zeros")
    model = keras.Model(images, dense(keras.layers.GlobalAveragePooling2D()(images)))
    targets = np.asarray(targets, "int32" if np.ndim(targets) == 1 else "float32")
    pixels = np.zeros((2, 12, 12, 1), "uint8")
    held = ImageData(("a", "b"), SMALL, targets, np.arange(0), np.arange(2), pixels)
    found = judge(model, held, task)
    assert found[0] == pytest.approx(loss, abs=1e-6)
    if accuracy is not None:
        assert found[1] == accuracy


def test_latency_is_that_of_files_on_this_machine(data):
    models = {"narrow": small_net(CHOICES), "wide": wide_net()}
    for meter in (Meter(), Meter(int8=True)):
        times = meter.latencies(models, data)
        assert 0 < times["narrow"] < times["wide"]
    costs = Meter("macs").costs(models["narrow"], data)
    assert costs == {"macs": 16 * 9 * 4 + 64 * 3, "parameters": 40 + 195}


def wide_net():
    images = keras.Input((12, 12, 1))
    x = keras.layers.Conv2D(128, 5, padding="same")(images)
    return keras.Model(images, keras.layers.Conv2D(64, 5, padding="same")(x))


def test_a_space_fits_its_nets_to_the_data(recipe, trained, tmp_path):
    spec = dataclasses.replace(SMALL, size=(32, 32))
    pixels, space = np.zeros((20, 32, 32, 1), "uint8"), MobileNetV3Space(stages=((8, 16),), depth=(1, 1))
    several = ImageData.from_arrays(pixels, np.eye(4, dtype="float32")[np.arange(20) % 4], list("abcd"), spec)
    result = search(space, several, recipe, run_dir=tmp_path, trials=1, metric="parameters", progress=False)
    model = result.build(0)
    assert (model.input_shape, model.output_shape) == ((None, 32, 32, 1), (None, 4))
    assert model.layers[-1].activation.__name__ == "sigmoid"
    code = (tmp_path / "trials" / "0000" / "model.py").read_text()
    assert code == result.candidates[0].code
    assert "classifier_activation='sigmoid'" in code


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"trials": 0}, "`trials` must be at least 1"),
        ({"seed": -1}, "`seed` at least 0. Received: trials=1, seed=-1."),
        ({"sampler": "best"}, "`sampler` must be one of .'tpe', 'nsga2', 'random'.. Received: 'best'."),
        ({"metric": "watts"}, "`metric` must be one of .'latency', 'macs', 'parameters'.. Received: 'watts'."),
        ({"metric": "macs", "int8": True}, '`int8` is for metric="latency"'),
        ({"threads": 0}, "`threads` must be at least 1. Received: 0."),
        ({"target": 0}, "`target` must be above 0. Received: target=0."),
        ({"limit": -1.0}, "`limit` must be above 0. Received: limit=-1.0."),
        ({"exponent": float("nan")}, "`exponent` must be above 0. Received: exponent=nan."),
        ({"hold_out": 1.0}, "`hold_out` must be in .0, 1.. Received: hold_out=1.0."),
        ({"data": ([], [])}, "`data` must be an ImageData. Received: tuple."),
        ({"space": "mobilenet_v3"}, "`space` must be a MobileNetV3Space.* Received: 'mobilenet_v3'."),
        ({"space": MobileNetV3Space}, "`space` must be a MobileNetV3Space"),
        ({"space": lambda trial: None}, "`space` must return a keras.Model for each trial. Received: NoneType."),
    ],
)
def test_bad_arguments_are_refused(data, recipe, tmp_path, arguments, text):
    given = {"space": small_net, "data": data, "trials": 1, "metric": "macs", "progress": False} | arguments
    with pytest.raises(InvalidArgumentError, match=text):
        search(**given, recipe=recipe, run_dir=tmp_path / "new")


def test_an_error_of_the_machine_is_raised_and_the_trial_kept(data, recipe, trained, tmp_path, monkeypatch):
    def fail(*given, **options):
        raise ExportError("no")

    with monkeypatch.context() as patch:
        patch.setattr(_measure, "to_litert", fail)
        with pytest.raises(ExportError, match="no"):
            search(small_net, data, recipe, run_dir=tmp_path, trials=1, progress=False)
    monkeypatch.setattr(Meter, "latencies", lambda self, models, data: dict.fromkeys(models, 1.0))
    result = search(small_net, data, recipe, run_dir=tmp_path, trials=1, progress=False)
    assert [candidate.latency_ms for candidate in result.candidates] == [1.0]


def test_progress_is_a_line_per_trial(data, recipe, trained, tmp_path, capsys):
    search(small_net, data, recipe, run_dir=tmp_path, trials=2, metric="macs")
    lines = capsys.readouterr().err.splitlines()
    assert [line[:14] for line in lines] == ["trial 0 (1/2) ", "trial 1 (2/2) "]
    assert "  loss " in lines[0]
    assert " macs " in lines[0]


def test_the_package_is_loaded_on_first_use():
    assert keraslight.search is package


@pytest.mark.slow
def test_trainings_give_the_same_bytes(data, tmp_path):
    recipe = Recipe(epochs=2, batch_size=16, learning_rate=0.01)
    for name in "ab":
        search(small_net, data, recipe, run_dir=tmp_path / name, trials=3, metric="macs", progress=False)
    assert (tmp_path / "a" / "front.csv").read_bytes() == (tmp_path / "b" / "front.csv").read_bytes()
