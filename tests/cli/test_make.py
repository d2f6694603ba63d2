"""`keraslight make` from images to a file that MediaPipe reads; `keraslight predict` with everything that it wrote."""

import base64
import dataclasses
import html.parser
import io
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import keraslight
from keraslight import analysis
from keraslight.cli import _make
from keraslight.cli._make import Settings, run_make
from keraslight.cli._make_report import Page as PageContent, write_report
from keraslight.errors import (
    CompressionError,
    DataError,
    DisagreementError,
    InvalidArgumentError,
    WeightsUnavailableError,
)
from keraslight.export import LiteRTParity, litert_runner, read_metadata, read_versions
from keraslight.preprocessing import Preprocessing
from keraslight.training import RECIPES, load_run, load_test

LABELS = ["<b>red", "blue", "green & co"]  # sorted, as folders are
PARTS = {"train": 8, "val": 4, "test": 5}
OPTIONS = ("--model", "lenet5_modern", "--size", 32, "--weights", "none", "--epochs", 3)


@pytest.fixture(autouse=True)
def _free_models():
    """The trained net is kept for the tests that follow."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Noise in three colors, a file that is broken, and one called as a file mustn't be in a page."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for part, count in PARTS.items():
        for channel, label in zip((0, 2, 1), LABELS, strict=True):
            folder = root / part / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 120, (40, 40, 3), dtype=np.uint8)
                pixels[..., channel] += np.uint8(rng.integers(50, 130))
                Image.fromarray(pixels).save(folder / f"{number}.png")
    (root / "test" / "blue" / "0.png").rename(root / "test" / "blue" / '"><script>x.png')
    (root / "test" / "blue" / "broken.png").write_bytes(b"")
    return root


@pytest.fixture(scope="module")
def made(run, photos, tmp_path_factory):
    """The folder, and what `--json` printed."""
    out = tmp_path_factory.mktemp("made") / "colors"
    return out, json.loads(run("make", photos, "--to", out, *OPTIONS, "--json"))


@pytest.fixture(scope="module")
def tested(made, photos):
    """The test images as the model takes them, and their classes."""
    spec = Preprocessing.from_dict(json.loads((made[0] / "preprocessing.json").read_text()))
    return load_test(photos, spec, progress=False)


def test_the_file_is_the_model_and_has_its_labels(made, tested):
    out, results = made
    file = out / results["files"][0]["name"]
    pixels, targets = tested.validation_arrays()
    answers = litert_runner(file)(pixels).argmax(1)
    assert results["accuracy"] == np.mean(answers == targets) > 0.9
    assert (results["form"], results["part"], results["test_images"]) == ("int8", "test", 15)
    assert (results["train_images"], results["validation_images"], results["skipped_images"]) == (24, 12, 1)
    assert [trial["kept"] for trial in results["trials"]] == [True]
    assert list(read_metadata(file).labels) == LABELS == results["labels"]
    assert results["files"][0]["bytes"] == file.stat().st_size < results["files"][1]["bytes"]
    assert json.loads((out / "make.json").read_text())["results"] == results
    model, info = load_run(out / "run")
    assert info["recipe"] == {**RECIPES["few_photos"].shortened(3).to_dict(), **info["recipe"]}
    assert results["model_accuracy"] == np.mean(model.predict(pixels.astype("float32"), verbose=0).argmax(1) == targets)
    (version,) = read_versions(out / "savedmodels" / "colors")
    assert str(version.path) == str(out / results["servable"])


def test_mediapipe_gives_the_same_top_1_for_all_test_images(made, tested, mediapipe_classify):
    pixels, _ = tested.validation_arrays()
    file = made[0] / "model.tflite"
    wanted = litert_runner(file)(pixels)
    for ranking, scores in zip(mediapipe_classify(file, pixels), wanted, strict=True):
        assert ranking[0][0] == LABELS[scores.argmax()]
        assert ranking[0][1] == pytest.approx(scores.max(), abs=1e-6)


class Page(html.parser.HTMLParser):
    """What a browser would see of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.pictures, self.text, self.links = [], [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name == "src":
                self.pictures.append(value)
            elif name in ("href", "srcset", "action", "data"):
                self.links.append(value)
            assert not name.startswith("on"), (tag, name)

    def handle_data(self, data):
        self.text += f" {data} "


def test_the_page_is_one_file_and_escapes_what_strangers_named(made, tested):
    out, results = made
    page = Page((out / "report.html").read_text("utf-8"))
    assert not page.links
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    pictures = []
    for source in page.pictures:
        kind, _, content = source.partition(",")
        assert kind == "data:image/png;base64"
        pictures.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")))
    assert len(pictures) == 15 + 2  # all test images, calibration and curves
    assert page.tags.count("b") == page.tags.count("figure") == 15  # one for each image's class, none from a label
    for text in (*LABELS, 'test/blue/"><script>x.png', "Precision"[1:], f"{100 * results['accuracy']:.1f}%"):
        assert text in page.text
    pixels, _ = tested.validation_arrays()
    found = {picture.tobytes() for picture in pictures}
    assert all(image.tobytes() in found for image in pixels)


def test_the_figures_of_the_page_are_those_of_the_file(made, tested):
    pixels, targets = tested.validation_arrays()
    answers = litert_runner(made[0] / "model.tflite")(pixels).argmax(1)
    text = " ".join(Page((made[0] / "report.html").read_text("utf-8")).text.split())
    for index, label in enumerate(LABELS):
        right, given, true = ((answers == index) & (targets == index)).sum(), (answers == index).sum(), 5
        assert f"{label} 5 {100 * right / given:.1f}% {100 * right / true:.1f}%" in text
        assert " ".join([label, *(str(((targets == index) & (answers == n)).sum()) for n in range(3))]) in text


@pytest.fixture
def results(made):
    return dict(made[1])


def test_wrong_answers_are_shown_first_and_counted(made, tested, results, tmp_path):
    """By a function that takes blue for green, in a set of 40 classes."""
    labels = [f"class {number}" for number in range(37)]
    images = dataclasses.replace(tested, labels=(*LABELS, *labels))
    pixels, targets = images.validation_arrays()

    def answer(batch):
        scores = np.full((len(batch), 40), 0.1 / 39, np.float32)
        given = batch.mean((1, 2)).argmax(-1)
        scores[np.arange(len(batch)), np.where(given == 0, 0, 2)] = 0.9
        return scores

    found = analysis.evaluate(answer, pixels, targets, images.labels)
    page = write_report(
        tmp_path / "page.html", PageContent(results, found, images, pixels, made[0] / "run" / "curves.png", 0)
    )
    text = " ".join(Page(page.read_text("utf-8")).text.split())
    assert "Most frequent mistakes true class answer images of the class blue green & co 5 100.0%" in text
    assert "Confusion matrix" not in text  # too large
    assert "class 36 0 0.0% 0.0% 0.0%" in text
    first = text[text.index("Worst images") :]
    assert first.index("is blue") < first.index("is green & co")
    assert page.read_text("utf-8").count('<figure class="wrong">') == 5


def test_labels_that_are_independent_have_a_page_too(made, tested, results, tmp_path):
    rows = np.eye(3, dtype=np.float32)[tested.targets]
    rows[:, 0] = 1
    images = dataclasses.replace(tested, targets=rows)
    pixels, targets = images.validation_arrays()

    def answer(batch):
        return np.repeat([[0.8, 0.3, 0.9]], len(batch), axis=0)

    found = analysis.evaluate(answer, pixels, targets, LABELS, task="multi-label")
    page = write_report(
        tmp_path / "page.html", PageContent(results, found, images, pixels, made[0] / "run" / "curves.png", 0)
    )
    text = " ".join(Page(page.read_text("utf-8")).text.split())
    assert "mean average precision" in text
    assert "is <b>red, blue answer <b>red 80.0%, green & co 90.0%" in text
    assert "class images precision recall F1 average precision <b>red 15 100.0% 100.0% 100.0% 100.0%" in text


@pytest.mark.parametrize("what", ["run", "run/best.keras", "model.tflite", "savedmodels/colors"])
def test_predict_answers_as_the_model(run, made, photos, what, tmp_path):
    out, _ = made
    names = tmp_path / "names.txt"
    names.write_text("".join(f"{label}\n" for label in LABELS))
    options = {
        "run/best.keras": ("--labels", names),
        "model.tflite": ("--preprocessing", out / "preprocessing.json"),
    }
    images = [photos / "test" / LABELS[2], photos / "test" / LABELS[0] / "1.png"]
    lines = run("predict", out / what, *images, "--top", 2, "--json", *options.get(what, ())).splitlines()
    model, info = load_run(out / "run")
    files = [*sorted(images[0].iterdir()), images[1]]
    assert [json.loads(line)["image"] for line in lines] == list(map(str, files))
    pixels = keraslight.training.load_images(files, Preprocessing.from_dict(info["preprocessing"]))
    if what == "model.tflite":
        wanted, tolerance = litert_runner(out / what)(pixels), 0
    else:
        wanted, tolerance = model.predict(pixels.astype("float32"), verbose=0), 1e-4
    for line, scores in zip(lines, wanted, strict=True):
        classes = json.loads(line)["classes"]
        best = np.argsort(-scores, kind="stable")[:2]
        assert [(each["label"], each["index"]) for each in classes] == [(LABELS[index], index) for index in best]
        np.testing.assert_allclose([each["score"] for each in classes], scores[best], atol=tolerance)


def test_evaluate_takes_the_test_part(run, made, photos):
    out, results = made
    found = json.loads(run("evaluate", out / "run", "--data", photos, "--part", "test", "--no-robustness", "--json"))
    assert (found["images"], found["part"], found["accuracy"]) == (15, "test", results["model_accuracy"])
    with pytest.raises(
        InvalidArgumentError, match="`--part test` needs `--data` with a part for training, one to hold"
    ):
        run("evaluate", out / "run", "--data", photos / "train", "--part", "test")


def test_predict_prints_a_table_and_lists_what_it_cannot_read(run, made, tmp_path):
    shutil.copy(__file__, tmp_path / "cut.png")
    Image.new("RGB", (40, 40), (20, 200, 20)).save(tmp_path / "green[red].png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "green[red].png").read_bytes()[:60])
    text = run("predict", made[0] / "run", tmp_path, code=2)
    assert "green[red].png" in text
    assert "green & co" in text
    assert "DataError: An image file must be readable." in text
    with pytest.raises(InvalidArgumentError, match="`MODEL` must be a run folder.*no/such, which doesn't exist"):
        run("predict", "no/such", tmp_path)
    with pytest.raises(DataError, match="Images must be in files or folders that exist"):
        run("predict", made[0] / "run", tmp_path / "missing")


def test_what_was_begun_is_resumed_with_the_same_settings_only(made, tmp_path):
    out, _ = made
    given = Settings("photos", "lenet5_modern", "none", 32, None, 3)
    assert _make._begun(given, out)["pretrained"] is False
    with pytest.raises(InvalidArgumentError, match="epochs was 3 and is now 4; seed was 0 and is now 1"):
        run_make(dataclasses.replace(given, epochs=4, seed=1), out)
    assert _make._begun(given, tmp_path) == {}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.npz").write_bytes(b"")
    with pytest.raises(InvalidArgumentError, match="must be a new folder, or one that `keraslight make` began"):
        run_make(given, tmp_path)
    (tmp_path / "make.json").write_text("[]")
    with pytest.raises(InvalidArgumentError, match="make.json must be as `keraslight make` writes it"):
        run_make(given, tmp_path)
    with pytest.raises(DataError, match="photos, not a folder"):  # found out before anything is discarded
        run_make(given, tmp_path, fresh=True)
    assert (tmp_path / "make.json").read_text() == "[]"


def test_bad_settings_are_named_before_anything_is_read(photos, tmp_path):
    with pytest.raises(InvalidArgumentError, match=r"`max_loss` must be in \[0, 1\). Received: max_loss=1.5"):
        run_make(Settings(str(photos), max_loss=1.5), tmp_path / "out")
    with pytest.raises(InvalidArgumentError, match="`to` must hold neither brackets nor backslashes"):
        run_make(Settings(str(photos)), tmp_path / "a[b]")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def images(tested):
    return tested


def test_without_weights_it_says_so_in_one_line(images, monkeypatch, capsys):
    asked = []

    def create(name, *, weights, **arguments):
        asked.append(weights)
        if weights is not None:
            raise WeightsUnavailableError("The weights of 'net' could not be fetched. Offline, download them.")
        return "net"

    monkeypatch.setattr(keraslight, "create_model", create)
    assert _make._create(Settings("photos", "net"), images, {}) == ("net", False)
    assert asked == ["imagenet", None]
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("No pretrained weights, so net is trained from scratch")
    assert line.endswith("The weights of 'net' could not be fetched.")
    with pytest.raises(WeightsUnavailableError):
        _make._create(Settings("photos", "net", "imagenet"), images, {})
    asked.clear()
    _make._create(Settings("photos", "net"), images, {"pretrained": False})  # as it was begun
    assert asked == [None]


def test_pretrained_weights_are_trained_head_first(images, capsys):
    recipe = _make._recipe(Settings("photos"), images, pretrained=True)
    assert (recipe.freeze, recipe.freeze_epochs, recipe.patience) == ("*", 3, 8)
    scratch = _make._recipe(Settings("photos"), images, pretrained=False)
    assert (scratch.freeze, scratch.batch_size, scratch.learning_rate) == (
        None,
        16,
        RECIPES["few_photos"].learning_rate,
    )
    assert not _make._recipe(Settings("digits"), images, pretrained=False).augmentation.flip
    assert capsys.readouterr().out.count("Recipe ") == 3


@pytest.mark.parametrize(
    ("drops", "kept"),
    [
        ({"int8": 0.01}, ["int8"]),
        ({"int8": 0.02, "int8 with training": 0.0}, ["int8", "int8 with training"]),
        ({"int8": 0.02, "int8 with training": None, "float16": 0.0}, ["int8", "int8 with training", "float16"]),
        ({"int8": 0.5, "int8 with training": 0.3, "float16": 0.2, "float32": 0.0}, list(_make.FORMS)),
    ],
)
def test_beyond_the_bound_the_next_form_is_tried_aloud(images, tmp_path, monkeypatch, capsys, drops, kept):
    def write(form):
        def file(path):
            if drops[form] is None:
                raise CompressionError("No twin.")
            path.write_text(form)

        return form, file

    def parity(model, path, data):
        return LiteRTParity(100, 0.0, 1.0, 0.9, 0.9 - drops[path.read_text()])

    monkeypatch.setattr(_make, "_writers", lambda *_: map(write, _make.FORMS))
    monkeypatch.setattr(_make, "litert_parity", parity)
    settings = Settings("photos", max_loss=0.01 + 1e-9)
    trials = _make._convert(None, images, None, tmp_path / "model.tflite", settings)
    assert [trial.form for trial in trials] == kept
    assert [trial.kept for trial in trials] == [False] * (len(kept) - 1) + [True]
    assert [path.name for path in tmp_path.iterdir()] == ["model.tflite"]
    assert (tmp_path / "model.tflite").read_text() == kept[-1]
    said = capsys.readouterr().out
    for form, following in itertools.pairwise(kept):
        assert f"{form} is not used: " in said
        assert f"Trying {following}." in said
    assert "int8 with training" not in said or "more than 1.00%" in said


def test_no_form_within_the_bound_is_an_error(images, tmp_path, monkeypatch):
    monkeypatch.setattr(_make, "_writers", lambda *_: [("float32", lambda path: path.write_text(""))])
    monkeypatch.setattr(_make, "litert_parity", lambda *_: LiteRTParity(100, 0.0, 1.0, 0.9, 0.8))
    with pytest.raises(DisagreementError, match=r"must stay within max_drop=0.01"):
        _make._convert(None, images, None, tmp_path / "model.tflite", Settings("photos", quantization="float32"))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_killed_after_an_epoch_it_ends_with_the_same_files(made, photos, tmp_path, monkeypatch):
    out, results = made
    settings = Settings(str(photos), "lenet5_modern", "none", 32, None, 3)
    whole = _make.training.train

    class Killed(BaseException):
        pass

    def train(*args, **options):
        def stop(epoch, logs):
            raise Killed

        import keras

        return whole(*args, **options, callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=stop)])

    with monkeypatch.context() as patch:
        patch.setattr(_make.training, "train", train)
        with pytest.raises(Killed):
            run_make(settings, tmp_path / "colors")
    assert not (tmp_path / "colors" / "report.html").exists()
    again = run_make(settings, tmp_path / "colors")
    for name in ("accuracy", "model_accuracy", "best_epoch", "epochs", "form"):
        assert again[name] == results[name]
    wanted, found = (np.load(Path(folder) / "run" / "last.npz") for folder in (out, tmp_path / "colors"))
    for name in set(wanted.files) - {"meta"}:
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)
    assert (tmp_path / "colors" / "model.tflite").read_bytes() == (out / "model.tflite").read_bytes()


