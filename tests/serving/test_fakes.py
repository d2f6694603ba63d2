"""The fakes of keraslight_serving.server.testing behave like what they stand in for."""

import numpy as np
import pytest
from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import StatusError
from keraslight_serving.server.models.config import ModelConfig, VersionPolicy
from keraslight_serving.server.testing import FakeEngine, FakeRepository, FakeServable

from tests.serving.helpers import refused, served, spec

LABELS = {"stable": 1}


@pytest.fixture
def fake(tmp_path):
    versions = {number: FakeServable(tmp_path / "a" / str(number)) for number in (1, 2)}
    return FakeRepository({"a": versions}, {"a": LABELS})


@pytest.fixture
def real(folders, repository):
    return repository(ModelConfig("a", folders("a", 1, 2), VersionPolicy(most=None), LABELS))


@pytest.mark.parametrize("choice", [{}, {"version": 1}, {"version": 2}, {"label": "stable"}], ids=repr)
def test_a_fake_repository_finds_the_same_versions(fake, real, choice):
    assert served(fake, **choice) == served(real, **choice)


@pytest.mark.parametrize(
    "choice", [{"name": "b"}, {"version": 3}, {"label": "beta"}, {"name": "b", "label": "x"}], ids=repr
)
def test_a_fake_repository_raises_the_same_errors(fake, real, choice):
    assert refused(fake.acquire, spec(**choice)) == refused(real.acquire, spec(**choice))


@pytest.mark.parametrize("choice", [{}, {"version": 1}], ids=repr)
def test_a_fake_repository_has_the_same_states(fake, real, choice):
    assert fake.status(spec(**choice)) == real.status(spec(**choice))
    assert fake.statuses() == real.statuses()


def test_a_fake_repository_notes_reloads(fake):
    fake.reload([], Call())
    assert fake.reloads == [[]]
    assert fake.logging("a") is None


def test_a_fake_engine_computes_with_a_function():
    engine = FakeEngine(lambda inputs: {"double": 2 * inputs["x"], "unused": inputs["x"]})
    found = engine.run("serving_default", {"x": np.arange(3)}, ["double"], Call())
    assert {name: array.tolist() for name, array in found.items()} == {"double": [0, 2, 4]}
    assert engine.ran == ["serving_default"]


def test_a_fake_engine_runs_no_call_that_is_over():
    engine = FakeEngine(lambda inputs: {})
    with pytest.raises(StatusError, match="The caller is gone"):
        engine.run("serving_default", {}, [], Call(is_active=lambda: False))
    assert engine.ran == []
