"""The before/after table and picture in which the compressing commands end."""

from __future__ import annotations

import dataclasses
import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table


@dataclasses.dataclass
class Form:
    """A LiteRT file of a model and all that is measured of it.

    Attributes:
        name: What to call it.
        file: The .tflite file, of batch size 1.
        macs, nonzero_macs: Multiply-adds of one image, and those whose weight is not zero.
        accuracy: Share of right answers, 0..1.
        agreement: Share of images with the same top-1 as the first form, 0..1.
        megabytes, gzip_megabytes: Of the file, in 10^6 bytes.
        milliseconds: Median of one image with one thread.
    """

    name: str
    file: Path
    macs: int
    nonzero_macs: int
    accuracy: float = 0.0
    agreement: float = 1.0
    megabytes: float = 0.0
    gzip_megabytes: float = 0.0
    milliseconds: float = 0.0


def form(name: str, file: Path, model: Any) -> Form:
    """Counts the multiply-adds of a Keras 3 model for the file that was made of it."""
    from keraslight import analysis, compress
    from keraslight.rewrite.fuse import opened

    model = opened(model)  # so that all name a nested model's layers alike
    zeros = {layer.name: layer.fraction for layer in compress.sparsity(model, "*").layers}
    for layer in model.layers:
        if hasattr(layer, "pointwise_kernel") and layer.name in zeros:  # its depthwise kernel has work, and no zeros
            one, other = (math.prod(kernel.shape) for kernel in (layer.pointwise_kernel, layer.depthwise_kernel))
            zeros[layer.name] *= one / (one + other)
    rows = analysis.profile(model).rows
    nonzero = sum(row.macs * (1 - zeros.get(row.name, 0.0)) for row in rows)
    return Form(name, file, analysis.count_macs(model), round(nonzero))


def measure(forms: list[Form], images: np.ndarray, targets: np.ndarray) -> None:
    """Fills in accuracy, agreement with the first form, sizes and latency; the forms take turns.

    Args:
        images: (N, H, W, C) as the files take them, float32.
        targets: (N,) the right classes.
    """
    from ai_edge_litert.interpreter import Interpreter

    from keraslight.analysis import file_latency

    first = None
    for each in forms:
        interpreter = Interpreter(str(each.file), num_threads=1)
        run = interpreter.get_signature_runner("serving_default")
        classes = np.asarray([run(images=image[None])["probabilities"].argmax() for image in images])
        first = classes if first is None else first
        each.accuracy = float((classes == targets).mean())
        each.agreement = float((classes == first).mean())
        content = each.file.read_bytes()
        each.megabytes, each.gzip_megabytes = len(content) / 1e6, len(gzip.compress(content, mtime=0)) / 1e6
    times = file_latency({each.name: each.file for each in forms})
    for each in forms:
        each.milliseconds = times[each.name].p50


def table(forms: list[Form], title: str) -> Table:
    """One row a form, each figure also as a share of the first form's."""
    before = forms[0]
    result = Table(title=title)
    for heading in ("model", "accuracy", "same top-1", ".tflite", "gzip", "MACs", "non-zero MACs", "latency"):
        result.add_column(heading, justify="left" if heading == "model" else "right")

    def share(value: float, of: float) -> str:
        return f"({value / of:.2f})" if of else ""

    for each in forms:
        result.add_row(
            each.name,
            f"{each.accuracy:.2%}",
            f"{each.agreement:.2%}",
            f"{each.megabytes:.3f} MB {share(each.megabytes, before.megabytes)}",
            f"{each.gzip_megabytes:.3f} MB {share(each.gzip_megabytes, before.gzip_megabytes)}",
            f"{each.macs / 1e6:,.2f} M {share(each.macs, before.macs)}",
            f"{each.nonzero_macs / 1e6:,.2f} M {share(each.nonzero_macs, before.nonzero_macs)}",
            f"{each.milliseconds:.2f} ms {share(each.milliseconds, before.milliseconds)}",
        )
    return result


def draw(forms: list[Form], title: str, path: Path) -> Path:
    """A picture of the table: every figure as a share of the first form's."""
    from keraslight.compress._plots import bars

    names = ("accuracy", "megabytes", "gzip_megabytes", "macs", "nonzero_macs", "milliseconds")
    values = [[getattr(each, name) / (getattr(forms[0], name) or 1) for name in names] for each in forms]
    groups = ("accuracy", ".tflite", "gzip", "MACs", "non-zero MACs", "latency")
    return bars(path, np.asarray(values), groups=groups, series=[each.name for each in forms], title=title)
