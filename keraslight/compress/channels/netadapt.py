"""NetAdapt: narrower groups, one at a time, each time the one that costs the least loss for what it saves."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from keraslight import _batches, _tasks
from keraslight._progress import ProgressBar
from keraslight.compress._patterns import chosen
from keraslight.compress.channels.adaptation import (
    AdaptationFolder,
    Kept,
    NetAdaptIteration,
    NetAdaptResult,
    narrowed,
)
from keraslight.compress.channels.groups import Groups
from keraslight.compress.channels.masked import MaskedNet
from keraslight.errors import CompressionError, InvalidArgumentError, TrainingError
from keraslight.graph import check_finite, read, remember_task, without_auxiliary

if TYPE_CHECKING:
    from keraslight.analysis import Resource
    from keraslight.training import Augmentation, Distillation, ImageData, Recipe

_JUDGED = 64  # held-out images at once


def netadapt(
    model: keras.Model,
    data: ImageData,
    resource: Resource,
    *,
    run_dir: str | os.PathLike[str],
    budget: float = 0.5,
    step: float = 0.03,
    decay: float = 0.96,
    steps: int = 50,
    learning_rate: float = 1e-3,
    batch_size: int = 32,
    hold_out: float = 0.2,
    divisor: int = 8,
    minimum: int = 8,
    groups: str | Collection[str] = "*",
    augmentation: Augmentation | None = None,
    fine_tune: Recipe | None = None,
    distillation: Distillation | None = None,
    task: str | None = None,
    seed: int = 0,
    resume: bool = True,
    progress: bool = True,
) -> NetAdaptResult:
    """Removes channels where they cost the least accuracy, until a model fits a budget.

    Each iteration has a target a little below the resource of the present net. Every group of channels proposes to
    become as narrow as the target needs, keeping the channels with the largest weights. Each proposal is trained for a
    few steps, and the one whose loss on held-out images rises the least for what it saves is taken. All proposals are
    masks on one model, so that nothing is built or traced again. If no group can give the step alone, it is halved.

    Every iteration is kept in `run_dir`/netadapt. Interrupted, the same call resumes and gives the same result, if the
    resource gives the same numbers: multiply-adds and parameters do, and latencies with a table in a folder.

    Source: Yang et al., "NetAdapt: Platform-Aware Neural Network Adaptation for Mobile Applications",
    https://arxiv.org/abs/1804.03230, sections 3.1 and 3.2. Howard et al., "Searching for MobileNetV3",
    https://arxiv.org/abs/1905.02244, section 4.2, where proposals are ranked by the change of accuracy for the latency
    saved, and all layers of a residual stream become narrower together.

    Args:
        model: A functional or sequential image model of one output, trained. It is not changed. Auxiliary heads are
            left out.
        data: Images; those held out for validation aren't used, except by `fine_tune`.
        resource: What to save, made by `analysis.resource` for the same model; or a function of your own from output
            channels by layer names to a number, with attributes `metric` and `unit`. Widths that the mapping doesn't
            have are those of the model.
        run_dir: Folder for the iterations, and the run folder of `fine_tune`; created if missing.
        budget: Share of the model's resource to reach, in (0, 1).
        step: Share of the model's resource that the first iteration saves, in (0, 1). One group alone must give it.
        decay: Factor by which the step falls with each iteration, in (0, 1].
        steps: Training steps for each proposal, at least 1.
        learning_rate: Learning rate of these steps, above 0.
        batch_size: Images per step.
        hold_out: Share of the training images to rank proposals by, in (0, 1). They aren't trained on, but the model
            may have been: losses rank proposals, and don't say how accurate the net will be.
        divisor: Widths are multiples of it, at least 1.
        minimum: Smallest width, at least 1. Groups that aren't wider stay as they are.
        groups: Patterns of names of the groups to search, see `channel_groups`.
        augmentation: Random changes to the images of these steps, or None.
        fine_tune: Recipe of a long training of the result, or None.
        distillation: Teacher of the long training; see `train`.
        task: What the outputs are; see `train`.
        seed: Random seed of the held-out part, the order of images and random layers.
        resume: Whether to resume the search in `run_dir`, if there is one. False overwrites it.
        progress: Whether to show progress on stderr.

    Returns:
        The narrower model, and the way to it. It is above the budget only if every group is at `minimum`.

    Raises:
        InvalidArgumentError: An argument is out of range, a pattern matches no group that can be shrunk, the model
            doesn't fit the data, the task must be said, or the search to resume began with other arguments.
        DataError: A class has fewer than two training images.
        TrainingError: A loss is no longer finite.
        CompressionError: Keras does not run on TensorFlow, the model is subclassed, or a layer's configuration does not
            make it again.
    """
    from keraslight.training import train

    _check(locals())
    model = without_auxiliary(model)
    head = _tasks.read_head(model, task)
    rows = _tasks.check_labels(head, model.outputs[0].shape, data.targets)
    _batches.check_images(np.empty((1, *data.image_shape), np.bool_), model)
    check_finite(read(model).layers())
    found = {group.name: group.size for group in Groups(read(model, opaque=True)).public if group.removable}
    names = chosen(found, groups, "`groups` must match groups that can be shrunk", list(found))
    sizes = {name: found[name] for name in names}
    keras.utils.set_random_seed(seed)
    part = data.resplit(hold_out, seed)
    plan = _Plan(
        budget=budget, step=step, decay=decay, steps=steps, learning_rate=learning_rate, batch_size=batch_size,
        hold_out=hold_out, divisor=divisor, minimum=minimum, augmentation=augmentation, seed=seed,
    )  # fmt: skip
    folder = AdaptationFolder(run_dir)
    identity = {
        "model": _fingerprint(model),
        "data": data.fingerprint(),
        "metric": resource.metric,
        "groups": names,
        "task": head.task,
        **dataclasses.asdict(plan),
    }
    done = folder.begin(identity, resume=resume)
    net = MaskedNet(model, head, names, plan.batches(part, 0), rows=rows, learning_rate=learning_rate, steps=steps)
    with ProgressBar(shown=progress) as shown:
        search = _Search(net, part, resource, sizes, plan, folder, shown)
        kept = search.run(done)
    keras.utils.set_random_seed(seed)  # a resumed search has drawn other numbers
    small = narrowed(net.model, kept)
    remember_task(small, head.task)
    if fine_tune is not None:
        small = train(
            small,
            data,
            fine_tune,
            run_dir=run_dir,
            resume=resume,
            distillation=distillation,
            task=head.task,
            progress=progress,
        ).model
    result = NetAdaptResult(
        small,
        tuple(search.rows),
        {name: (size, len(kept.get(name, range(size)))) for name, size in sizes.items()},
        resource.metric,
        resource.unit,
        search.budget,
        Path(run_dir),
        model,
    )
    folder.finish(result)
    return result


@dataclasses.dataclass(frozen=True)
class _Plan:
    """The numbers that a search is made with, see `netadapt`."""

    budget: float
    step: float
    decay: float
    steps: int
    learning_rate: float
    batch_size: int
    hold_out: float
    divisor: int
    minimum: int
    augmentation: Augmentation | None
    seed: int

    def batches(self, data: ImageData, iteration: int) -> tf.data.Dataset:
        """At least `steps` batches, the same for all proposals of an iteration."""
        epochs = math.ceil(self.steps / data.steps_per_epoch(self.batch_size))
        return data.train(self.batch_size, self.augmentation, self.seed, first_epoch=iteration * epochs, epochs=epochs)

    def narrower(self, width: int) -> range:
        """The widths below one, ascending."""
        least = -(-self.minimum // self.divisor) * self.divisor
        return range(least, width, self.divisor)


@dataclasses.dataclass(frozen=True)
class _Proposal:
    """A group, the units of it that would stay, and the resource of the whole net then."""

    group: str
    places: np.ndarray
    resource: float


class _Search:
    """The iterations of a search.

    Attributes:
        rows: The iterations so far.
        budget: The resource to reach.
    """

    def __init__(
        self,
        net: MaskedNet,
        data: ImageData,
        resource: Resource,
        sizes: dict[str, int],
        plan: _Plan,
        folder: AdaptationFolder,
        progress: ProgressBar,
    ) -> None:
        self._net, self._data, self._resource, self._sizes = net, data, resource, sizes
        self._plan, self._folder, self._progress = plan, folder, progress
        self._held_out = data.validation(_JUDGED)
        self.rows: list[NetAdaptIteration] = []
        self.budget = math.nan

    def run(self, done: int) -> Kept:
        """Runs the iterations after the first `done` ones until the budget; returns the units that stay."""
        kept: Kept = {}
        for iteration in range(done):
            row, kept, state = self._folder.load(iteration)
            self.rows.append(row)
        if not done:
            state, cost = self._net.state(), float(self._resource())
            loss, accuracy = self._net.judge(self._held_out)
            if not math.isfinite(loss):
                raise TrainingError(f"The model's loss on held-out images must be finite. Received: {loss}.")
            self._keep(NetAdaptIteration(0, "", 0, 0, cost, cost, loss, accuracy, 0, 0), kept, state)
        else:
            self._folder.save_history(self.rows)
        self.budget = self._plan.budget * self.rows[0].resource
        self._net.restore(state, kept)
        while self.rows[-1].resource > self.budget:
            taken = self._iterate(kept, state)
            if taken is None:
                self._progress.print(f"every group is at its smallest width, at {self._share(self.rows[-1].resource)}")
                break
            row, kept, state = taken
            self._net.restore(state, kept)
            self._keep(row, kept, state)
        return kept

    def _iterate(self, kept: Kept, state: list[np.ndarray]) -> tuple[NetAdaptIteration, Kept, list[np.ndarray]] | None:
        """The best proposal of an iteration; None if there is nothing to remove."""
        iteration, before = len(self.rows), self.rows[-1]
        target, halvings, proposals = self._proposals(kept)
        if not proposals:
            return None
        batches = self._plan.batches(self._data, iteration)
        best: tuple[float, _Proposal, float, float, list[np.ndarray]] | None = None
        for place, proposal in enumerate(proposals):
            self._progress.show(place, len(proposals), f"iteration {iteration}, {len(proposals)} proposals")
            self._net.restore(state, {**kept, proposal.group: proposal.places})
            self._net.train(batches)
            loss, accuracy = self._net.judge(self._held_out)
            saved = before.resource - proposal.resource
            score = (loss - before.loss) / saved if saved > 0 else loss - before.loss
            if math.isfinite(loss) and (best is None or score < best[0]):
                best = score, proposal, loss, accuracy, self._net.state()
        if best is None:
            raise TrainingError(
                "A proposal's loss on held-out images must be finite; try a smaller `learning_rate`. "
                f"Received: {len(proposals)} proposals in iteration {iteration}, none of which has one."
            )
        _, proposal, loss, accuracy, state = best
        was = len(kept.get(proposal.group, range(self._sizes[proposal.group])))
        row = NetAdaptIteration(
            iteration, proposal.group, was, len(proposal.places), target, proposal.resource, loss, accuracy,
            len(proposals), halvings,
        )  # fmt: skip
        return row, {**kept, proposal.group: proposal.places}, state

    def _proposals(self, kept: Kept) -> tuple[float, int, list[_Proposal]]:
        """The target of the next iteration, how often its step was halved, and the proposals that reach it."""
        groups, now, plan = self._net.groups(), self.rows[-1].resource, self._plan
        options: dict[str, range] = {}
        order: dict[str, np.ndarray] = {}  # the strongest units first
        for name, size in self._sizes.items():
            places = kept.get(name, np.arange(size))
            if narrower := plan.narrower(len(places)):
                options[name] = narrower
                order[name] = places[np.argsort(-groups.strength(name)[places], kind="stable")]

        def propose(widths: dict[str, int]) -> dict[str, _Proposal]:
            """For each of these groups the proposal to make it alone so narrow."""
            stay = {name: np.sort(order[name][:width]) for name, width in widths.items()}
            costs = self._costs([groups.layer_widths({**kept, name: places}) for name, places in stay.items()])
            return {name: _Proposal(name, stay[name], cost) for name, cost in zip(stay, costs, strict=True)}

        smallest = propose({name: narrower[0] for name, narrower in options.items()})
        delta, halvings = plan.step * self.rows[0].resource * plan.decay ** (len(self.rows) - 1), 0
        delta = min(delta, now - self.budget)
        target = max(self.budget, now - delta)
        if not any(proposal.resource < now for proposal in smallest.values()):
            # As measured latencies may say: nothing is saved by one group alone, but perhaps by several.
            return target, 0, list(propose({name: narrower[-1] for name, narrower in options.items()}).values())
        while not any(proposal.resource <= target for proposal in smallest.values()):
            delta, halvings = delta / 2, halvings + 1
            target = max(self.budget, now - delta)
        if halvings:
            self._progress.print(
                f"iteration {len(self.rows)}: no group alone can give the step, which is now "
                f"{delta / self.rows[0].resource:.2%}"
            )
        reach = {name: proposal for name, proposal in smallest.items() if proposal.resource <= target}
        return target, halvings, _widest(reach, options, propose, target)

    def _costs(self, choices: list[dict[str, int]]) -> list[float]:
        """The resource of each choice of widths; latencies are measured together where they can be."""
        many = getattr(self._resource, "many", None)
        return [float(cost) for cost in (map(self._resource, choices) if many is None else many(choices))]

    def _keep(self, row: NetAdaptIteration, kept: Kept, state: list[np.ndarray]) -> None:
        self.rows.append(row)
        self._folder.save(row, kept, state)
        self._folder.save_history(self.rows)
        change = f"{row.group} {row.was} -> {row.now}  " if row.group else ""
        self._progress.print(
            f"iteration {row.iteration}  {change}{self._share(row.resource)}  loss {row.loss:.4f}  "
            f"accuracy {row.accuracy:.2%}"
        )

    def _share(self, resource: float) -> str:
        return f"{resource / self.rows[0].resource:.1%} of {self._resource.metric}"


def _widest(
    smallest: dict[str, _Proposal],
    options: dict[str, range],
    propose: Callable[[dict[str, int]], dict[str, _Proposal]],
    target: float,
) -> list[_Proposal]:
    """The proposals of the greatest widths that reach the target, as the smallest ones do; all groups in step."""
    best, low, high = dict(smallest), dict.fromkeys(smallest, 0), {name: len(options[name]) for name in smallest}
    while middle := {name: (low[name] + high[name]) // 2 for name in best if high[name] - low[name] > 1}:
        for name, proposal in propose({name: options[name][place] for name, place in middle.items()}).items():
            if proposal.resource <= target:
                best[name], low[name] = proposal, middle[name]
            else:
                high[name] = middle[name]
    return list(best.values())


def _fingerprint(model: keras.Model) -> str:
    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(f"{weight.path} {tuple(weight.shape)}".encode())
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def _check(given: dict[str, Any]) -> None:
    """Raises unless the arguments of `netadapt` are in their ranges."""
    from keraslight.training import ImageData

    if keras.backend.backend() != "tensorflow":
        raise CompressionError(
            f"`netadapt` needs Keras' TensorFlow backend. Received: backend={keras.backend.backend()!r}."
        )
    if not isinstance(given["data"], ImageData):
        raise InvalidArgumentError(
            "`data` must be an ImageData: wrap arrays with `ImageData.from_arrays`, read files with `load_directory`. "
            f"Received: {type(given['data']).__name__}."
        )
    resource = given["resource"]
    if not callable(resource) or not all(hasattr(resource, name) for name in ("metric", "unit")):
        raise InvalidArgumentError(
            "`resource` must be what `analysis.resource(model, metric)` returns, or a function with attributes "
            f"`metric` and `unit`. Received: {resource!r}."
        )
    for names, rule, kinds, fits in _RANGES:
        for name in names:
            value = given[name]
            if isinstance(value, bool) or not isinstance(value, kinds) or not fits(value):
                raise InvalidArgumentError(f"`{name}` must be {rule}. Received: {value!r}.")
    if given["distillation"] is not None and given["fine_tune"] is None:
        raise InvalidArgumentError("`distillation` needs `fine_tune`, the recipe to use it in. Received: None.")


_RANGES: tuple[tuple[tuple[str, ...], str, Any, Callable[[float], bool]], ...] = (
    (("budget", "step", "hold_out"), "above 0 and below 1", int | float, lambda x: 0 < x < 1),
    (("decay",), "above 0 and at most 1", int | float, lambda x: 0 < x <= 1),
    (("learning_rate",), "a number above 0", int | float, lambda x: 0 < x < math.inf),
    (("steps", "batch_size", "divisor", "minimum"), "a whole number of at least 1", int, lambda x: x >= 1),
)
