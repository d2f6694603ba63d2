"""Fixtures that several test folders share."""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

# TensorFlow enables oneDNN by default only on CPUs with AVX-512 VNNI or AMX. The tests compare its kernels everywhere.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# Two workers share two cores, and the nets are small: a step with one thread costs a third less than with two.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
# oneDNN's own allocator never returns memory: after one AlexNet or VGG-11 it keeps more than a gigabyte for good.
os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")

import keras
import numpy as np
import psutil
import pytest

from keraslight.export._memory import return_free_memory

# Files with few but long tests. Begun last, they would leave the other worker without work.
LONG = (
    *("test_demo.py", "test_digits_matrix.py", "test_readme.py", "test_registry_sweep.py", "test_golden.py"),
    *("test_loader.py", "test_vocabulary.py", "test_distributed.py"),
)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


# MediaPipe Tasks lives in an environment of its own.
SCRIPT = Path(__file__).parent / "export" / "mediapipe_classify.py"
PYTHON = Path(sys.prefix, "mediapipe", "bin", "python")


@pytest.fixture(scope="session")
def mediapipe_classify(tmp_path_factory):
    """A function (file, uint8 images (N, H, W, 3)) -> the best five [label, score] of each image, best first."""

    def classify(file, images):
        if not PYTHON.exists():
            pytest.fail(f"MediaPipe is missing: {PYTHON}. `make test` sets it up.")
        archive = tmp_path_factory.mktemp("images") / "images.npz"
        np.savez(archive, images=images)
        done = subprocess.run([PYTHON, SCRIPT, file, archive], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(answers) == len(images)
        return answers

    return classify


@pytest.fixture(autouse=True)
def _free_models():
    """Gives a test's graph and layer names back."""
    yield
    keras.backend.clear_session(free_memory=False)


PROCESS = psutil.Process()
GROWTH = 400 * 2**20  # bytes
_collected = [0]  # bytes that were left by the last collection
_thawed = [0]  # the same of the last one that looked at everything


def _collect():
    thaw = PROCESS.memory_info().rss > _thawed[0] + 2 * GROWTH
    if thaw:
        gc.unfreeze()
    return_free_memory()
    _collected[:] = [PROCESS.memory_info().rss]
    if thaw:
        _thawed[:] = _collected


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown():
    """Collects garbage after a test that left much of it.

    A model is full of reference cycles. Python decides by the number of objects when to look for those, and the largest
    nets have no more objects than others.
    """
    result = yield
    if PROCESS.memory_info().rss > _collected[0] + GROWTH:
        _collect()
    return result


@pytest.fixture(autouse=True, scope="module")
def _return_memory():
    """Frees what the modules before left, so that the sweeps stay small.

    Here rather than after a module, whose last test still holds its fixtures then. What outlives its module (TensorFlow
    keeps much of what it has traced) is not looked at again until much has accumulated: late in a run each collection
    would take ten seconds.
    """
    _collect()
    gc.freeze()
