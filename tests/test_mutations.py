"""`make mutate` must be able to make all of its mutations."""

from tests.mutate import problems
from tests.mutations import MUTATIONS


def test_every_mutation_can_be_made():
    assert problems() == []
    assert len(set(MUTATIONS)) == len(MUTATIONS)