@pytest.mark.slow
def test_weights_of_a_file_are_trained_head_first(run, made, photos, tmp_path):
    out, _ = made
    options = ("--model", "lenet5_modern", "--size", 32, "--weights", out / "run" / "best.keras", "--epochs", 2)
    results = json.loads(run("make", photos, "--to", tmp_path / "again", *options, "--json"))
    assert results["pretrained"]
    assert (results["recipe"]["freeze"], results["recipe"]["freeze_epochs"]) == ("*", 1)
    assert results["accuracy"] > 0.9
    assert "trained from scratch" not in (tmp_path / "again" / "report.html").read_text("utf-8")


@pytest.mark.slow
def test_what_calibration_cannot_do_training_does(photos, tmp_path, monkeypatch, capsys, mediapipe_classify):
    def calibrate(*args, **options):
        raise CompressionError("Not this model.")

    monkeypatch.setattr(_make.compress, "calibrate", calibrate)
    out = tmp_path / "out"
    results = run_make(Settings(str(photos), "lenet5_modern", "none", 32, None, 3, max_loss=0.1), out)
    assert results["form"] == "int8 with training"
    assert "int8 is not used: CompressionError: Not this model." in capsys.readouterr().out
    assert "int8 is not used: CompressionError: Not this model." in Page((out / "report.html").read_text("utf-8")).text
    pixels = load_test(photos, Preprocessing.from_dict(json.loads((out / "preprocessing.json").read_text())))
    (ranking, *_) = mediapipe_classify(out / "model.tflite", pixels.validation_arrays()[0][:1])
    assert {label for label, _ in ranking} == set(LABELS)


