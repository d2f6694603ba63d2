"""The figures of docs/android.md's table, measured again on the emulated ARM64 kernels."""

from pathlib import Path

import keras
import numpy as np
import pytest

import keraslight
from keraslight import compress
from keraslight.export import arm64_problem, litert_report, run_on_arm64, to_litert

PAGE = (Path(__file__).parents[2] / "docs" / "android.md").read_text(encoding="utf-8")
SHARE = 0.02  # instructions repeat; LiteRT's versions differ

pytestmark = pytest.mark.skipif(bool(arm64_problem()), reason=arm64_problem())


def rows() -> dict[str, dict[str, str]]:
    """Model -> column -> cell."""
    lines = PAGE[PAGE.index("| model | choose |") :].split("\n\n")[0].splitlines()
    headings, _, *cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].strip("`"): dict(zip(headings, row, strict=True)) for row in cells}


def model(name: str, side: int, classes: int) -> keras.Model:
    keras.utils.set_random_seed(0)
    return keraslight.create_model(name, weights=None, classes=classes, input_shape=(side, side, 3))


def share(small: Path, large: Path, side: int) -> float:
    """Instructions of one file for an image, as a share of another's."""
    images = np.random.default_rng(0).normal(size=(1, side, side, 3)).astype("float32")
    return run_on_arm64(small, images).instructions / run_on_arm64(large, images).instructions


@pytest.mark.parametrize(
    ("name", "side"),
    [
        pytest.param(name, side, marks=() if (name, side) == ("mobilenet_v3_small_100", 96) else pytest.mark.slow)
        for name in rows()
        for side in (96, 224)
    ],
)
def test_sparse_files(name, side, tmp_path):
    cell = rows()[name][f"sparse, {side}x{side}"]
    pruned = compress.prune_at_once(model(name, side, 10), 0.8, policy="xnnpack")
    file = to_litert(pruned, tmp_path / "sparse.tflite", sparse=True)
    assert litert_report(file).sparse.accepted == (cell != "no")
    if cell != "no":
        dense = to_litert(pruned, tmp_path / "dense.tflite", sparse=False)
        assert share(file, dense, side) == pytest.approx(float(cell), abs=SHARE)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, cells in rows().items() if cells["int8"]])
def test_int8_files(name, tmp_path):
    net = model(name, 224, 1000)
    images = np.random.default_rng(0).normal(size=(8, 224, 224, 3)).astype("float32")
    file = to_litert(net, tmp_path / "int8.tflite", quantization="int8", representative_data=images)
    found = share(file, to_litert(net, tmp_path / "float32.tflite"), 224)
    assert found == pytest.approx(float(rows()[name]["int8"]), abs=SHARE)
