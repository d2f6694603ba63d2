"""Trials in a journal: processes come and go, and no trial is lost or run twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from optuna.trial import TrialState

from keraslight.errors import InvalidArgumentError
from keraslight.search._study import JOURNAL, SAMPLERS, Study

IDENTITY = {"space": "here", "limits": (1, 2)}


def opened(folder, sampler="random", objectives=2, resume=True, identity=None):
    return Study(folder, identity or IDENTITY, objectives, sampler, seed=0, resume=resume)


def choose(trial):
    return [trial.suggest_int(f"x{n}", 8, 64, step=8) for n in range(3)] + [trial.suggest_categorical("k", (3, 5))]


def finish(study, trial, choices):
    values = [sum(choices) / 100, 1 / sum(choices)]
    study.finish(trial, {}, values, TrialState.COMPLETE)


def run(folder, sampler, total, interrupted_at=()):
    """Runs trials, and stops in the middle of those of the given numbers once each, as a killed process would."""
    done, stops = [], set(interrupted_at)
    while True:
        study = opened(folder, sampler)
        with study.working():
            for trial in study.claim(total):
                choices = choose(trial)
                if trial.number in stops:
                    stops.remove(trial.number)
                    break
                finish(study, trial, choices)
                done.append((trial.number, choices))
            else:
                return done


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_interrupted_study_makes_the_same_trials(sampler, tmp_path):
    whole = run(tmp_path / "whole", sampler, 16)
    assert [number for number, _ in whole] == list(range(16))
    assert run(tmp_path / "parts", sampler, 16, interrupted_at=(0, 5, 13)) == whole
    assert len({str(choices) for _, choices in whole}) > 12


def test_a_trial_is_taken_from_dead_processes_only(tmp_path):
    living, dead, other = opened(tmp_path), opened(tmp_path), opened(tmp_path)
    with living.working(), other.working():
        first = next(living.claim(3))
        choices = choose(first)
        with dead.working():
            second = next(dead.claim(3))
            begun = choose(second)[:2]
        claims = other.claim(3)
        taken = next(claims)
        assert (first.number, second.number, taken.number) == (0, 1, 1)
        assert choose(taken)[:2] == begun
        finish(other, taken, choose(taken))
        last = next(claims)
        assert last.number == 2
        finish(other, last, choose(last))
        finish(living, first, choices)
        assert list(claims) == []
    assert [trial.state for trial in other.trials()] == 3 * [TrialState.COMPLETE]
    assert [trial.number for trial in other.finished()] == [0, 1, 2]


def test_a_study_can_be_enlarged_and_not_changed(tmp_path):
    assert len(run(tmp_path, "random", 2)) == 2
    assert [number for number, _ in run(tmp_path, "random", 3)] == [2]
    with pytest.raises(
        InvalidArgumentError, match=f"`resume=False`.* Received: {tmp_path}, with other values of space"
    ):
        opened(tmp_path, identity={"space": "there", "limits": (1, 2)})
    assert len(opened(tmp_path).trials()) == 3
    study = opened(tmp_path, resume=False, identity={"space": "there"})
    assert study.trials() == []


def test_a_study_in_use_is_not_removed(tmp_path):
    study = opened(tmp_path)
    with study.working():
        next(study.claim(1))
        with pytest.raises(InvalidArgumentError, match="`resume` may only be False while no process works"):
            opened(tmp_path, resume=False)
    assert len(opened(tmp_path).trials()) == 1


def test_a_torn_line_is_dropped(tmp_path):
    run(tmp_path, "random", 2)
    with (tmp_path / JOURNAL).open("a") as file:
        file.write('{"op_code":')
    assert [number for number, _ in run(tmp_path, "random", 3)] == [2]


# Loads the module without its package, whose imports take many times as long as the test.
WORKER = """
import sys, time, types
package = types.ModuleType("keraslight.search")
package.__path__ = [sys.argv[1]]
sys.modules["keraslight.search"] = package
from pathlib import Path
from optuna.trial import TrialState
from keraslight.search._study import Study
study = Study(Path(sys.argv[2]), {"space": "here"}, 1, "tpe", 0, resume=True)
with study.working():
    for trial in study.claim(14):
        x = trial.suggest_int("x", 0, 1000)
        print(trial.number, x, flush=True)
        time.sleep(float(sys.argv[3]))
        study.finish(trial, {}, [x], TrialState.COMPLETE)
        print("done", trial.number, flush=True)
"""


def test_killed_processes_lose_no_trial(tmp_path):
    import keraslight.search

    (package,) = keraslight.search.__path__
    started = []

    def start(seconds):
        command = [sys.executable, "-c", WORKER, package, str(tmp_path / "study"), str(seconds)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return started[-1]

    stuck, steady = start(1000), start(0.05)
    stuck_number, stuck_choice = map(int, stuck.stdout.readline().split())
    time.sleep(0.2)
    os.kill(stuck.pid, signal.SIGKILL)
    stuck.wait()
    out, _ = steady.communicate(timeout=120)
    stuck.stdout.close()
    assert steady.returncode == 0
    lines = [line.split() for line in out.splitlines()]
    finished = Counter(int(words[1]) for words in lines if words[0] == "done")
    assert finished == Counter(range(14))
    begun = {int(words[0]): int(words[1]) for words in lines if words[0] != "done"}
    assert begun[stuck_number] == stuck_choice
    journal = [json.loads(line) for line in (tmp_path / "study" / JOURNAL).read_text().splitlines()]
    assert sum(entry.get("values") is not None for entry in journal) == 14
