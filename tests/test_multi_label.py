"""Multi-label models from training to the client, as docs/multi-label.md shows: the thresholds stay with the model."""

import csv
import io
import json
import re
import shutil
from pathlib import Path

import grpc
import keras
import numpy as np
import pytest
from keraslight_serving.client import ClassifierClient, Unsupported
from keraslight_serving.client.errors import InvalidInput
from keraslight_serving.client.testing import FakeChannel
from keraslight_serving.server import ModelServer
from PIL import Image
from typer.testing import CliRunner

import keraslight
from keraslight import _tasks, analysis, training
from keraslight._tasks import Head
from keraslight.cli.app import app
from keraslight.errors import InvalidArgumentError
from keraslight.export import read_metadata, save_servable, to_litert
from keraslight.graph import own_preprocessing
from keraslight.layers import ImageNormalization
from keraslight.preprocessing import Preprocessing
from keraslight.training import ImageData, Recipe, load_run, train

PAGE = Path(__file__).parent.parent / "docs" / "multi-label.md"
SPEC = Preprocessing((8, 8), mean=(0.5,), std=(0.5,))
LABELS = ["dark", "left", "right"]
PNG = io.BytesIO()
Image.new("L", (8, 8)).save(PNG, "PNG")
PNG = PNG.getvalue()


