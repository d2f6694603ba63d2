"""The trials of a search: an Optuna study in a journal, which any number of processes share and any may leave.

A trial must neither be lost with the process that ran it nor run twice. So that its death is seen at once, a process
holds a lock on a file of its own for as long as it lives, and writes the file's name into each trial that it claims.
Claims are made one at a time, under another lock. A trial that is running for a process whose lock is free is claimed
again, with the choices that it has. The operating system releases the locks of a process that is killed.

A sampler starts afresh for each trial, with a seed from the search's and the trial's number, so that its draws don't
depend on how often the search was interrupted.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock, Timeout
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from keraslight.errors import InvalidArgumentError

JOURNAL, TRIALS, FRONT, PLOT = "trials.journal", "trials", "front.csv", "front.png"
RETRAINED, COMPARISON = "retrained", "retrained.csv"  # a folder and a file, of `retrain`
START_OVER = "pass another `run_dir` or `resume=False`, which overwrites the search"
SAMPLERS = ("tpe", "nsga2", "random")

_WORKERS = "workers"
_WORKER, RECORD, _IDENTITY = "worker", "record", "identity"  # attributes of trials, and of the study
_STUDY = "search"
# Of about 20 choices, the first trials must be random; with 60 trials, most must not be.
_RANDOM_TRIALS, _POPULATION = 12, 12
_POLL_SECONDS = 0.5


class Study:
    """The study in a folder.

    Args:
        folder: The search's run folder; created if missing.
        identity: What processes and calls must share to work on one study, JSON-serializable.
        objectives: Number of values that are minimized.
        sampler: One of `SAMPLERS`.
        seed: Seed of the sampler.
        resume: Whether to continue what is there; False removes it.

    Raises:
        InvalidArgumentError: The study began with another identity, or is to be removed while a process works on it.
    """

    def __init__(
        self, folder: Path, identity: dict[str, Any], objectives: int, sampler: str, seed: int, *, resume: bool
    ) -> None:
        self.folder, self._sampler, self._seed = folder, sampler, seed
        (folder / _WORKERS).mkdir(parents=True, exist_ok=True)
        self._claims = FileLock(folder / ".claims.lock")
        self._worker = uuid.uuid4().hex
        journal = folder / JOURNAL
        with self._claims, _quiet():
            if not resume:
                self._remove()
            with _JournalLock(journal).held():
                _drop_torn_line(journal)
            # Optuna doesn't export the base class of its locks.
            backend = JournalFileBackend(str(journal), lock_obj=_JournalLock(journal))  # type: ignore[arg-type]
            storage = JournalStorage(backend)
            self._study = optuna.create_study(
                study_name=_STUDY, storage=storage, directions=["minimize"] * objectives, load_if_exists=True
            )
            began = self._study.user_attrs.get(_IDENTITY)
            identity = json.loads(json.dumps(identity))
            if began is None:
                self._study.set_user_attr(_IDENTITY, identity)
            elif began != identity:
                changed = [name for name in identity if began.get(name) != identity[name]]
                raise InvalidArgumentError(
                    "A search can only be resumed with the arguments that it began with, except for the number of "
                    f"trials. To start over, {START_OVER}. Received: {folder}, with other values of "
                    f"{', '.join(changed)}."
                )

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Within this block, the process may claim trials."""
        file = self._lock_file(self._worker)
        try:
            with FileLock(file):
                yield
        finally:
            file.unlink(missing_ok=True)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Within this block, no other process claims a trial or is in such a block."""
        with self._claims:
            yield

    def claim(self, total: int) -> Iterator[Trial]:
        """Yields trials to run until `total` are finished, waiting for those that other processes run."""
        while True:
            with self._claims:
                trial = self._next(total)
            if trial is not None:
                yield trial
            elif any(trial.state == TrialState.RUNNING for trial in self.trials()):
                time.sleep(_POLL_SECONDS)
            else:
                return

    def finish(self, trial: Trial, record: dict[str, Any], values: list[float] | None, state: TrialState) -> None:
        """Writes what a trial found."""
        trial.set_user_attr(RECORD, record)
        self._study.tell(trial, values, state)

    def trials(self) -> list[FrozenTrial]:
        """All trials, by number."""
        return self._study.get_trials(deepcopy=False)

    def finished(self) -> list[FrozenTrial]:
        """The finished trials, by number."""
        return [trial for trial in self.trials() if trial.state.is_finished()]

    def trial_folder(self, number: int) -> Path:
        """The run folder of a trial's training."""
        return self.folder / TRIALS / f"{number:04d}"

    def _next(self, total: int) -> Trial | None:
        trials = self.trials()
        for frozen in trials:
            # Under the lock, a trial without a worker belongs to a process that died before it had written its own.
            worker = frozen.user_attrs.get(_WORKER)
            if frozen.state == TrialState.RUNNING and (worker is None or not self._lives(worker)):
                self._study.sampler = self._seeded(frozen.number)
                trial = Trial(self._study, frozen._trial_id)
                break
        else:
            if len(trials) >= total:
                return None
            self._study.sampler = self._seeded(len(trials))
            trial = self._study.ask()
        trial.set_user_attr(_WORKER, self._worker)
        return trial

    def _seeded(self, number: int) -> optuna.samplers.BaseSampler:
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        match self._sampler:
            case "tpe":
                with _quiet():
                    return optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=_RANDOM_TRIALS)
            case "nsga2":
                return optuna.samplers.NSGAIISampler(seed=seed, population_size=_POPULATION)
        return optuna.samplers.RandomSampler(seed=seed)

    def _lock_file(self, worker: str) -> Path:
        return self.folder / _WORKERS / f"{worker}.lock"

    def _lives(self, worker: str) -> bool:
        """Whether another process, or this one, works under that name."""
        file = self._lock_file(worker)
        if not file.exists():
            return False
        try:
            with FileLock(file, timeout=0):
                pass
        except Timeout:
            return True
        file.unlink(missing_ok=True)
        return False

    def _remove(self) -> None:
        if any(self._lives(file.stem) for file in (self.folder / _WORKERS).glob("*.lock")):
            raise InvalidArgumentError(
                "`resume` may only be False while no process works on the search. "
                f"Received: resume=False, and {self.folder} is in use."
            )
        for name in (JOURNAL, FRONT, PLOT, COMPARISON):
            (self.folder / name).unlink(missing_ok=True)
        for name in (TRIALS, RETRAINED):  # of other nets with the same numbers
            shutil.rmtree(self.folder / name, ignore_errors=True)


class _JournalLock:
    """Optuna's lock of a journal, as a lock that a killed process doesn't keep; Optuna's own holds for 30 seconds."""

    def __init__(self, journal: Path) -> None:
        self._lock = FileLock(journal.with_name(f".{journal.name}.lock"))

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        with self._lock:
            yield


def _drop_torn_line(journal: Path) -> None:
    """Removes what a process that was killed while it wrote has left of a line; no journal could be read with it."""
    if not journal.exists():
        return
    with journal.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        end = size
        while end:
            file.seek(end - 1)
            if file.read(1) == b"\n":
                break
            end -= 1
        if end < size:
            file.truncate(end)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's lines of level INFO about studies."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
