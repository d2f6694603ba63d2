"""`keraslight plot ...` as a user types it; what the pictures show is tested in tests/analysis/test_plots.py."""

import json

import keras
import pytest
from keras import layers
from PIL import Image
from sklearn.datasets import load_sample_image

from keraslight.errors import InvalidArgumentError
from keraslight.layers import ImageNormalization
from keraslight.preprocessing import Preprocessing


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


def test_costs(run, tmp_path, saved):
    to = tmp_path / "new" / "costs.svg"
    assert run("plot", "costs", "mobilenet_v4_conv_small", saved, "--to", to) == f"Wrote {to}.\n"
    assert {"mobilenet_v4_conv_small", "186 M multiply-adds", "saved", "conv"} < set(texts(to))


def test_costs_by_layer_at_another_size(run, tmp_path):
    to = tmp_path / "costs.svg"
    run("plot", "costs", "lenet5_modern", "--size", 64, "--by", "layer", "--to", to)
    assert "c1_act" in texts(to)


def test_architecture(run, tmp_path):
    to = tmp_path / "architecture.svg"
    run("plot", "architecture", "mobilenet_v4_conv_small", "--size", 96, "--to", to)
    assert "stage1  12×12×64" in texts(to)


def test_architecture_of_a_file(run, tmp_path, saved):
    to = tmp_path / "architecture.svg"
    run("plot", "architecture", saved, "--by", "layer", "--to", to)
    assert "conv  15×23×4" in texts(to)


def test_tradeoff_of_the_zoo(run, tmp_path):
    to = tmp_path / "tradeoff.svg"
    run("plot", "tradeoff", "mobilenet_v4*", "--x", "parameters", "--to", to)
    assert {"mobilenet_v4_hybrid_large", "MobileNetV4", "parameters (millions)"} < set(texts(to))


@pytest.fixture
def measured(tmp_path):
    """Figures of one's own."""
    (tmp_path / "measured.csv").write_text("name,latency_ms,accuracy\nfirst,2.5,70\nsecond,3.5,75\nother,9,\n")
    return "plot", "tradeoff", "--records", tmp_path / "measured.csv", "--x", "latency_ms"


def test_tradeoff_of_measured_figures(run, tmp_path, measured):
    to = tmp_path / "tradeoff.svg"
    run(*measured, "--y", "accuracy", "--to", to)
    left_out = "1 of 3 models left out: latency_ms or accuracy not known"
    assert {"first", "second", "latency (ms)", left_out} < set(texts(to))
    run(*measured, "first", "--y", "accuracy", "--to", to)
    assert "second" not in texts(to)


def test_tradeoff_of_a_missing_column(run, tmp_path, measured):
    with pytest.raises(InvalidArgumentError, match="Every record must have 'top1'. Received: {'name': 'first'"):
        run(*measured, "--to", tmp_path / "tradeoff.svg")


def test_tradeoff_of_texts(run, tmp_path, measured):
    (tmp_path / "measured.csv").write_text("name,latency_ms\nfirst,fast\n")
    with pytest.raises(InvalidArgumentError, match="--records must be a CSV file with numbers. Received: .*'fast'"):
        run(*measured, "--to", tmp_path / "tradeoff.svg")


@pytest.fixture
def to(tmp_path):
    return tmp_path / "picture.svg"


def test_features(run, to, saved, flower):
    run("plot", "features", saved, flower, "--layer", "conv", "--channels", 2, "--to", to)
    assert {"conv", "15×23×4"} < set(texts(to))


def test_features_of_a_model_for_grey_images(run, to, flower):
    run("plot", "features", "lenet5_modern", flower, "--to", to)
    assert "c1_act" in texts(to)


def test_grad_cam(run, to, saved, flower):
    run("plot", "grad-cam", saved, flower, "--class", 2, "--to", to)
    assert any(text.startswith("class 2: ") for text in texts(to))


def test_grad_cam_of_a_name_has_imagenets_labels(run, to, flower):
    run("plot", "grad-cam", "mobilenet_v4_conv_small", flower, "--size", 64, "--class", 0, "--to", to)
    assert any(text.startswith("tench (0): 0.") for text in texts(to))


def test_a_run_folder_brings_its_labels(run, to, tmp_path, saved, flower):
    folder = tmp_path / "run"
    folder.mkdir()
    saved.rename(folder / "best.keras")
    (folder / "model.json").write_text(json.dumps({"labels": ["rose", "dahlia", "aster"]}))
    run("plot", "grad-cam", folder, flower, "--class", 1, "--to", to)
    assert any(text.startswith("dahlia (1): ") for text in texts(to))


def test_receptive_field(run, to, saved, flower):
    run("plot", "receptive-field", saved, flower, "--to", to)
    assert "conv  3×3" in texts(to)
    assert "effective receptive field" not in texts(to)


def test_effective_receptive_field(run, to, saved, flower):
    run("plot", "receptive-field", saved, flower, "--effective", "--to", to)
    assert "effective receptive field" in texts(to)


def test_a_saved_model_has_its_own_size(run, tmp_path, saved):
    with pytest.raises(InvalidArgumentError, match="are for a model's name. Received: .*--size 64 with .*saved.keras"):
        run("plot", "costs", saved, "--size", 64, "--to", tmp_path / "a.png")


@pytest.mark.parametrize("name", ["saved.keras", "none.jpg"])
def test_files_that_are_no_image(run, tmp_path, saved, name):
    with pytest.raises(InvalidArgumentError, match=f"IMAGE must be a readable image file. Received: .*{name}"):
        run("plot", "grad-cam", saved, tmp_path / name, "--to", tmp_path / "a.png")


def test_pictures_are_png_or_svg(run, tmp_path, saved, flower):
    with pytest.raises(InvalidArgumentError, match="must end in .png or .svg. Received: .*a.pdf"):
        run("plot", "grad-cam", saved, flower, "--to", tmp_path / "a.pdf")


def test_a_picture_needs_a_file(run, saved):
    assert "Missing option '--to'" in run("plot", "costs", saved, code=2)


@pytest.mark.parametrize("command", ["costs", "tradeoff", "architecture", "features", "grad-cam", "receptive-field"])
def test_help(run, command):
    assert command in run("plot", "--help")
    assert "--to" in run("plot", command, "--help")
