"""`keraslight export`: a model as the next version of a servable."""

from __future__ import annotations

import enum
import shlex
from pathlib import Path
from typing import Annotated

from typer import Option

from keraslight.cli._common import Given, Labels, Source, SourceSize, SourceWeights, Task, console, load_source
from keraslight.errors import InvalidArgumentError

Dtype = enum.StrEnum("Dtype", ["float32", "float16", "bfloat16"])
Lite = enum.StrEnum("Lite", ["float32", "float16", "dynamic"])


def export(
    model: Source,
    to: Annotated[Path, Option(help="Servable folder to write to, such as savedmodels/digits.")],
    version: Annotated[int | None, Option(help="Version number.", show_default="the next")] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace an existing version.")] = False,
    dtype: Annotated[Dtype, Option(help="Number format of the SavedModel's weights and computations.")] = Dtype.float32,
    quantization: Annotated[Lite, Option(help="Number format of the servable's model.tflite.")] = Lite.float32,
    embed: Annotated[bool, Option("--embed", help="Also write the signature `embed`, which returns features.")] = False,
    max_pixels: Annotated[int, Option(help="Largest image that the servable decodes, in pixels.", min=1)] = 2**26,
    weights: SourceWeights = None,
    size: SourceSize = None,
    labels: Labels = None,
    task: Task = None,
    preprocessing: Given = None,
) -> None:
    """Export a model as the next version of a servable.

    Servables run in TensorFlow Serving and in keraslight's own server. The
    version is only published if its predictions equal the model's. The
    servable is added to models.config in the parent folder.

    Examples:

      keraslight export runs/digits --to savedmodels/digits
      keraslight export resnet18 --weights imagenet --to savedmodels/photos
    """
    from keraslight.export import save_servable

    source = load_source(model, weights, size, labels, preprocessing=preprocessing)
    if source.labels is None and task != "regression":
        raise InvalidArgumentError(f"A servable needs the names of its classes. Received: {model}, no --labels.")
    written = save_servable(
        source.model,
        to,
        labels=source.labels or (),
        task=None if task is None else task.value,
        thresholds=source.thresholds if task in (None, "multi-label") else None,
        preprocessing=source.preprocessing if preprocessing == "raw" else None,  # others are in the model
        version=version,
        overwrite=overwrite,
        quantization=None if quantization is Lite.float32 else quantization.value,
        dtype=dtype.value,
        embed=embed,
        max_pixels=max_pixels,
        metrics=source.metrics,
    )
    console.print(f"Wrote {written}. Serve it:")
    name, folder = (shlex.quote(text) for text in (to.absolute().name, str(to)))
    console.print(f"  python -m keraslight_serving.server --model_name={name} --model_base_path={folder}", style="bold")
