"""`keraslight demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from keraslight.cli._common import Seed


def demo(
    to: Annotated[Path, Option(help="Output folder.")] = Path("runs/demo"),
    seed: Seed = 0,
    epochs: Annotated[int | None, Option(help="Passes of the float training.", show_default="the recipe's")] = None,
) -> None:
    """Train, prune, quantize, export and serve a digit classifier.

    Compares every served prediction with the model in this process, and exits
    with code 1 if any stage disagrees.
    """
    from keraslight.cli._demo_run import run_demo

    run_demo(to, seed=seed, epochs=epochs)