@pytest.fixture(autouse=True)
def _free_models():
    """The trained net is kept for the tests that follow."""


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """What the page's examples define, run one after another in a folder of their own, and that folder."""
    folder = tmp_path_factory.mktemp("example")
    scope = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        blocks = re.findall(r"<!-- tested -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
        for block in blocks[:2]:
            exec(compile(block, str(PAGE), "exec"), scope)
        scope["asked"] = []
        exec(compile(blocks[2].replace("print(", "asked.append("), str(PAGE), "exec"), scope)
    return scope, folder


def test_the_example_classifies_by_the_thresholds_of_its_training(example):
    scope, folder = example
    result, data, images, truth = (scope[name] for name in ("result", "data", "images", "truth"))
    assert result.best_accuracy > 0.9
    scores = result.model.predict(images.astype("float32"), verbose=0)
    assert np.ptp(scores.sum(1)) > 0.5  # no softmax
    assert result.thresholds == analysis.best_thresholds(truth, scores)
    info = json.loads((folder / "runs/kinds/model.json").read_text())
    assert (info["task"], tuple(info["thresholds"])) == ("multi-label", result.thresholds)
    given = scores[:60] > np.array(result.thresholds)
    answers = [sorted(data.labels.index(label) for label in labels) for labels in scope["asked"]]
    assert answers == [np.flatnonzero(row).tolist() for row in given]
    assert (given == truth[:60]).mean() > 0.9


def test_the_servable_tells_thresholds_and_independent_scores(example):
    scope, folder = example
    version = folder / "savedmodels/kinds/1"
    limits = scope["result"].thresholds
    assert json.loads((version / "assets.extra/keraslight.json").read_text())["thresholds"] == list(limits)
    assert read_metadata(version / "model.tflite").thresholds == limits
    scores = scope["result"].model.predict(scope["images"][:4].astype("float32"), verbose=0)
    with ModelServer("kinds", version.parent, rest_api_port=0) as server:
        for target in (server.address, server.rest_address):
            with ClassifierClient(target, "kinds", labels=scope["data"].labels, timeout=120) as client:
                by_model = client.classify(scope["images"][:4], threshold="model")
                by_number = client.classify(scope["images"][:4], threshold=0.5)
                whole = client.classify(scope["images"][:4])
            for limit, rankings in ((np.array(limits), by_model), (0.5, by_number), (0, whole)):
                assert [{c.index for c in found} for found in rankings] == [
                    set(np.flatnonzero(row > limit).tolist()) for row in scores
                ]
            np.testing.assert_allclose([sum(c.score for c in found) for found in whole], scores.sum(1), atol=1e-4)


def test_evaluate_uses_the_thresholds_of_runs_files_and_servables(example, tmp_path):
    _, folder = example
    table = tmp_path / "few.csv"
    rows = [["file", "labels"]]
    digits = training.load_digits(training.DIGITS_PREPROCESSING.replace(size=(32, 32)))
    kinds = {"even": (0, 2, 4, 6, 8), "prime": (2, 3, 5, 7), "round": (0, 6, 8, 9), "large": (5, 6, 7, 8, 9)}
    for number in range(12):
        Image.fromarray(digits.pixels[number, ..., 0]).save(tmp_path / f"{number}.png")
        rows.append([f"{number}.png", ";".join(name for name in kinds if digits.targets[number] in kinds[name])])
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    wanted = json.loads((folder / "runs/kinds/model.json").read_text())["thresholds"]
    for source in ("runs/kinds", "savedmodels/kinds", "savedmodels/kinds/1/model.tflite"):
        command = ["evaluate", str(folder / source), "--data", str(table), "--no-robustness", "--json", "--part", "all"]
        done = CliRunner().invoke(app, command, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        classes = json.loads(done.stdout)["classes"]
        assert {each["label"]: each["threshold"] for each in classes} == dict(zip(kinds, wanted, strict=True))


# ---------------------------------------------------------------- small nets


def net(seed=0, activation="sigmoid"):
    keras.utils.set_random_seed(seed)
    images = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(ImageNormalization(SPEC)(images))
    return keras.Model(images, keras.layers.Dense(3, activation=activation)(x), name="net")


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (64, 8, 8, 1), dtype=np.uint8)
    pixels[::2] //= 2
    means = pixels.mean((1, 3))
    rows = np.stack([means.mean(1) < 100, means[:, :4].mean(1) > means[:, 4:].mean(1), means[:, 0] > 90], 1)
    return ImageData.from_arrays(pixels, rows, LABELS, SPEC)


class Kill(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def test_a_resumed_run_has_the_thresholds_of_its_best_epoch(data, tmp_path):
    recipe = Recipe(epochs=4, batch_size=16, learning_rate=0.02, ema=0.9)
    whole = train(net(activation=None), data, recipe, run_dir=tmp_path / "a", progress=False, task="multi-label")
    with pytest.raises(KeyboardInterrupt):
        train(
            net(activation=None),
            data,
            recipe,
            run_dir=tmp_path / "b",
            progress=False,
            callbacks=[Kill()],
            task="multi-label",
        )
    model, info = load_run(tmp_path / "b")
    assert tuple(info["thresholds"]) == _settled(model, data)
    again = train(net(activation=None), data, recipe, run_dir=tmp_path / "b", progress=False, task="multi-label")
    assert again.thresholds == whole.thresholds == _settled(whole.model, data)
    assert load_run(tmp_path / "b")[1]["thresholds"] == list(whole.thresholds)
    # A run from before thresholds were written.
    info = json.loads((tmp_path / "b/model.json").read_text())
    del info["thresholds"]
    (tmp_path / "b/model.json").write_text(json.dumps(info))
    old = train(net(activation=None), data, recipe, run_dir=tmp_path / "b", progress=False, task="multi-label")
    assert tuple(load_run(tmp_path / "b")[1]["thresholds"]) == old.thresholds == whole.thresholds


def _settled(model, data):
    pixels, targets = data.validation_arrays()
    outputs = model.predict(pixels.astype("float32"), verbose=0)
    return analysis.best_thresholds(targets, _tasks.probabilities(_tasks.read_head(model, "multi-label"), outputs))


def test_other_tasks_have_no_thresholds(data, tmp_path):
    classes = ImageData.from_arrays(
        data.pixels, data.targets[:, 0].astype(int) + data.targets[:, 1].astype(int), LABELS, SPEC
    )
    result = train(net(activation="softmax"), classes, Recipe(epochs=1), run_dir=tmp_path, progress=False)
    assert result.thresholds is None
    assert "thresholds" not in load_run(tmp_path)[1]


def command(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A table of several labels per image, and the run folder that `keraslight train` made of it."""

    def create(name, *, classes, input_shape, classifier_activation, preprocessing, **others):
        keras.utils.set_random_seed(0)
        images = keras.Input(input_shape)
        x = keras.layers.Flatten()(ImageNormalization(preprocessing)(images))
        return keras.Model(images, keras.layers.Dense(classes, activation=classifier_activation)(x), name=name)

    folder = tmp_path_factory.mktemp("table")
    with (folder / "all.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "labels"])
        for number in range(12):
            level = 20 * number
            Image.new("RGB", (32, 32), (level, 255 - level, 128)).save(folder / f"{number}.png")
            writer.writerow([f"{number}.png", ";".join(["red"] * (number > 5) + ["few"] * (number % 2))])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keraslight, "create_model", create)  # a small one
        size = ("--size", 48, "--epochs", 1, "--per-image")
        command("train", "squeezenet_1_1", "--data", folder / "all.csv", *size, "--to", folder / "run")
    return folder / "all.csv", folder / "run"


def test_a_table_of_several_labels_trains_by_command(trained):
    _, run = trained
    model, info = load_run(run)
    assert (info["task"], info["labels"], len(info["thresholds"])) == ("multi-label", ["few", "red"], 2)
    assert _tasks.read_head(model) == Head("multi-label", 2, None)
    assert info["preprocessing"]["per_image"] is True
    assert own_preprocessing(model).per_image


@pytest.mark.slow
def test_commands_carry_thresholds_or_settle_them_again(trained, tmp_path):
    table, run = trained
    _, info = load_run(run)
    broken = info | {"thresholds": [0.123, 0.321]}  # of other weights
    run = shutil.copytree(run, tmp_path / "run")
    (run / "model.json").write_text(json.dumps(broken))
    command("fuse", run, "--data", table, "--to", tmp_path / "fused")
    assert load_run(tmp_path / "fused")[1]["thresholds"] == pytest.approx(info["thresholds"], abs=1e-4)
    command("export", run, "--to", tmp_path / "served")
    origin = json.loads((tmp_path / "served/1/assets.extra/keraslight.json").read_text())
    assert origin["thresholds"] == broken["thresholds"]
    command("litert", run, "--to", tmp_path / "net.tflite")
    assert read_metadata(tmp_path / "net.tflite").thresholds == tuple(broken["thresholds"])


@pytest.mark.slow
def test_a_file_whose_labels_are_in_another_order_than_the_datas(trained, tmp_path):
    table, run = trained
    model, info = load_run(run)
    model.layers[-1].set_weights([weight[..., ::-1] for weight in model.layers[-1].get_weights()])
    model.save(tmp_path / "net.keras")
    (tmp_path / "names.txt").write_text("red\nfew\n")
    names, other = tmp_path / "names.txt", tmp_path / "other"
    command("fuse", tmp_path / "net.keras", "--data", table, "--to", other, "--labels", names)
    found = load_run(other)[1]
    assert found["labels"] == ["red", "few"]
    assert found["thresholds"] == pytest.approx(info["thresholds"][::-1], abs=1e-4)


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_a_litert_file_carries_thresholds(tmp_path, activation):
    file = to_litert(
        net(activation=activation),
        tmp_path / "f.tflite",
        labels=LABELS,
        thresholds=(0.25, 0.5, 0.9),
        task="multi-label",
    )
    found = read_metadata(file)
    assert found.labels == tuple(LABELS)
    assert found.thresholds == pytest.approx((0.25, 0.5, 0.9), rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"thresholds": (0.5, 0.5)},
            r"`thresholds` must be between 0 and 1, one or 3\. Received: thresholds=\(0.5, 0.5",
        ),
        ({"thresholds": 1.0}, r"`thresholds` must be between 0 and 1, one or 3\. Received: thresholds=1.0"),
        ({"thresholds": "a"}, r"`thresholds` must be between 0 and 1, one or 3\. Received: thresholds='a'"),
        ({"thresholds": (0.5, float("nan"), 0.5)}, "`thresholds` must be between 0 and 1"),
        ({"thresholds": 0.5, "activation": "softmax"}, "of a 'multi-label' model. Received: task='softmax'"),
    ],
)
def test_wrong_thresholds_are_rejected(tmp_path, arguments, text):
    model = net(activation=arguments.pop("activation", "sigmoid"))
    for export in (save_servable, to_litert):
        with pytest.raises(InvalidArgumentError, match=text):
            export(model, tmp_path / "m", labels=LABELS, **arguments)
    assert not list(tmp_path.iterdir())


def test_thresholds_of_a_file_need_labels(tmp_path):
    with pytest.raises(InvalidArgumentError, match="`thresholds` must come with `labels`"):
        to_litert(net(), tmp_path / "f.tflite", thresholds=0.5)


def test_best_thresholds_are_between_the_scores_in_float32_too():
    one, below = np.float32(1), np.nextafter(np.float32(1), np.float32(0))
    tiny = np.nextafter(np.float32(0), np.float32(1))
    for high, low in ((one, below), (one, np.float32(0)), (tiny, np.float32(0)), (np.float32(0.9), np.float32(0.1))):
        (limit,) = analysis.best_thresholds([[1], [0]], [[high], [low]])
        assert 0 < limit < 1
        assert low <= limit < high
        assert low <= np.float32(limit) < high or high == tiny
    assert analysis.best_thresholds([[1], [0]], [[0.0], [0.0]]) == (0.5,)
    assert analysis.best_thresholds([[1], [1]], [[0.5], [0.0]]) == (0.25,)  # no threshold is below 0
    _tasks.check_thresholds(Head("multi-label", 1, None), limit)


# ---------------------------------------------------------------- the client alone


def test_the_client_keeps_what_is_above_its_threshold():
    channel = FakeChannel([("a", 0.9), ("b", 0.6), ("c", 0.4)], thresholds=[0.95, 0.5, 0.3])
    with ClassifierClient(channel=channel) as client:
        (found,) = client.classify(PNG, threshold="model")
        assert [c.label for c in found] == ["b", "c"]
        (found,) = client.classify(PNG, top_k=1, threshold="model")
        assert [c.label for c in found] == ["b"]
        (found,) = client.classify(PNG, threshold=0.5)
        assert [(c.label, c.index) for c in found] == [("a", 0), ("b", 1)]
        (found,) = client.classify(PNG, threshold=1.0)
        assert found == []
        assert [c.label for c in next(client.stream(PNG, threshold="model")).ranking] == ["b", "c"]
        with pytest.raises(InvalidInput, match="`threshold` must be a number or 'model'. Received: 'own'"):
            client.classify(PNG, threshold="own")


def test_the_client_says_that_a_model_has_no_thresholds():
    with ClassifierClient(channel=FakeChannel()) as client:
        with pytest.raises(Unsupported, match=r'threshold="model" is for multi-label models .*; pass a number'):
            client.classify(PNG, threshold="model")
        assert len(client.classify(PNG, threshold=0.5)[0]) == 1
        channel = FakeChannel(error=grpc.StatusCode.INVALID_ARGUMENT, details='signature "encoded" not found')
    with ClassifierClient(channel=channel) as client, pytest.raises(Exception, match="encoded"):
        client.classify(PNG, threshold="model")
