"""Fixtures that several test folders share."""

import gc

import keras
import pytest


@pytest.fixture(autouse=True)
def _free_models():
    """Gives a test's graphs and layer names back, so that the sweep stays small."""
    yield
    keras.backend.clear_session()
    gc.collect()
