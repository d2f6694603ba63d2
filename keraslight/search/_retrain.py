"""`retrain`: picks of a search, trained again with all training images and several seeds, next to known models."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
from filelock import FileLock

from keraslight._files import write_file
from keraslight._notebook import Report
from keraslight.analysis import count_macs, count_parameters
from keraslight.catalogue import find
from keraslight.errors import InvalidArgumentError
from keraslight.search._results import Candidate, SearchResult
from keraslight.search._study import COMPARISON, RETRAINED
from keraslight.training import ImageData, Recipe, train
from keraslight.zoo import create_model


@dataclasses.dataclass(frozen=True)
class RetrainedNet:
    """One net of `retrain`.

    Attributes:
        name: `"trial 12"`, or a model's name.
        accuracies: Accuracy on the images that the data holds out, per seed.
        latency_ms: Median latency, timed in turn with all other nets; None if another metric was searched by.
        macs, parameters: Multiply-adds for one image, and parameters.
        run_dirs: Run folder per seed, for `load_run`.
    """

    name: str
    accuracies: tuple[float, ...]
    latency_ms: float | None
    macs: int
    parameters: int
    run_dirs: tuple[Path, ...]

    @property
    def accuracy(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.accuracies)


@dataclasses.dataclass(frozen=True)
class Retrained(Report):
    """The result of `retrain`. `str()` is a table.

    Attributes:
        nets: The picks, then the models to compare them with.
    """

    nets: tuple[RetrainedNet, ...]

    def __str__(self) -> str:
        ms = any(net.latency_ms is not None for net in self.nets)
        rows = [("net", "accuracy", "of each seed", *(("ms",) if ms else ()), "MACs", "parameters")]
        for net in self.nets:
            each = " ".join(f"{accuracy:.2%}" for accuracy in net.accuracies)
            time = (f"{net.latency_ms:.3f}",) if net.latency_ms is not None else ()
            rows.append((net.name, f"{net.accuracy:.2%}", each, *time, f"{net.macs:,}", f"{net.parameters:,}"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
            for row in rows
        )


def retrain(
    result: SearchResult,
    picks: Sequence[int | Candidate],
    data: ImageData,
    recipe: Recipe,
    *,
    seeds: int = 3,
    against: Sequence[str] = (),
    resume: bool = True,
    progress: bool = True,
) -> Retrained:
    """Trains picks of a search from the start, with all training images and several seeds.

    A trial's loss is that of one short training, so the best of many trials was lucky, too. This is the fair
    comparison: the same recipe for all nets, judged by the images that `data` holds out and the search never saw.
    Latencies are measured again, all nets in turn.

    The run folders are `retrained/` in the search's folder, and `retrained.csv` has the table. Interrupted, the same
    call resumes.

    Args:
        result: Result of `search`.
        picks: Numbers of trials, or candidates.
        data: The data set of the search.
        recipe: Hyperparameters, usually more epochs than in the search. Its seed is that of the first training.
        seeds: Number of trainings per net, at least 1, with consecutive seeds.
        against: Names of models to train in the same way for comparison, such as `"mobilenet_v3_small_050"`.
        resume: Whether to resume earlier trainings; False overwrites them.
        progress: Whether to show each training's progress on stderr.

    Raises:
        InvalidArgumentError: A number isn't a trial's, nothing is to be trained, or an earlier training had another
            recipe.
        UnknownModelError: A name of `against` is unknown.
        TrainingError: A loss is no longer finite.
    """
    if seeds < 1 or not [*picks, *against]:
        raise InvalidArgumentError(
            "`seeds` must be at least 1, and there must be a pick or a name. "
            f"Received: seeds={seeds}, picks={list(picks)}, against={list(against)}."
        )
    builders: dict[str, tuple[str, Callable[[], keras.Model]]] = {}
    for pick in picks:
        number = result[pick if isinstance(pick, int) else pick.number].number
        builders[f"trial {number}"] = (f"{number:04d}", functools.partial(result.build, number))
    for given in against:
        name, _ = find(given)
        builders[name] = (name, functools.partial(create_model, name, **result.nets.ends))

    folder = result.run_dir / RETRAINED
    folder.mkdir(parents=True, exist_ok=True)
    accuracies: dict[str, list[float]] = {name: [] for name in builders}
    run_dirs: dict[str, list[Path]] = {name: [] for name in builders}
    for name, (short, build) in builders.items():
        for seed in range(recipe.seed, recipe.seed + seeds):
            run_dir = folder / f"{short}_seed{seed}"
            keras.utils.set_random_seed(seed)
            with FileLock(folder / f".{run_dir.name}.lock"):  # another process that retrains the same
                trained = train(
                    build(),
                    data,
                    recipe.replace(seed=seed),
                    run_dir=run_dir,
                    resume=resume,
                    task=result.nets.task,
                    progress=progress,
                )
            accuracies[name].append(trained.best_accuracy)
            run_dirs[name].append(run_dir)
            keras.backend.clear_session()
    models = {name: build() for name, (_, build) in builders.items()}
    latencies = result.meter.latencies(models, data) if result.metric == "latency" else {}
    found = Retrained(
        tuple(
            RetrainedNet(
                name,
                tuple(accuracies[name]),
                latencies.get(name),
                count_macs(model),
                count_parameters(model),
                tuple(run_dirs[name]),
            )
            for name, model in models.items()
        )
    )
    _save(found, result.run_dir / COMPARISON)
    return found


def _save(found: Retrained, file: Path) -> None:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    seeds = range(len(found.nets[0].accuracies))
    writer.writerow(["net", "accuracy", *(f"seed {seed}" for seed in seeds), "latency_ms", "macs", "parameters"])
    for net in found.nets:
        writer.writerow([net.name, net.accuracy, *net.accuracies, net.latency_ms, net.macs, net.parameters])
    write_file(file, table.getvalue())
