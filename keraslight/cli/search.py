"""`keraslight search`: nets that are accurate and fast on this machine, from block rows."""

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from keraslight.cli import _common
from keraslight.cli._common import console
from keraslight.errors import InvalidArgumentError

if TYPE_CHECKING:
    from keraslight.search import Retrained, SearchResult

SpaceName = enum.StrEnum("SpaceName", ["mobilenet_v3", "mobilenet_v4"])  # `search.SPACES` needs Keras
Metric = enum.StrEnum("Metric", ["latency", "macs", "parameters"])
Sampler = enum.StrEnum("Sampler", ["tpe", "nsga2", "random"])

_SHORT = 4  # a trial has this part of the recipe's epochs, but at least 3


def search(
    space: Annotated[SpaceName, Argument(help="Block rows to search: those of this family.", metavar="SPACE")],
    data: _common.Data,
    to: Annotated[Path, Option(help="Run folder to write; processes that share it work on the same trials.")],
    trials: Annotated[int, Option(help="Number of trials in all.", min=1)] = 60,
    target: Annotated[
        float | None,
        Option(
            "--target-ms",
            "--target",
            help="Cost to aim at: milliseconds, or with `--metric` multiply-adds or parameters.",
            show_default="none: search for the front of loss and cost",
        ),
    ] = None,
    limit: Annotated[
        float | None,
        Option(help="Cost above which a net isn't trained.", show_default="twice the target, or none"),
    ] = None,
    metric: Annotated[Metric, Option(help="Cost of a net. Latency is LiteRT's, measured here.")] = Metric.latency,
    int8: Annotated[bool, Option("--int8", help="Measure int8 files rather than float32 ones.")] = False,
    threads: Annotated[int, Option(help="Threads of LiteRT.", min=1)] = 1,
    sampler: Annotated[Sampler, Option(help="How choices are made after the first 12 trials.")] = Sampler.tpe,
    size: Annotated[
        int | None,
        Option(help="Side of the square input, in pixels (at least 32).", show_default="224; 48 for digits"),
    ] = None,
    recipe: _common.RecipeName = None,
    epochs: Annotated[
        int | None, Option(help="Epochs of each trial.", show_default="a quarter of the recipe's, at least 3", min=1)
    ] = None,
    batch_size: Annotated[int | None, Option(help="Images per step.", show_default="the recipe's")] = None,
    hold_out: Annotated[float, Option(help="Share of the training images by which trials are judged, 0 to 1.")] = 0.2,
    seed: _common.Seed = 0,
    fresh: Annotated[bool, Option("--fresh", help="Discard an existing search and start over.")] = False,
    retrain: Annotated[
        str | None,
        Option(
            help="Numbers of trials to train again, such as 12,31, with all training images and several seeds.",
            show_default="none",
        ),
    ] = None,
    against: Annotated[
        str | None,
        Option(help="Names of models to train like these, for comparison, with commas.", show_default="none"),
    ] = None,
    seeds: Annotated[int, Option(help="Trainings of each of them.", min=1)] = 3,
    final_epochs: Annotated[
        int | None, Option(help="Epochs of each of these trainings.", show_default="the recipe's", min=1)
    ] = None,
    as_json: _common.Json = False,
) -> None:
    """Search for networks that are accurate and fast on this machine.

    Each trial chooses stem, widths, depths, kernels, expansions and the rest
    of a network, measures its latency, and stops there if it is too slow.
    Otherwise the network trains for a few epochs and is judged by images held
    out of the training part. Without a target, the search finds a front: the
    networks that no other one beats in both latency and loss.

    Start the same command again in another terminal, or on another machine
    that sees the folder, and it helps. Killed at any moment, it resumes.

    The folder receives front.csv, front.png, trials.journal, and a run folder
    per trained network in trials/, with its program model.py. Networks of the
    search are trained briefly: choose some and retrain them.

    Examples:

      keraslight search mobilenet_v3 --data digits --to runs/search
      keraslight search mobilenet_v3 --data photos/ --to s/ --target-ms 5 --int8
      keraslight search mobilenet_v4 --data digits --to s/ --metric macs
      keraslight search mobilenet_v3 --data digits --to runs/search \\
        --retrain 12,31 --against mobilenet_v3_small_050
      keraslight quantize runs/search/retrained/0012_seed0 --data digits ...
    """
    picks = [] if retrain is None else _numbers(retrain)
    names = [] if against is None else [name.strip() for name in against.split(",")]
    if names and not picks:
        raise InvalidArgumentError(f"`--against` needs `--retrain`. Received: --against {against} alone.")

    import keraslight
    from keraslight import search as package
    from keraslight.search import SPACES

    kind = SPACES[space.value]
    for name in names:
        keraslight.model_info(name)
    spec = _common.data_preprocessing(keraslight.model_info(kind.variant), data, size)
    images = _common.load_images(data, spec)
    console.print(str(images))
    whole = _common.chosen_recipe(recipe, data, None, batch_size, images.image_shape[2]).replace(seed=seed)
    short = whole.shortened(min(max(whole.epochs // _SHORT, 3), whole.epochs) if epochs is None else epochs)
    try:
        result = package.search(
            kind.for_images(max(images.image_shape[:2])),
            images,
            short,
            run_dir=to,
            trials=trials,
            metric=metric.value,
            target=target,
            limit=limit,
            sampler=sampler.value,
            int8=int8,
            threads=threads,
            hold_out=hold_out,
            seed=seed,
            resume=not fresh,
        )
    except InvalidArgumentError as error:  # in the words of the command line
        text = str(error).replace(package.START_OVER, "pass another `--to` or `--fresh`, which overwrites the search")
        raise InvalidArgumentError(text) from error
    console.print(f"\nOn images held out of the training part:\n{result}", highlight=False)
    if result.front:
        best = result.pick()
        console.print(f"\nTrial {best.number}, {'nearest to the target' if target else 'of the lowest loss'}:\n")
        console.print(best.code, highlight=False)
    retrained = None
    if picks:
        final = whole if final_epochs is None else whole.shortened(final_epochs)
        retrained = package.retrain(result, picks, images, final, seeds=seeds, against=names)
        console.print(f"\nOn the {images.validation_count} held-out images:\n{retrained}", highlight=False)
    if as_json:
        _common.print_json(_as_dict(result, retrained))


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InvalidArgumentError(
            f"`--retrain` must be numbers of trials with commas, such as 12,31. Received: {text!r}."
        ) from None


def _as_dict(result: SearchResult, retrained: Retrained | None) -> dict[str, Any]:
    found = {
        "run_dir": result.run_dir,
        "metric": result.metric,
        "target": result.target,
        "front": result.front,
        "trials": [dataclasses.asdict(candidate) for candidate in result.candidates],
    }
    if retrained is not None:
        found["retrained"] = [dataclasses.asdict(net) | {"accuracy": net.accuracy} for net in retrained.nets]
    return found
