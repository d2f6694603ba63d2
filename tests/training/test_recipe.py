import json

import pytest

from keraslight.errors import InvalidArgumentError
from keraslight.training import DIGITS_RECIPE, Recipe


def test_a_recipe_survives_json():
    for recipe in (DIGITS_RECIPE, Recipe(patience=3)):
        assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_digits_are_never_mirrored():
    assert DIGITS_RECIPE.augmentation.flip is False


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"epochs": 0}, r"`epochs` must be at least 1\. Received: epochs=0\."),
        ({"batch_size": 0}, r"`batch_size` must be at least 1\. Received: batch_size=0\."),
        ({"learning_rate": float("nan")}, r"`learning_rate` must be positive\. Received: learning_rate=nan\."),
        ({"epochs": 2, "warmup_epochs": 2}, r"less than `epochs`\. Received: warmup_epochs=2, epochs=2\."),
        ({"weight_decay": -1}, r"`weight_decay` must be at least 0\. Received: weight_decay=-1\."),
        ({"label_smoothing": 1}, r"`label_smoothing` must be in \[0, 1\)\. Received: label_smoothing=1\."),
        ({"patience": 0}, r"`patience` must be at least 1 or None\. Received: patience=0\."),
    ],
)
def test_values_out_of_range(values, text):
    with pytest.raises(InvalidArgumentError, match=text):
        Recipe(**values)
