import numpy as np
import pytest

import keraslight
from keraslight.errors import InvalidArgumentError
from keraslight.labels import imagenet_labels


def test_imagenet_labels():
    labels = imagenet_labels()
    assert len(labels) == 1000
    assert (labels[0], labels[281], labels[817], labels[999]) == ("tench", "tabby", "sports car", "toilet tissue")
    assert all(labels)


def test_decode_predictions_ranks_by_score():
    scores = np.zeros((2, 1000))
    scores[0, [281, 817]] = 0.3, 0.6
    scores[1, 0] = 1
    first, second = keraslight.decode_predictions(scores, top=2)
    assert first == [("sports car", 0.6, 817), ("tabby", 0.3, 281)]
    assert second[0] == ("tench", 1.0, 0)


def test_one_image_and_ones_own_labels():
    ((best, _),) = keraslight.decode_predictions(np.array([0.2, 0.8]), labels=["cat", "dog"])
    assert best == ("dog", 0.8, 1)


def test_bad_shapes():
    with pytest.raises(
        InvalidArgumentError, match=r"must be \(images, 1000\), one column per label. Received: shape \(2, 10\)"
    ):
        keraslight.decode_predictions(np.zeros((2, 10)))
    with pytest.raises(InvalidArgumentError, match="`top` must be at least 1. Received: top=0"):
        keraslight.decode_predictions(np.zeros((1, 1000)), top=0)