@pytest.mark.slow
def test_a_table_of_several_labels_makes_independent_scores(run, photos, tmp_path):
    rows = ["file,labels,split"]
    for part in PARTS:
        for label in LABELS:
            for file in sorted((photos / part / label).glob("[0-9].png")):
                rows.append(f"{file},{label.replace('<b>', '')};noise,{part}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    results = json.loads(run("make", tmp_path / "list.csv", "--to", tmp_path / "out", *OPTIONS, "--json"))
    assert results["labels"] == ["blue", "green & co", "noise", "red"]
    assert results["part"] == "test"
    out = tmp_path / "out"
    metadata, limits = read_metadata(out / "model.tflite"), load_run(out / "run")[1]["thresholds"]
    assert metadata.task == "multi-label"
    assert metadata.thresholds == pytest.approx(limits, abs=1e-6)
    assert read_versions(out / "savedmodels" / "out")[-1].info["thresholds"] == limits
    assert "mean average precision" in Page((out / "report.html").read_text("utf-8")).text
    (line,) = run("predict", out / "run", photos / "test" / "blue" / "1.png", "--json").splitlines()
    assert {each["label"] for each in json.loads(line)["classes"]} == set(results["labels"])
    for each in json.loads(line)["classes"]:
        assert each["given"] == (each["score"] > limits[each["index"]])
