"""Commands for .keras and .h5 files that keraslight didn't write, and what the commands print."""

import io
import json
import shlex

import keras
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import keraslight
from keraslight.cli import _common, _trained, versions as versions_command
from keraslight.errors import InvalidArgumentError
from keraslight.preprocessing import Preprocessing
from keraslight.training import load_run

SIDE = 16


def net(classes=2, activation="softmax"):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    images = keras.Input((SIDE, SIDE, 3))
    x = layers.Conv2D(8, 3, strides=2, activation="relu")(images)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, activation="relu")(x))
    return keras.Model(images, layers.Dense(classes, activation=activation)(x))


def own_loss(wanted, given):
    return keras.ops.mean(keras.losses.sparse_categorical_crossentropy(wanted, given))


class OwnMetric(keras.metrics.Mean):
    pass


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    for label, color in (("blue", (10, 20, 220)), ("red", (220, 20, 10))):
        (root / label).mkdir()
        for index in range(6):
            Image.new("RGB", (SIDE, SIDE), tuple(value + index for value in color)).save(root / label / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A model of pixels in 0..1 whose outputs are red, blue: not in the order of the folders."""
    model = net()
    x = np.zeros((8, SIDE, SIDE, 3), np.float32)
    x[:4, ..., 0] = x[4:, ..., 2] = 0.85
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(x, np.repeat([0, 1], 4), epochs=30, verbose=0)
    path = tmp_path_factory.mktemp("foreign") / "net.keras"
    model.save(path)
    (path.parent / "names.txt").write_bytes(b"\xef\xbb\xbf0 red\r\n1 blue\r\n")
    return path


@pytest.mark.parametrize(
    "compiled",
    [
        {"loss": own_loss},
        {"loss": "mse", "metrics": [OwnMetric()]},
        {"loss": keras.losses.CategoricalCrossentropy(), "metrics": ["accuracy", own_loss]},
    ],
)
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.filterwarnings("ignore:.*HDF5")
def test_files_with_own_losses_and_metrics_load(tmp_path, compiled, suffix):
    model = net()
    model.compile("adam", **compiled)
    model.save(tmp_path / f"net{suffix}")
    loaded = keraslight.load_model(tmp_path / f"net{suffix}")
    images = np.random.default_rng(0).random((2, SIDE, SIDE, 3), np.float32)
    np.testing.assert_allclose(loaded(images), model(images), atol=1e-6)
    assert not loaded.compiled


def unknown_layer(path):
    class Own(keras.layers.Layer):
        def call(self, x):
            return x

    images = keras.Input((4,))
    keras.Model(images, Own()(images)).save(path)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04" + bytes(50), unknown_layer])
@pytest.mark.filterwarnings("ignore:.*HDF5")
def test_files_that_hold_no_model_are_refused(tmp_path, suffix, content):
    path = tmp_path / f"net{suffix}"
    content(path) if callable(content) else path.write_bytes(content)
    with pytest.raises(
        InvalidArgumentError, match=rf"must be a .keras or .h5 file of a model. Received: .*net{suffix}"
    ):
        keraslight.load_model(path)


def test_a_file_of_weights_is_named_as_such(tmp_path):
    net().save_weights(tmp_path / "net.weights.h5")
    with pytest.raises(InvalidArgumentError, match="which has weights alone: pass it as `weights`"):
        keraslight.load_model(tmp_path / "net.weights.h5")


@pytest.mark.filterwarnings("ignore:.*HDF5")
def test_an_h5_file_is_a_model_for_commands(run, tmp_path):
    net().save(tmp_path / "net.h5")
    assert "Wrote" in run("litert", tmp_path / "net.h5", "--to", tmp_path / "net.tflite")


def test_a_foreign_model_becomes_int8(run, row, foreign, photos, tmp_path):
    options = ("--preprocessing", "unit", "--labels", foreign.parent / "names.txt")
    text = run("quantize", foreign, "--data", photos, "--to", tmp_path / "int8.tflite", *options)
    assert row(text, "accuracy")[1:] == ["100.00%"] * 2  # the targets follow the order of the labels
    run("litert", foreign, "--data", photos, "--to", tmp_path / "b.tflite", "--quantization", "int8", *options)
    assert keraslight.export.read_metadata(tmp_path / "b.tflite").labels == ("red", "blue")


def test_a_foreign_model_is_pruned_into_a_run(run, foreign, photos, tmp_path):
    spec = Preprocessing((SIDE, SIDE), mean=(0.0,) * 3, std=(1.0,) * 3, interpolation="nearest")
    (tmp_path / "spec.json").write_text(json.dumps(spec.to_dict()))
    options = ("--preprocessing", tmp_path / "spec.json", "--labels", foreign.parent / "names.txt", "--epochs", 1)
    text = run("prune", foreign, "--data", photos, "--to", tmp_path / "pruned", "--sparsity", 0.5, *options)
    assert "loss:" in text  # progress
    model, details = load_run(tmp_path / "pruned")
    assert details["labels"] == ["red", "blue"]
    assert Preprocessing.from_dict(details["preprocessing"]) == spec
    red = np.full((1, SIDE, SIDE, 3), (220, 20, 10), np.float32)
    assert np.argmax(model(red)) == 0
    run("export", tmp_path / "pruned", "--to", tmp_path / "models" / "colors")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ((), "needs a model that defines its preprocessing, or `--preprocessing`"),
        (("--preprocessing", "other"), "must be one of raw, unit, symmetric, imagenet, or a JSON file"),
        (("--preprocessing", "unit", "--labels", "three.txt"), "must have the classes of the model and of `--labels`"),
        (("--preprocessing", "small.json"), r"must give the model's images, of shape \(16, 16, 3\)"),
    ],
)
def test_what_a_foreign_model_needs(run, foreign, photos, tmp_path, monkeypatch, options, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "three.txt").write_text("a\nb\nc\n")
    (tmp_path / "small.json").write_text(json.dumps(Preprocessing((8, 8)).to_dict()))
    with pytest.raises(InvalidArgumentError, match=text):
        run("quantize", foreign, "--data", photos, "--to", tmp_path / "x.tflite", *options)
    assert not (tmp_path / "x.tflite").exists()


def test_a_run_has_its_own_preprocessing(run, tmp_path):
    with pytest.raises(InvalidArgumentError, match="are for a .keras or .h5 file. Received: .*run, whose run has its"):
        run("fuse", tmp_path / "run", "--data", "digits", "--to", tmp_path / "to", "--preprocessing", "unit")


def test_the_serve_command_can_be_pasted(run, foreign, tmp_path, monkeypatch):
    monkeypatch.setattr(_common.console, "width", 40)
    folder = tmp_path / "a folder with a long name" / "its model"
    options = ("--preprocessing", "unit", "--labels", foreign.parent / "names.txt")
    lines = run("export", foreign, "--to", folder, *options).splitlines()
    assert f"Wrote {folder / '1'}. Serve it:" in lines
    (command,) = [line for line in lines if "keraslight_serving.server" in line]
    assert shlex.split(command)[3:] == ["--model_name=its model", f"--model_base_path={folder}"]


def test_versions_fit_80_columns(monkeypatch):
    monkeypatch.setattr(versions_command, "console", console := Console(width=80, file=io.StringIO()))
    figures = ("best_epoch", "epochs", "finished", "seconds", "train_images", "val_accuracy", "val_loss")
    columns = {
        "version": ["1", "2"],
        "labels": ["stable", "canary, next"],
        "model": ["mobilenet_v4_conv_small float32"] * 2,
        "weights": ["abcdef012345"] * 2,
        "created": ["2026-01-01 10:00"] * 2,
        "MB": ["10.25"] * 2,
        **{name: ["0.912345", "0.923456 (+0.0111)"] for name in figures},
    }
    for table in versions_command._tables(columns, 80):
        console.print(table)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    for name, cells in columns.items():
        for text in (name, *cells):
            assert any(text in line for line in lines), text
    assert len(versions_command._tables(columns, 400)) == 1


def test_the_bar_is_for_terminals(monkeypatch):
    monkeypatch.setattr(_trained, "console", Console(force_terminal=True))
    assert _trained.verbose() == 1
    monkeypatch.setattr(_trained, "console", Console(force_terminal=False))
    assert _trained.verbose() == 2


def test_a_run_that_can_not_be_resumed_names_flags(run, photos, tmp_path):
    arguments = ("train", "lenet5_modern", "--data", "digits", "--size", 32, "--to", tmp_path / "run", "--epochs", 1)
    run(*arguments)
    with pytest.raises(InvalidArgumentError, match="pass another `--to` or `--fresh`, which overwrites the run"):
        run(*arguments, "--learning-rate", 0.5)
