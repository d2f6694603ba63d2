"""`keraslight make`: from a folder of photographs to a file for phones, a servable and a report, in one command."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from keraslight.cli import _common
from keraslight.cli._common import console

Quantization = enum.StrEnum("Quantization", ["int8", "float16", "float32"])


def make(
    data: Annotated[
        str,
        Argument(
            help="Folder with one subfolder per class, or with train/, val/ and test/ that have them; a .csv or "
            '.parquet file that lists images and labels; or "digits".',
            metavar="DATA",
        ),
    ],
    to: Annotated[Path, Option(help="Output folder.")],
    model: _common.ModelName = "mobilenet_v4_conv_small",
    weights: Annotated[
        str | None,
        Option(
            help='Initial weights: "imagenet", a weights file, or "none".',
            show_default="imagenet, or none with a warning if they can't be fetched",
        ),
    ] = None,
    size: _common.DataSize = None,
    recipe: Annotated[
        str | None,
        Option(
            help="Named recipe, as `keraslight recipes` lists them.",
            show_default="head_first with pretrained weights, few_photos without",
        ),
    ] = None,
    epochs: Annotated[
        int | None, Option(help="Largest number of passes over the training images.", show_default="the recipe's")
    ] = None,
    batch_size: Annotated[int | None, Option(help="Images per step.", show_default="the recipe's")] = None,
    learning_rate: Annotated[
        float | None, Option(help="Peak learning rate of the cosine schedule.", show_default="the recipe's")
    ] = None,
    quantization: Annotated[
        Quantization, Option(help="Number format of model.tflite, unless it loses too much.")
    ] = Quantization.int8,
    max_loss: Annotated[
        float,
        Option(
            help="Largest acceptable loss of accuracy of model.tflite on the held-out images, 0 to 1. Beyond it int8 "
            "is trained, and then float16 and float32 are tried."
        ),
    ] = 0.01,
    validation: Annotated[
        str | None,
        Option(
            help="Images to hold out: a folder with the same class folders, or a text file with one path per line.",
            show_default="those in val/ or test/, or a fifth of each class",
        ),
    ] = None,
    cache: Annotated[
        Path | None, Option(help="Folder for the decoded images, for data that doesn't fit into memory.")
    ] = None,
    seed: _common.Seed = 0,
    fresh: Annotated[bool, Option("--fresh", help="Discard what an earlier call made and start over.")] = False,
    as_json: _common.Json = False,
) -> None:
    """Train on your photographs; write a .tflite file, a servable and a report.

    Fine-tunes pretrained weights, the head first and then all layers. If none
    can be had, it says so and trains from scratch. Called again, it resumes.

    The output folder receives model.tflite with its labels, savedmodels/ to
    serve, report.html, the run folder run/, and make.json.

    Examples:

      keraslight make photos/ --to out/
      keraslight make photos.csv --to out/ --model mobilenet_v3_small_100 --size 128
      keraslight make photos/ --to out/ --weights none --max-loss 0.005
    """
    from keraslight.cli._make import FILE, REPORT, Settings, run_make

    settings = Settings(
        data,
        model,
        weights,
        size,
        recipe,
        epochs,
        batch_size,
        learning_rate,
        quantization.value,
        max_loss,
        validation,
        cache,
        seed,
    )
    results = run_make(settings, to, fresh=fresh)
    count = results["test_images"] or results["validation_images"]
    console.print(f"{results['accuracy']:.2%} of {count} {results['part']} images right by {to / FILE}")
    console.print(f"Servable: {to / results['servable']}")
    console.print(f"Report: {to / REPORT}", style="bold")
    if as_json:
        _common.print_json(results)
