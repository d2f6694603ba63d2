"""`keraslight plot ...` as a user types it; what the pictures show is tested in tests/analysis/test_plots.py."""

import json

import keras
import pytest
from keras import layers
from PIL import Image
from sklearn.datasets import load_sample_image
from typer.testing import CliRunner

from keraslight.cli.app import app
from keraslight.errors import InvalidArgumentError
from keraslight.layers import ImageNormalization
from keraslight.preprocessing import Preprocessing


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["plot", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def flower(tmp_path):
    Image.fromarray(load_sample_image("flower.jpg")).save(tmp_path / "flower.jpg")
    return tmp_path / "flower.jpg"


@pytest.fixture
def saved(tmp_path):
    """A model file that takes raw pixels."""
    images = keras.Input((32, 48, 3))
    x = ImageNormalization(Preprocessing((32, 48)))(images)
    x = layers.Conv2D(4, 3, strides=2, activation="relu", name="conv")(x)
    x = layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D(name="pool")(x))
    keras.Model(images, x, name="saved").save(tmp_path / "saved.keras")
    return tmp_path / "saved.keras"


def texts(svg):
    """The comments in which matplotlib keeps an SVG's texts."""
    return [line.strip()[5:-4] for line in svg.read_text().splitlines() if line.strip().startswith("<!-- ")]


def test_costs_and_architecture(tmp_path, saved):
    to = tmp_path / "new" / "costs.svg"
    assert run("costs", "mobilenet_v4_conv_small", saved, "--to", to) == f"Wrote {to}.\n"
    assert {"mobilenet_v4_conv_small", "186 M multiply-adds", "saved", "conv"} < set(texts(to))
    run("costs", "lenet5_modern", "--size", 64, "--by", "layer", "--to", to)
    assert "c1_act" in texts(to)
    run("architecture", "mobilenet_v4_conv_small", "--size", 96, "--to", to)
    assert "stage1  12×12×64" in texts(to)
    run("architecture", saved, "--by", "layer", "--to", to)
    assert "conv  15×23×4" in texts(to)


def test_tradeoff(tmp_path):
    to = tmp_path / "tradeoff.svg"
    run("tradeoff", "mobilenet_v4*", "--x", "parameters", "--to", to)
    assert {"mobilenet_v4_hybrid_large", "MobileNetV4", "parameters (millions)"} < set(texts(to))
    measured = tmp_path / "measured.csv"
    measured.write_text("name,latency_ms,accuracy\nfirst,2.5,70\nsecond,3.5,75\nother,9,\n")
    run("tradeoff", "--records", measured, "--x", "latency_ms", "--y", "accuracy", "--to", to)
    assert {"first", "second", "latency (ms)", "1 of 3 models left out: latency_ms or accuracy not known"} < set(
        texts(to)
    )
    run("tradeoff", "first", "--records", measured, "--x", "latency_ms", "--y", "accuracy", "--to", to)
    assert "second" not in texts(to)
    with pytest.raises(InvalidArgumentError, match="Every record must have 'top1'. Received: {'name': 'first'"):
        run("tradeoff", "--records", measured, "--x", "latency_ms", "--to", to)
    measured.write_text("name,latency_ms\nfirst,fast\n")
    with pytest.raises(InvalidArgumentError, match="--records must be a CSV file with numbers. Received: .*'fast'"):
        run("tradeoff", "--records", measured, "--x", "latency_ms", "--to", to)


def test_pictures_of_an_image(tmp_path, saved, flower):
    to = tmp_path / "picture.svg"
    run("features", saved, flower, "--layer", "conv", "--channels", 2, "--to", to)
    assert {"conv", "15×23×4"} < set(texts(to))
    run("grad-cam", saved, flower, "--class", 2, "--to", to)
    assert any(text.startswith("class 2: ") for text in texts(to))
    run("receptive-field", saved, flower, "--to", to)
    assert "conv  3×3" in texts(to)
    assert "effective receptive field" not in texts(to)
    run("receptive-field", saved, flower, "--effective", "--to", to)
    assert "effective receptive field" in texts(to)
    run("grad-cam", "mobilenet_v4_conv_small", flower, "--size", 64, "--class", 0, "--to", to)
    assert any(text.startswith("tench (0): 0.") for text in texts(to))
    run("features", "lenet5_modern", flower, "--to", to)  # grey
    assert "c1_act" in texts(to)


def test_a_run_folder_brings_its_labels(tmp_path, saved, flower):
    folder = tmp_path / "run"
    folder.mkdir()
    saved.rename(folder / "best.keras")
    (folder / "model.json").write_text(json.dumps({"labels": ["rose", "dahlia", "aster"]}))
    run("grad-cam", folder, flower, "--class", 1, "--to", tmp_path / "picture.svg")
    assert any(text.startswith("dahlia (1): ") for text in texts(tmp_path / "picture.svg"))


def test_what_does_not_fit_is_refused(tmp_path, saved, flower):
    with pytest.raises(InvalidArgumentError, match="has its own size and weights. Received: .*saved.keras with"):
        run("costs", saved, "--size", 64, "--to", tmp_path / "a.png")
    with pytest.raises(InvalidArgumentError, match="IMAGE must be a readable image file. Received: .*saved.keras"):
        run("grad-cam", saved, saved, "--to", tmp_path / "a.png")
    with pytest.raises(InvalidArgumentError, match="IMAGE must be a readable image file. Received: .*none.jpg"):
        run("grad-cam", saved, tmp_path / "none.jpg", "--to", tmp_path / "a.png")
    with pytest.raises(InvalidArgumentError, match="must end in .png or .svg. Received: .*a.pdf"):
        run("grad-cam", saved, flower, "--to", tmp_path / "a.pdf")
    assert "Missing option '--to'" in run("costs", saved, code=2)
    for command in ("costs", "tradeoff", "architecture", "features", "grad-cam", "receptive-field"):
        assert command in run("--help")
        assert "--to" in run(command, "--help")
