"""`keraslight export`: a model as the next version of a servable."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from keraslight.cli.convert import Labels, Model, Size, Weights, load_source

console = Console()


class Dtype(enum.StrEnum):
    """What a SavedModel computes in."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


class Lite(enum.StrEnum):
    """What the numbers of the model.tflite beside it are."""

    float32 = "float32"
    float16 = "float16"
    dynamic = "dynamic"


def export(
    model: Model,
    to: Annotated[Path, typer.Option(help="The servable's folder, such as savedmodels/digits.")],
    version: Annotated[int | None, typer.Option(help="Version number. [default: the next]", show_default=False)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a version that exists.")] = False,
    dtype: Annotated[Dtype, typer.Option(help="What the SavedModel's weights are and computes in.")] = Dtype.float32,
    quantization: Annotated[Lite, typer.Option(help="Numbers of the model.tflite in it.")] = Lite.float32,
    embed: Annotated[bool, typer.Option("--embed", help="Also write the signature `embed` (features).")] = False,
    max_pixels: Annotated[int, typer.Option(help="Largest image file that is decoded.", min=1)] = 2**26,
    weights: Weights = None,
    size: Size = None,
    labels: Labels = None,
) -> None:
    """Write a model as the next version of a servable, for TensorFlow Serving and keraslight's own server.

    The files are compared with the model before the version appears. models.config beside the servable names it.

    keraslight export runs/digits --to savedmodels/digits
    keraslight export mobilenet_v2_100 --weights imagenet --to savedmodels/photos
    """
    from keraslight.errors import InvalidArgumentError
    from keraslight.export import save_servable

    source = load_source(model, weights, size, labels)
    if source.labels is None:
        raise InvalidArgumentError(f"A servable needs the names of its classes. Received: {model}, no --labels.")
    written = save_servable(
        source.model,
        to,
        labels=source.labels,
        version=version,
        overwrite=overwrite,
        quantization=None if quantization is Lite.float32 else quantization.value,
        dtype=dtype.value,
        embed=embed,
        max_pixels=max_pixels,
        metrics=source.metrics,
    )
    console.print(f"Wrote {written}. Serve it:")
    console.print(f"  python -m keraslight_serving.server --model_name={to.name} --model_base_path={to}", style="bold")
