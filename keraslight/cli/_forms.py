"""LiteRT files of one model, measured and compared in a table and a chart."""

from __future__ import annotations

import dataclasses
import gzip
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from keraslight import _litert_files
from keraslight._pictures import finished, new_figure

if TYPE_CHECKING:
    import keras

    from keraslight._tasks import Head


@dataclasses.dataclass
class Form:
    """A LiteRT file of a model with a batch size of 1, with its measurements."""

    name: str
    file: Path
    macs: int = 0  # per image
    nonzero_macs: int = 0  # those whose weight isn't zero
    accuracy: float = 0.0  # 0 to 1
    agreement: float = 1.0  # share of images with the same top-1 class as the first form, 0 to 1
    megabytes: float = 0.0  # in 10^6 bytes
    gzip_megabytes: float = 0.0
    milliseconds: float = 0.0  # median latency for one image with one thread
    instructions: int | None = None  # of one image on ARM64 kernels; None where these are not installed


def form(name: str, file: Path, model: keras.Model) -> Form:
    """Counts the multiply-adds of the Keras model that a file was converted from."""
    from keraslight import analysis, compress
    from keraslight.graph import build, read

    model = build(read(model))  # so that all reports name the layers of a nested model alike
    zeros = {layer.name: layer.fraction for layer in compress.sparsity(model, "*").layers}
    for layer in model.layers:
        if hasattr(layer, "pointwise_kernel") and layer.name in zeros:  # its depthwise kernel has MACs, but no zeros
            kernels = (layer.pointwise_kernel, layer.depthwise_kernel)
            pointwise, depthwise = (math.prod(kernel.shape) for kernel in kernels)
            zeros[layer.name] *= pointwise / (pointwise + depthwise)
    rows = analysis.profile(model).rows
    nonzero = sum(row.macs * (1 - zeros.get(row.name, 0.0)) for row in rows)
    return Form(name, file, analysis.count_macs(model), round(nonzero))


def probabilities(file: Path, images: NDArray[np.float32], batch_size: int = 1) -> NDArray[np.float32]:
    """The outputs of a file for images (N, H, W, C), with one thread: (N, K)."""
    run = _litert_files.interpreter(file, 1).get_signature_runner("serving_default")
    batches = (images[start : start + batch_size] for start in range(0, len(images), batch_size))
    answers = [run(images=batch) for batch in batches]
    name = "probabilities" if "probabilities" in answers[0] else "outputs"  # of a regression
    return np.concatenate([answer[name] for answer in answers])


def measure(forms: list[Form], images: NDArray[np.float32], targets: NDArray[Any], head: Head) -> None:
    """Fills in accuracy, agreement with the first form, sizes, latency (interleaved) and, where the emulated ARM64
    system is installed, instructions on images (N, H, W, C).

    `head`: what the files' outputs are.
    """
    from keraslight import _tasks
    from keraslight.analysis import file_latency
    from keraslight.export import arm64_problem, run_on_arm64

    answers = [probabilities(each.file, images) for each in forms]
    times = file_latency({each.name: each.file for each in forms})
    for each, outputs in zip(forms, answers, strict=True):
        each.accuracy = _tasks.score(head, outputs, targets)
        each.agreement = _tasks.agreement(head, outputs, answers[0])
        content = each.file.read_bytes()
        each.megabytes, each.gzip_megabytes = len(content) / 1e6, len(gzip.compress(content, mtime=0)) / 1e6
        each.milliseconds = times[each.name].p50
        each.instructions = None if arm64_problem() else run_on_arm64(each.file, images[:1]).instructions


def table(forms: list[Form], title: str) -> Table:
    """One column per form, with ratios to the first form in parentheses."""
    result = Table(title=title)
    result.add_column("measure", no_wrap=True)
    for form in forms:
        result.add_column(form.name, justify="right")

    def add(measure: str, text: Callable[[Any], str], values: list[Any], *, ratios: bool = True) -> None:
        cells = [
            f"{text(value)} ({value / values[0]:.2f})" if ratios and values[0] else text(value) for value in values
        ]
        result.add_row(measure, *cells)

    add("accuracy", "{:.2%}".format, [form.accuracy for form in forms], ratios=False)
    add("same top-1", "{:.2%}".format, [form.agreement for form in forms], ratios=False)
    add(".tflite", "{:.3f} MB".format, [form.megabytes for form in forms])
    add("gzip", "{:.3f} MB".format, [form.gzip_megabytes for form in forms])
    add("MACs", "{:,.2f} M".format, [form.macs / 1e6 for form in forms])
    add("non-zero MACs", "{:,.2f} M".format, [form.nonzero_macs / 1e6 for form in forms])
    add("latency", "{:.2f} ms".format, [form.milliseconds for form in forms])
    if None not in (counts := [form.instructions for form in forms]):
        add("ARM64 instructions", lambda count: f"{count / 1e6:,.2f} M", counts)
    return result


def draw(forms: list[Form], title: str, path: Path) -> None:
    """Draws the table as bars, relative to the first form."""
    names = ("accuracy", "megabytes", "gzip_megabytes", "macs", "nonzero_macs", "milliseconds")
    figure = new_figure(2 + 1.2 * len(names), 4)
    axes = figure.subplots()
    width = 0.8 / len(forms)
    places = np.arange(len(names))
    for number, each in enumerate(forms):
        shares = [getattr(each, name) / (getattr(forms[0], name) or 1) for name in names]
        bars = axes.bar(places + (number - (len(forms) - 1) / 2) * width, shares, width, label=each.name)
        axes.bar_label(bars, fmt="%.2f", fontsize=7)
    axes.set_xticks(places, ("accuracy", ".tflite", "gzip", "MACs", "non-zero MACs", "latency"))
    axes.set(title=title, ylabel=f"as a share of {forms[0].name}")
    figure.legend(loc="outside lower center", ncols=len(forms))  # inside, it would hide bars
    finished(figure, path)
