"""Fixtures that several test folders share."""

import gc
import os

# TensorFlow enables oneDNN by default only on CPUs with AVX-512 VNNI or AMX. The tests compare its kernels everywhere.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
import pytest

from keraslight.export._memory import return_free_memory


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
