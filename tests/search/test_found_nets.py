"""Found nets are ordinary models: fused, trained in int8, exported and served; and searches survive kills."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from keraslight_serving.testing import serve_in_process
from optuna.trial import FixedTrial

from keraslight import compress
from keraslight.export import save_servable
from keraslight.search import MobileNetV3Space, MobileNetV4Space
from keraslight.search._nets import Nets
from keraslight.search._study import JOURNAL
from keraslight.training import DIGITS_PREPROCESSING, load_digits

SPACES = (
    (
        MobileNetV3Space(stages=((8, 16), (16, 24)), depth=(1, 2), head=((32, 32), (32, 32))),
        {
            "stem": 16,
            "stage0_channels": 16,
            "stage0_depth": 1,
            "stage0_kernel": 3,
            "stage0_expansion": 2,
            "stage0_squeeze": True,
            "stage0_activation": "hard_silu",
            "stage1_channels": 24,
            "stage1_depth": 2,
            "stage1_kernel": 5,
            "stage1_expansion": 3,
            "stage1_squeeze": False,
            "stage1_activation": "relu",
            "head0": 32,
            "head1": 32,
            "activation": "hard_silu",
        },
    ),
    (
        MobileNetV4Space(stages=((8, 16), (16, 24)), depth=(1, 2), head=((32, 32), (32, 32))),
        {
            "stem": 16,
            "stage0_channels": 16,
            "stage0_depth": 1,
            "stage0_start": 0,
            "stage0_middle": 0,
            "stage0_expansion": 2,
            "stage0_fused": True,
            "stage1_channels": 24,
            "stage1_depth": 2,
            "stage1_start": 3,
            "stage1_middle": 5,
            "stage1_expansion": 3,
            "head0": 32,
            "head1": 32,
        },
    ),
)


@pytest.mark.slow
@pytest.mark.parametrize(("space", "choices"), SPACES, ids=["mobilenet_v3", "mobilenet_v4"])
def test_a_found_net_is_pruned_quantized_and_served(space, choices, tmp_path):
    data = load_digits(DIGITS_PREPROCESSING.replace(size=(32, 32)))
    keras.utils.set_random_seed(0)
    model = Nets.of(space, data, None).build(FixedTrial(choices))
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    model.fit(data.train(32, epochs=6), epochs=6, steps_per_epoch=data.steps_per_epoch(32), shuffle=False, verbose=0)
    images, targets = data.validation_arrays()
    pixels = images.astype("float32")

    def accuracy(net):
        return float((np.asarray(net.predict(pixels, verbose=0)).argmax(-1) == targets).mean())

    exact = accuracy(model)
    assert exact > 0.9
    fused = compress.fuse(model)
    np.testing.assert_allclose(fused.predict(pixels[:64], verbose=0), model.predict(pixels[:64], verbose=0), atol=1e-4)
    pruned = compress.prune(model, data.train(32), sparsity=0.3, epochs=1, verbose=0)
    assert compress.sparsity(pruned).total > 0.25
    quantized = compress.train_quantized(pruned, data.train(32), epochs=2, verbose=0)
    assert accuracy(quantized) > exact - 0.05
    version = save_servable(quantized, tmp_path / "found", labels=data.labels)
    with serve_in_process(version) as client:
        answers = client.predict({"images": pixels[:64]})["probabilities"]
    assert (answers.argmax(-1) == targets[:64]).mean() > 0.85


COMMAND = "from keraslight.cli import main; main()"


@pytest.mark.slow
def test_killed_and_helped_the_command_finishes_every_trial_once(tmp_path):
    folder = tmp_path / "search"
    arguments = ["search", "mobilenet_v3", "--data", "digits", "--size", "32", "--epochs", "1", "--batch-size", "256"]
    arguments += ["--metric", "parameters", "--trials", "5", "--to", str(folder)]
    run = [sys.executable, "-c", f"import sys; sys.argv[:1] = ['keraslight']; {COMMAND}", *arguments]

    def finished():
        journal = folder / JOURNAL
        lines = journal.read_text().splitlines() if journal.exists() else []
        return sum(json.loads(line).get("values") is not None for line in lines)

    with subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as killed:
        began = time.monotonic()
        while finished() < 1 and time.monotonic() - began < 300:
            time.sleep(0.5)
        time.sleep(2)  # into the next trial
        os.kill(killed.pid, signal.SIGKILL)
    before = finished()
    assert 1 <= before < 5
    helpers = [subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for helper in helpers:
        out, errors = helper.communicate(timeout=600)
        assert helper.returncode == 0, errors[-2000:]
        assert "5 nets trained, 0 stopped before." in out
    assert finished() == 5
    assert sorted(path.name for path in (folder / "trials").iterdir()) == [f"{number:04d}" for number in range(5)]
    assert all((path / "best.keras").is_file() for path in Path(folder, "trials").iterdir())
    assert not list((folder / "workers").iterdir())
