"""Fixtures that several test folders share."""

import gc
import os

# TensorFlow enables oneDNN by default only on CPUs with AVX-512 VNNI or AMX. The tests compare its kernels everywhere.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
import pytest

from keraslight.export._memory import return_free_memory

# Files with few but long tests. Begun last, they would leave the other worker without work.
LONG = ("test_demo.py", "test_digits_matrix.py", "test_readme.py", "test_registry_sweep.py", "test_golden.py")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(autouse=True)
def _free_models():
    """Gives a test's graph and layer names back."""
    yield
    keras.backend.clear_session(free_memory=False)


@pytest.fixture(autouse=True, scope="module")
def _return_memory():
    """Frees what the modules before left, so that the sweeps stay small.

    Here rather than after a module, whose last test still holds its fixtures then. What outlives its module (TensorFlow
    keeps much of what it has traced) is not looked at again: late in a run each collection would take ten seconds.
    """
    return_free_memory()
    gc.freeze()
