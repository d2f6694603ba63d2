"""What views and normalization per image are worth on digits: the table of docs/views.md."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest

import keraslight
from keraslight.analysis import ROBUSTNESS, evaluate
from keraslight.export import litert_runner, to_litert
from keraslight.layers import ImageNormalization
from keraslight.preprocessing import Preprocessing
from keraslight.training import DIGITS_PREPROCESSING, DIGITS_RECIPE, load_digits, train

PAGE = Path(__file__).parent.parent / "docs" / "views.md"
SCALES, TURNS = {"scales": (0.75, 1.0, 1.3)}, {"rotations": (-20.0, 0.0, 20.0)}
VIEWS = {
    "scales, mean": {**SCALES, "merge": "mean"},
    "scales, certain": SCALES,
    "turns, mean": {**TURNS, "merge": "mean"},
    "turns, certain": TURNS,
    "both, certain": {**SCALES, **TURNS},
}

ONE_IMAGE = 100 / 359


@pytest.fixture(autouse=True)
def _free_models():
    """The trained nets are kept for the tests that follow."""


def page():
    """Column -> images -> mean, lowest and highest percent right over seeds, as the page has them."""
    rows = re.search(r"<!-- measured -->\n(.*?)\n\n", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1].splitlines()
    head, _, *cells = ([cell.strip() for cell in row.strip("|").split("|")] for row in rows)
    return {
        name: {row[0]: [float(number) for number in re.findall(r"[\d.]+", row[place])] for row in cells}
        for place, name in enumerate(head)
        if place
    }


def unlike_the_page(column, found):
    """What is too far outside the page's range: image -> found, lowest, highest.

    On changed images, that is by more than the range's width and 15 points: in low contrast, a net that was trained
    with another number of threads was right on 10%, where all five seeds of the page were on 20 to 25%.
    """
    far = {}
    for change, (_, low, high) in page()[column].items():
        more = 2 if change == "as they are" else high - low + 15
        if not low - more <= found[change] <= high + more:
            far[change] = found[change], low, high
    return far


def percent(model, images, targets, changes=ROBUSTNESS):
    found = evaluate(model, images, targets, changes=changes)
    return {"as they are": 100 * found.score, **{name: 100 * score for name, score in found.robustness.items()}}


def trained(per_image, folder):
    data = load_digits(DIGITS_PREPROCESSING.replace(per_image=per_image))
    keras.utils.set_random_seed(0)
    model = keraslight.create_model(
        "mobilenet_v4_conv_small", classes=10, input_shape=data.image_shape, preprocessing=data.preprocessing
    )
    train(model, data, DIGITS_RECIPE, run_dir=folder)
    return model, *data.validation_arrays()


@pytest.mark.slow
def test_the_most_certain_view_undoes_the_change_as_the_page_says(tmp_path):
    model, images, targets = trained(False, tmp_path / "run")
    found = {"no views": percent(model, images, targets)}
    for name, views in VIEWS.items():
        found[name] = percent(keraslight.views(model, **views), images, targets)
    assert {name: far for name, column in found.items() if (far := unlike_the_page(name, column))} == {}
    small = {name: column["scaled by 0.6"] for name, column in found.items()}
    assert small["scales, certain"] > max(small["scales, mean"] + 10, small["no views"] + 30)
    turned = {name: column["turned by -35 degrees"] for name, column in found.items()}
    assert turned["turns, certain"] > max(turned["turns, mean"] - 1, turned["no views"] + 15)
    assert min(column["as they are"] for column in found.values()) > found["no views"]["as they are"] - 3

    made = keraslight.views(model, **VIEWS["both, certain"])
    file = to_litert(made, tmp_path / "views.tflite")
    some = images[:60].astype("float32")
    np.testing.assert_allclose(litert_runner(file)(some), made.predict(some, verbose=0), atol=1e-4)


@pytest.mark.slow
def test_normalized_one_by_one_digits_are_read_in_any_light(tmp_path):
    found = percent(*trained(True, tmp_path / "run"))
    assert unlike_the_page("per image", found) == {}
    assert found["as they are"] >= 98.5  # a mean of 99 over seeds, see below
    assert min(found[name] for name in ("0.3 times as bright", "brighter by 80", "low contrast")) >= 98 - ONE_IMAGE


def test_the_page_says_what_its_table_shows():
    table = page()
    assert set(table) == {"no views", *VIEWS, "per image"}
    for name, column in table.items():
        assert set(column) == {"as they are", *ROBUSTNESS}, name
        assert all(low <= mean <= high for mean, low, high in column.values()), name
    light = [table["per image"][name][0] for name in ("0.3 times as bright", "brighter by 80", "low contrast")]
    assert table["per image"]["as they are"][0] >= 99
    assert min(light) >= 98
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    text = text[text.index("- The most certain view") : text.index("- Enlarging")]
    changes = "scaled by 0.6", "turned by -35 degrees"
    small, turned = ({name: column[change][0] for name, column in table.items()} for change in changes)
    for certain, other in (
        (small["scales, certain"], small["scales, mean"]),
        (small["scales, certain"], small["no views"]),
        (turned["turns, certain"], turned["turns, mean"]),
        (turned["turns, certain"], turned["no views"]),
    ):
        assert re.search(rf"\b{certain - other:.0f}\b", text), certain - other
    costs = [table["no views"]["as they are"][0] - column["as they are"][0] for column in table.values()]
    assert f"up to {max(costs):.0f} points on images as they are" in text


def test_in_small_the_most_certain_view_finds_shrunk_digits_in_any_light():
    spec = Preprocessing(
        (24, 24), crop_mode="squash", interpolation="bilinear", mean=(0.5,), std=(0.5,), per_image=True
    )
    data = load_digits(spec)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((24, 24, 1)), ImageNormalization(spec)])
    for filters in (12, 24):
        model.add(keras.layers.Conv2D(filters, 3, strides=2, activation="relu"))
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(10, activation="softmax"))
    model.compile(keras.optimizers.Adam(0.005), "sparse_categorical_crossentropy")
    pixels = data.pixels[data.train_indices].astype("float32")
    model.fit(pixels, data.targets[data.train_indices], epochs=6, verbose=0)
    images, targets = data.validation_arrays()
    changes = {name: ROBUSTNESS[name] for name in ("scaled by 0.6", "0.3 times as bright", "low contrast")}
    plain = percent(model, images, targets, changes)
    viewed = percent(keraslight.views(model, scales=(1.0, 1.5)), images, targets, changes)
    assert plain["as they are"] > 94
    assert abs(plain["0.3 times as bright"] - plain["as they are"]) < 1
    assert abs(plain["low contrast"] - plain["as they are"]) < 1
    assert viewed["scaled by 0.6"] > plain["scaled by 0.6"] + 15
    assert viewed["as they are"] > 90
