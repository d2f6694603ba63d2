"""What `keraslight demo --search` trains: a network found by architecture search, then narrowed by NetAdapt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

import keraslight
from keraslight import analysis, compress
from keraslight.cli._common import console
from keraslight.search import SPACES, retrain, search
from keraslight.training import ImageData, Recipe, load_run

SPACE = "mobilenet_v3"
TRIALS, TRIAL_EPOCHS = 8, 3
BUDGET, STEP, STEPS = 0.7, 0.05, 30  # of the latency to reach, of the first iteration; training steps of a proposal


def find_net(data: ImageData, recipe: Recipe, to: Path, known: str) -> keras.Model:
    """A trained network from a short search for a low loss at the latency of a known model, which is trained as well.

    Prints the front of the search, and both networks.
    """
    ends: dict[str, Any] = {
        "classes": len(data.labels),
        "input_shape": data.image_shape,
        "preprocessing": data.preprocessing,
    }
    (target,) = analysis.OperationTable().measure([keraslight.create_model(known, **ends)])
    console.print(f"Searching rows of {SPACE} near the latency of {known}, {target:.2f} ms: {TRIALS} trials")
    short = recipe.shortened(min(TRIAL_EPOCHS, recipe.epochs))
    space = SPACES[SPACE].for_images(max(data.image_shape[:2]))
    found = search(space, data, short, run_dir=to, trials=TRIALS, target=target, seed=recipe.seed)
    console.print(f"\nOn images held out of the training part:\n{found}", highlight=False)
    best = found.pick()
    console.print(f"\nTraining trial {best.number} and {known} on {data.train_count} digits, {recipe.epochs} epochs")
    compared = retrain(found, [best], data, recipe, seeds=1, against=[known])
    console.print(f"\nOn the {data.validation_count} held-out images:\n{compared}", highlight=False)
    return load_run(compared.nets[0].run_dirs[0])[0]


def narrow(model: keras.Model, data: ImageData, recipe: Recipe, to: Path) -> keras.Model:
    """The network with the channels removed that cost the least for the latency that they take, and trained again."""
    console.print(f"NetAdapt to {BUDGET:.0%} of its latency; single operators are measured first")
    result = compress.netadapt(
        model,
        data,
        analysis.resource(model, table=analysis.OperationTable(to / "operations")),
        run_dir=to,
        budget=BUDGET,
        step=STEP,
        steps=STEPS,
        augmentation=recipe.augmentation,
        fine_tune=recipe.replace(learning_rate=recipe.learning_rate / 2),
        seed=recipe.seed,
    )
    console.print(str(result), markup=False, highlight=False)
    return result.model
