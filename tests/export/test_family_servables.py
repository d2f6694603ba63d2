"""Exports one variant of each family, compares all signatures with the Keras model, and checks docs/servables.md.

`python -m tests.export.test_family_servables` repeats the measurements and writes the page.
"""

import json
import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest

import keraslight
import keraslight.zoo
from keraslight import registry
from keraslight.export import save_servable
from keraslight.preprocessing import Preprocessing

PAGE = Path(__file__).parents[2] / "docs" / "servables.md"
NAMES = keraslight.list_models()
DEFAULTS = {family.name: next(iter(family.variants)) for family in registry.FAMILIES.values()}
COLUMNS = ("serving_default", "serving_uint8", "encoded", "classify", "model.tflite")
RUN = "run `python -m tests.export.test_family_servables`"
TOLERANCE = 1e-4
FACTOR, NOISE = 10, 1e-6  # rounding errors differ from processor to processor by less than this factor, plus this
SIDE = {"LeNet5": 32}  # its paper fixes the image size
NARROW = {"AlexNet": 0.25, "VGG": 0.25}  # width; in full, nearly all of the time is spent on writing their weights
CLASSES = 10
# `make test-all` exports the others too. These have concatenations, squeeze-and-excitation, and LeNet-5's distances.
QUICK = ("LeNet5", "MobileNetV3", "SqueezeNet")


def measure(name: str, folder: Path) -> dict[str, float]:
    """Exports a small form of a variant, checks what the exporter measured, returns the difference of each signature.

    The exporter compares on its own, with whatever it is given; here the model's statistics and classifier are set
    so that the classes of every image are far apart, or equal top-1 would mean nothing.
    """
    keras.utils.set_random_seed(0)
    family = registry.FAMILIES[keraslight.model_info(name).family]
    channels = family.variants[name].channels
    spec = Preprocessing((SIDE.get(family.name, 96),) * 2, crop_pct=0.9, mean=(0.5,) * channels, std=(0.25,) * channels)
    arguments = {"classes": CLASSES, "input_shape": (*spec.size, channels), "preprocessing": spec}
    if family.name in NARROW:
        arguments["width"] = NARROW[family.name]
    model = keraslight.create_model(name, **arguments)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, *spec.size, channels), np.uint8)
    images[0], images[1, :, ::2], images[2, ::2] = 0, 255, 255
    sharpen(model, images)
    version = save_servable(model, folder / name, labels=[f"class {i}" for i in range(CLASSES)], samples=images)
    signatures = json.loads((version / "assets.extra" / "keraslight.json").read_text())["parity"]["signatures"]
    assert set(signatures) == set(COLUMNS)
    for column in COLUMNS:
        assert signatures[column]["largest_difference"] <= TOLERANCE, column
        assert signatures[column]["same_top1"] == 1, column
    return {column: signatures[column]["largest_difference"] for column in COLUMNS}


def sharpen(model: keras.Model, images: np.ndarray) -> None:
    """Gives the batch norms the statistics of these images, and the classifier logits that spread over these."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(images.astype(np.float32), training=True)
    classifier = model.get_layer("classifier")
    logits = keras.Model(model.input, model.get_layer("probabilities").input)(images.astype(np.float32))
    spread = max(float(np.std(logits)), 1e-6)
    for weight in classifier.weights:
        weight.assign(weight * (2.0 / spread))


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in DEFAULTS]
)
def test_signatures_agree_with_the_keras_model(family, tmp_path):
    now, page = measure(DEFAULTS[family], tmp_path), _rows()[family]
    for column, cell in zip(COLUMNS, page[1:], strict=True):
        assert now[column] <= FACTOR * float(cell) + NOISE, column
        assert float(cell) <= FACTOR * now[column] + NOISE, column


def test_the_page_names_every_family_and_signature():
    text, rows = PAGE.read_text(encoding="utf-8"), _rows()
    assert text == page(rows)
    assert {family: row[0] for family, row in rows.items()} == DEFAULTS, RUN
    assert all(float(cell) <= TOLERANCE for row in rows.values() for cell in row[1:])


def _rows() -> dict[str, list[str]]:
    """Family -> the other cells of its row on the page."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in lines[2:]]
    return {row[0]: row[1:] for row in rows}


def page(rows: dict[str, list[str]]) -> str:
    """The whole page."""
    lines = [
        "# Numerical agreement of servables",
        "",
        "One variant of each family is exported with `save_servable`, for 96x96 pixels and 10 classes (LeNet5 for",
        "32x32, AlexNet and VGG with a quarter of the width). The figures are the largest difference of a",
        "probability between a signature and the Keras model, over four images. `model.tflite` is in float32. The",
        f"tests measure every row again (`make test` those of {', '.join(QUICK)})",
        "and fail if a difference exceeds 1e-4, if the top class",
        f"differs, or if a figure here is more than {FACTOR} times the new one or less than a tenth of it.",
        "",
        "`python -m tests.export.test_family_servables` writes this page.",
        "",
        "| family | variant | " + " | ".join(f"`{column}`" for column in COLUMNS) + " |",
        "| --- " * (2 + len(COLUMNS)) + "|",
        *(f"| {family} | `{row[0]}` | {' | '.join(row[1:])} |" for family, row in sorted(rows.items())),
    ]
    return "\n".join(lines) + "\n"


def measured() -> dict[str, list[str]]:
    """Family -> its variant, and the difference of each signature as measured now."""
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for family, name in DEFAULTS.items():
            rows[family] = [name, *(f"{difference:.0e}" for difference in measure(name, Path(folder)).values())]
            keras.backend.clear_session()
    return rows


if __name__ == "__main__":
    PAGE.write_text(page(measured()), encoding="utf-8")
