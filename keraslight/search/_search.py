"""`search`: trials, one after another, on a study that other processes may share."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import optuna
from optuna.trial import BaseTrial, Trial, TrialState

from keraslight._files import write_file
from keraslight.errors import InvalidArgumentError, TrainingError
from keraslight.search._measure import COLUMN, Meter, judge
from keraslight.search._nets import Nets
from keraslight.search._progress import SearchProgress
from keraslight.search._results import Candidate, SearchResult, objective
from keraslight.search._study import PLOT, SAMPLERS, Study
from keraslight.search.spaces import RowSpace
from keraslight.training import ImageData, Recipe, train

_LIMIT = 2.0  # times the target, above which nets aren't trained: the target's penalty is far too small for them
CODE = "model.py"
_STATE = "last.npz"  # of a training run: it only serves to resume it


def search(
    space: RowSpace | Callable[[BaseTrial], keras.Model],
    data: ImageData,
    recipe: Recipe,
    *,
    run_dir: str | os.PathLike[str],
    trials: int = 60,
    metric: str = "latency",
    target: float | None = None,
    exponent: float = 0.07,
    limit: float | None = None,
    sampler: str = "tpe",
    int8: bool = False,
    threads: int = 1,
    hold_out: float = 0.2,
    task: str | None = None,
    seed: int = 0,
    resume: bool = True,
    progress: bool = True,
) -> SearchResult:
    """Searches for nets that are accurate and cheap.

    Each trial builds a net, measures its cost, stops if that is above `limit`, trains the net with `recipe` and takes
    its loss on images held out of the training part. The images that `data` itself holds out take no part: keep them
    for `retrain`. Every trial begins with the same seed of the recipe, so that trials differ in their nets only.

    Without a target the search minimizes loss and cost together, and finds a front. With one it minimizes
    `loss * (cost / target)^exponent`, MnasNet's soft constraint: with 0.07, doubling the cost has to lower the loss by
    5%.

    Several processes, also of several machines, may call `search` with the same arguments and a `run_dir` that they
    share, at any time: they work on the same trials. A process may be killed at any moment: its trial is run again by
    another one or by the next call, so that none is lost or run twice. Called once more, `search` returns what was
    found, or adds trials if there are to be more.

    With one process, the same arguments give the same trials, interrupted or not, if `metric` isn't measured. A latency
    differs from run to run, and so do later draws of samplers that learn from it.

    Source: Tan et al., "MnasNet", https://arxiv.org/abs/1807.11626, equation 2; Ozaki et al., "Multiobjective
    tree-structured Parzen estimator", https://jair.org/index.php/jair/article/view/13188.

    Args:
        space: What to search: `MobileNetV3Space`, `MobileNetV4Space`, or a function that takes an Optuna trial and
            returns a `keras.Model` of raw pixels. Such a function may raise `optuna.TrialPruned` for choices that make
            no net.
        data: Labeled images.
        recipe: Hyperparameters of each trial's training, usually a few epochs: `recipe.shortened(3)`.
        run_dir: Folder for the journal of the trials, the front and a run folder per trained trial; created if missing.
        trials: Number of trials in all, at least 1, of all calls and processes together.
        metric: Cost of a net: `"latency"`, LiteRT's median milliseconds for one image on this machine; `"macs"` or
            `"parameters"`.
        target: Cost to aim at, in the metric's unit, above 0; None searches for the front.
        exponent: Exponent of the cost with a target, above 0. The authors of MobileNetV3-Small used 0.15.
        limit: Cost above which nets aren't trained, above 0. None: twice the target; without a target there is none.
        sampler: `"tpe"` (multi-objective tree-structured Parzen estimator), `"nsga2"` (evolution) or `"random"`. The
            first 12 trials are always random.
        int8: Whether to measure the latency of an int8 file rather than a float32 one.
        threads: Threads of LiteRT, at least 1.
        hold_out: Share of each class of the training part to judge trials by, in (0, 1).
        task: As in `train`.
        seed: Seed of the sampler and of the choice of held-out images, at least 0.
        resume: Whether to continue the search in `run_dir`, if there is one. False overwrites it.
        progress: Whether to show progress on stderr: a bar on a terminal, otherwise one line per trial.

    Returns:
        All trials and the front; also written to front.csv, after each trial, and front.png.

    Raises:
        InvalidArgumentError: An argument is out of range, a model doesn't fit the data, or the search to resume began
            with other arguments.
        DataError: A class has fewer than two training images.
        ExportError: A model can't be converted to LiteRT.
    """
    if trials < 1 or seed < 0:
        raise InvalidArgumentError(
            f"`trials` must be at least 1, and `seed` at least 0. Received: trials={trials}, seed={seed}."
        )
    if not 0 < hold_out < 1:
        raise InvalidArgumentError(f"`hold_out` must be in (0, 1). Received: hold_out={hold_out}.")
    if sampler not in SAMPLERS:
        raise InvalidArgumentError(f"`sampler` must be one of {SAMPLERS}. Received: {sampler!r}.")
    for name, value in (("target", target), ("limit", limit), ("exponent", exponent)):
        if value is not None and not value > 0:
            raise InvalidArgumentError(f"`{name}` must be above 0. Received: {name}={value}.")
    if not isinstance(data, ImageData):
        raise InvalidArgumentError(f"`data` must be an ImageData. Received: {type(data).__name__}.")
    meter, nets, folder = Meter(metric, int8, threads), Nets.of(space, data, task), Path(run_dir)
    limit = _LIMIT * target if limit is None and target is not None else limit
    inner = data.resplit(hold_out, seed)
    identity = {
        "space": nets.identity(),
        "data": inner.fingerprint(),
        "recipe": recipe.identity(),
        **{"metric": metric, "int8": int8, "threads": threads, "target": target, "exponent": exponent},
        **{"limit": limit, "sampler": sampler, "task": task, "seed": seed},
    }
    study = Study(folder, identity, 2 if target is None else 1, sampler, seed, resume=resume)

    candidates: dict[int, Candidate] = {}

    def saved() -> SearchResult:
        with study.alone():  # an older result must not replace a newer one
            for trial in study.finished():
                if trial.number not in candidates:
                    candidates[trial.number] = Candidate.of(trial, nets)
            ordered = tuple(candidates[number] for number in sorted(candidates))
            result = SearchResult.of(ordered, meter, nets, target, exponent, folder)
            result.save()
        return result

    with study.working(), _many_graphs(), SearchProgress(trials, len(study.finished()), shown=progress) as bar:
        for trial in study.claim(trials):
            bar.begin(trial.number)
            _run(trial, study, nets, meter, inner, recipe, limit, target, exponent)
            keras.backend.clear_session()  # otherwise memory grows by the graphs of each trial
            bar.finished(saved(), trial.number)
    found = saved()
    if found.front:
        found.plot(folder / PLOT)
    return found


@contextlib.contextmanager
def _many_graphs() -> Iterator[None]:
    """Without TensorFlow's warnings that each net's training step is traced: each is another net."""

    def other(record: logging.LogRecord) -> bool:
        return "triggered tf.function retracing" not in record.getMessage()

    logger = logging.getLogger("tensorflow")
    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)


def _run(
    trial: Trial,
    study: Study,
    nets: Nets,
    meter: Meter,
    data: ImageData,
    recipe: Recipe,
    limit: float | None,
    target: float | None,
    exponent: float,
) -> None:
    """Runs one trial. An error that no net is to blame for leaves it to the next call, as a kill would."""
    began = time.perf_counter()
    record: dict[str, Any] = {}

    def finish(values: list[float] | None, state: TrialState) -> None:
        record["seconds"] = time.perf_counter() - began
        study.finish(trial, record, values, state)

    keras.utils.set_random_seed(recipe.seed)
    try:
        model = nets.build(trial)
    except optuna.TrialPruned as error:
        record["stopped"] = str(error) or "not built"
        finish(None, TrialState.PRUNED)
        return
    record |= meter.costs(model, data)
    cost = record[COLUMN[meter.metric]]
    if limit is not None and cost > limit:
        record["stopped"] = f"{meter.metric} of {cost:.4g} above {limit:.4g}"
        finish(None, TrialState.PRUNED)
        return
    folder = study.trial_folder(trial.number)
    try:
        trained = train(model, data, recipe, run_dir=folder, task=nets.task, progress=False)
    except TrainingError as error:
        record["stopped"] = str(error)
        finish(None, TrialState.FAIL)
        return
    loss, record["accuracy"] = judge(trained.model, data, nets.task)
    if not math.isfinite(loss):
        record["stopped"] = f"loss of {loss} on held-out images"
        finish(None, TrialState.FAIL)
        return
    record["loss"] = loss
    code = nets.code(trial)
    if code:
        write_file(folder / CODE, code)
    finish([loss, cost] if target is None else [objective(loss, cost, target, exponent)], TrialState.COMPLETE)
    (folder / _STATE).unlink(missing_ok=True)
