"""What was found in a folder, a table or arrays, as text of 80 columns and as JSON."""

import dataclasses
import json

import numpy as np
import pytest

from keraslight.training import ImageData, load_digits
from keraslight.training._report import _columns


@pytest.fixture(scope="module")
def many(small):
    """60 classes with long, wide and unprintable names, and files that can't be read."""
    labels = ["ネコ" * 30, "tab\tand\x1b", "c" * 200, *(f"class {number}" for number in range(57))]
    targets = np.repeat(np.arange(60), np.arange(60) + 2)
    data = ImageData.from_arrays(np.zeros((len(targets), 12, 12, 1), np.uint8), targets, labels, small)
    sizes = np.stack([np.arange(len(targets)) % 7 + 20, np.full(len(targets), 30)], axis=1).astype(np.int32)
    unreadable = tuple((f"very/long/path/{'n' * 90}{number}.png", "It is damaged. " * 8) for number in range(25))
    return dataclasses.replace(
        data, unreadable=unreadable, ignored=("犬" * 60, "caf\udce9.txt"), sizes=sizes, source="photos"
    )


def test_the_text_fits_80_columns(many):
    lines = str(many).splitlines()
    assert max(map(_columns, lines)) <= 80
    assert all(line.isprintable() for line in lines)
    assert lines[0] == "photos: 1890 images of 60 classes, 1511 for training and 379 held out."
    text = " ".join(line.strip() for line in lines)
    for part in (
        "The 10 smallest and the 10 largest classes:",
        "class 56",
        r"tab\tand\x1b",
        "Skipped 25 images that can't be read:",
        "and 5 more",
        r"caf\udce9.txt",
        "3 others; widths 30 to 30, heights 20 to 26.",
    ):
        assert part in text
    assert "class 25 " not in text


def test_the_json_form_has_everything(many):
    values = json.loads(json.dumps(many.report().to_dict()))
    assert [row["label"] for row in values["classes"]] == list(many.labels)
    for label, row in enumerate(values["classes"]):
        assert row["train"] == (many.targets[many.train_indices] == label).sum()
        assert row["validation"] == (many.targets[many.validation_indices] == label).sum()
    assert len(values["skipped"]) == 25
    assert sum(row["images"] for row in values["sizes"]) == len(many.targets)
    assert values["ignored"][1] == r"caf\udce9.txt"


def test_the_text_of_a_small_set_is_a_table(data):
    assert str(data).splitlines() == [
        "arrays: 120 images of 3 classes, 96 for training and 24 held out.",
        "  class   training  held out",
        "  top           32         8",
        "  middle        32         8",
        "  bottom        32         8",
    ]
    assert data._repr_html_() == f"<pre>{data}</pre>"


def test_rows_of_labels_are_counted_and_numbers_have_ranges(small):
    pixels = np.zeros((4, 12, 12, 1), np.uint8)
    several = ImageData.from_arrays(pixels, [[1, 1], [1, 0], [1, 0], [1, 0]], ["sea", "sky"], small)
    counts = [(count.label, count.train + count.validation) for count in several.report().classes]
    assert counts == [("sea", 4), ("sky", 1)]
    numbers = ImageData.from_arrays(pixels, [[0.5], [7], [-2], [3]], ["age"], small, weights=[1, 2, 0.5, 1])
    assert str(numbers).splitlines()[1:] == ["  age  -2 to 7", "Weights: 0.5 to 2."]


def test_digits_name_their_source(small):
    assert str(load_digits(small)).startswith("digits: 1797 images of 10 classes, 1438 for training and 359 held out.")


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ([1, 2, 3], r"shape \(4,\), .* Received: .* of shape \(3,\)"),
        ([1, 2, -1, 1], r"Received: -1\.0 for image 2"),
        ([1, np.nan, 1, 1], r"Received: nan for image 1"),
        (["1", "2", "3", "4"], r"Received: <U1"),
        ([0, 0, 0, 0], r"Received: zeros for all 2 training images"),
    ],
)
def test_weights_that_are_none(small, weights, text):
    with pytest.raises(ValueError, match=text):
        ImageData.from_arrays(np.zeros((4, 12, 12, 1), np.uint8), [0, 0, 1, 1], "ab", small, weights=weights)


def test_weights_belong_to_the_fingerprint(data):
    ones = np.ones(len(data.targets))
    weighted = dataclasses.replace(data, weights=ones)
    assert weighted.weights.dtype == np.float32
    assert data.fingerprint() != weighted.fingerprint() == dataclasses.replace(data, weights=ones).fingerprint()
    assert weighted.fingerprint() != dataclasses.replace(data, weights=2 * ones).fingerprint()
