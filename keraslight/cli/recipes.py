"""`keraslight recipes` and `keraslight find-lr`: how to train."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from keraslight.cli import _common
from keraslight.cli._common import console
from keraslight.errors import InvalidArgumentError


def recipes(
    name: Annotated[str | None, Argument(help="A recipe, to show all its values.", metavar="[NAME]")] = None,
    as_json: _common.Json = False,
) -> None:
    """List the named recipes for `keraslight train --recipe NAME`."""
    from keraslight.training import RECIPES, Progressive

    if name is not None and name not in RECIPES:
        raise InvalidArgumentError(f"`NAME` must be one of {', '.join(RECIPES)}. Received: {name!r}.")
    if as_json:
        chosen = RECIPES if name is None else {name: RECIPES[name]}
        _common.print_json({key: recipe.to_dict() for key, recipe in chosen.items()})
        return
    if name is None:
        rows = [("recipe", "epochs", "batch", "rate", "decay", "from")]
        for key, recipe in RECIPES.items():
            numbers = (str(recipe.epochs), str(recipe.batch_size), f"{recipe.learning_rate:g}")
            rows.append((key, *numbers, f"{recipe.weight_decay:g}", _short(recipe.source)))
        widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
        for row in rows:
            first, *middle, last = row
            cells = (cell.rjust(width) for cell, width in zip(middle, widths[1:], strict=False))
            console.print("  ".join([first.ljust(widths[0]), *cells, last]))
        console.print(
            "\nRates belong to the batch size; `keraslight train` scales them.\nAll values: keraslight recipes NAME"
        )
        return
    recipe = RECIPES[name]
    for field, value in recipe.to_dict().items():
        if field not in ("augmentation", "progressive", "source", "seed"):
            console.print(f"{field:<20} {value}")
    if recipe.augmentation is not None:
        console.print("augmentation")
        for field, value in recipe.to_dict()["augmentation"].items():
            console.print(f"  {field:<18} {value}")
    if isinstance(recipe.progressive, Progressive):
        console.print("progressive (with --progressive)")
        console.print(textwrap.indent(recipe.progressive.table(recipe.epochs), "  "))
    console.print("\n".join(textwrap.wrap(f"Source: {recipe.source}", 79, break_on_hyphens=False)))


def find_lr(
    model: _common.Name,
    data: _common.Data,
    weights: Annotated[
        str | None, Option(help='Initial weights: "imagenet" or a weights file.', show_default="random")
    ] = None,
    size: _common.DataSize = None,
    per_image: _common.PerImage = False,
    recipe: _common.RecipeName = None,
    batch_size: Annotated[int | None, Option(help="Images per step.", show_default="the recipe's")] = None,
    steps: Annotated[int, Option(help="Steps, each with a higher rate than the one before.", min=10)] = 100,
    plot: Annotated[Path | None, Option(help="Picture to write, PNG or SVG.")] = None,
    seed: _common.Seed = 0,
    as_json: _common.Json = False,
) -> None:
    """Find a peak learning rate by training with growing rates for a few steps.

    Examples:

      keraslight find-lr resnet18 --data photos/ --weights imagenet --plot lr.png
    """
    import keraslight

    info = keraslight.model_info(model)

    from keraslight import training

    images = _common.load_images(data, _common.data_preprocessing(info, data, size, per_image=per_image))

    import keras

    chosen = _common.chosen_recipe(recipe, data, None, batch_size, images.image_shape[2]).replace(seed=seed)
    keras.utils.set_random_seed(seed)
    net = keraslight.create_model(
        model,
        weights=weights,
        classes=len(images.labels),
        input_shape=images.image_shape,
        preprocessing=images.preprocessing,
        classifier_activation="sigmoid" if images.targets.ndim == 2 else "softmax",
    )
    found = training.find_learning_rate(net, images, chosen, steps=steps)
    console.print(str(found))
    if plot is not None:
        from keraslight._pictures import finished

        finished(found.plot(), plot)
        console.print(f"Plot: {plot}")
    if as_json:
        _common.print_json({"suggestion": found.suggestion, "rates": found.rates, "losses": found.losses})


def _short(source: str) -> str:
    """The first words of a source."""
    return source.split(",")[0].split(":")[0]
