"""Converts small nets trained on digits to float32 and float16 files, and checks docs/litert.md.

`python -m tests.compress.test_litert_families [FAMILY ...]` repeats the measurements and updates the page's rows;
without names, all of them. The trained nets are shared with test_digits_matrix.py, which measures int8.
"""

import dataclasses
import sys
import tempfile
from pathlib import Path

import keras
import pytest

from keraslight.export import LiteRTParity, litert_parity, to_litert
from tests.compress import digit_models, digits_page

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "litert.md"
TRAINED = ROOT / ".pytest_cache" / "d" / "digit_models"  # what pytest's `cache.mkdir("digit_models")` gives
QUICK = ("AlexNet", "LeNet5", "ResNet")  # `make test-all` runs the others
FLOAT32, FLOAT16 = 1e-4, 2e-3
FACTOR, POINTS, SIZE = 10, 1.0, 0.01  # how far the page may be from what is measured now
FAMILIES = tuple(digit_models.RECIPES)
COLUMNS = ("family", "net", "float32", "float16", "same top-1", "float32 file", "float16 file")


@dataclasses.dataclass(frozen=True)
class Figures:
    """Both files against the Keras model on 397 test images, and their bytes."""

    float32: LiteRTParity
    float16: LiteRTParity
    sizes: tuple[int, int]


def measure(family: str, model: keras.Model, folder: Path) -> Figures:
    """Converts a trained net, compares, and checks the bounds."""
    images = digit_models.digits(model.input_shape[1])[1][0]
    files = [to_litert(model, folder / f"{name}.tflite", quantization=name) for name in (None, "float16")]
    float32, float16 = (litert_parity(model, file, images) for file in files)
    float32.require(max_difference=FLOAT32, max_drop=0)
    float16.require(max_difference=FLOAT16, max_drop=1 / len(images))
    assert float16.largest_difference > 1e-6, "the weights are not rounded"
    return Figures(float32, float16, tuple(file.stat().st_size for file in files))


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FAMILIES]
)
def test_the_files_answer_as_the_model_does(family, tmp_path, request):
    figures = measure(family, digit_models.trained(family, request.config.cache.mkdir("digit_models")), tmp_path)
    print(family, figures)
    now, page = _row(family, figures), _rows(PAGE.read_text(encoding="utf-8"))[family]
    for column in (2, 3):  # rounding errors of a net trained anew, perhaps on another processor
        assert float(now[column]) / FACTOR <= float(page[column]) <= float(now[column]) * FACTOR, COLUMNS[column]
    assert float(page[4]) == pytest.approx(float(now[4]), abs=POINTS)
    for column in (5, 6):
        sizes = [float(row[column].split(" KiB")[0]) for row in (page, now)]
        assert sizes[0] == pytest.approx(sizes[1], rel=SIZE, abs=1), COLUMNS[column]


def test_the_page_has_every_family():
    text = PAGE.read_text(encoding="utf-8")
    rows, (costs, _) = _rows(text), digits_page.read()
    assert list(rows) == sorted(FAMILIES), "run `python -m tests.compress.test_litert_families`"
    assert text == page(rows)
    for family, row in rows.items():
        assert row[1] == _net(family), "run `python -m tests.compress.test_litert_families`"
        assert float(row[2]) <= FLOAT32
        assert float(row[3]) <= FLOAT16
        assert float(row[4]) >= 99
        assert row[5] == costs[family]["float32 file"], "docs/compression.md has another size"
        sizes = [float(cell.split(" KiB")[0]) for cell in row[5:]]
        assert float(row[6].split("(")[1].rstrip(")")) == pytest.approx(sizes[1] / sizes[0], abs=0.6 / sizes[0] + 5e-4)


def _rows(page: str) -> dict[str, list[str]]:
    """Family -> its row of the table."""
    lines = [line for line in page.splitlines() if line.startswith("| ")][2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row for row in rows}


def _net(family: str) -> str:
    variant, width, side = digit_models.SMALL[family]
    recipe = digit_models.RECIPES[family]
    side = recipe.side or side
    return f"`{variant}`, width {recipe.width or width:g}, {side}x{side}"


def _row(family: str, figures: Figures) -> list[str]:
    """The family's row of the table."""
    return [
        family,
        _net(family),
        f"{figures.float32.largest_difference:.0e}",
        f"{figures.float16.largest_difference:.1e}",
        f"{100 * figures.float16.agreement:.1f}",
        f"{figures.sizes[0] / 1024:.0f} KiB",
        f"{figures.sizes[1] / 1024:.0f} KiB ({figures.sizes[1] / figures.sizes[0]:.3f})",
    ]


def measured(family: str, rows: dict[str, list[str]]) -> str:
    """The page with the row of `family` measured now, and the others as they are."""
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(family, digit_models.trained(family, TRAINED), Path(folder))
    return page({**rows, family: _row(family, figures)})


def page(rows: dict[str, list[str]]) -> str:
    """The whole page."""
    lines = [
        "# Accuracy of LiteRT files",
        "",
        "A small net of each family, trained on scikit-learn's digits, is converted with `to_litert`. `float32` and",
        "`float16` give the largest difference of a probability from the Keras model, over 397 test images and ten",
        f"classes: at most {FLOAT32:g} and {FLOAT16:g}. `same top-1` is the percentage of images for which the",
        "float16 file predicts the same class. `make test-all` measures every row again, `make test` those of",
        f"{', '.join(QUICK)}. They fail if a bound doesn't hold, if a difference here is more than {FACTOR} times",
        f"the new one or less than a tenth of it, if a percentage is more than {POINTS:g} point off, or if a size is",
        f"off by more than {SIZE:.0%}.",
        "",
        "A float16 file of a net for phones has 0.54 of the float32 file's size. In small nets, operators and names",
        "take a larger share. [compression.md](compression.md) has the results for int8.",
        "",
        "`python -m tests.compress.test_litert_families` writes this page.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "| --- " * len(COLUMNS) + "|",
        *(f"| {' | '.join(row)} |" for name, row in sorted(rows.items()) if name in FAMILIES),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for chosen in sys.argv[1:] or sorted(FAMILIES):
        known = _rows(PAGE.read_text(encoding="utf-8")) if PAGE.exists() else {}
        PAGE.write_text(measured(chosen, known), encoding="utf-8")
        keras.backend.clear_session()
