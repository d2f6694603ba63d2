"""`keraslight recipes`, `find-lr`, and the flags of `train` that choose and change a recipe."""

import csv
import json

import pytest

from keraslight.errors import InvalidArgumentError
from keraslight.training import RECIPES, Recipe, load_run


def test_recipes_lists_all_and_shows_one(run):
    text = run("recipes")
    assert all(name in text for name in RECIPES)
    one = run("recipes", "efficientnet_v2_s")
    assert "243" in one
    assert "https://arxiv.org/abs/2104.00298" in one
    assert (
        Recipe.from_dict(json.loads(run("recipes", "convnext_tiny", "--json"))["convnext_tiny"])
        == (RECIPES["convnext_tiny"])
    )
    with pytest.raises(InvalidArgumentError, match="`NAME` must be one of .*photos"):
        run("recipes", "nothing")


@pytest.fixture(scope="module")
def stages(run, tmp_path_factory):
    """A run in stages with the least of everything."""
    folder = tmp_path_factory.mktemp("stages") / "run"
    flags = (
        "--progressive",
        "--size",
        32,
        "--epochs",
        4,
        "--batch-size",
        256,
        "--layer-decay",
        0.9,
        "--freeze",
        "stem*",
    )
    more = ("--recipe", "finetune", "--freeze-epochs", 1)
    return folder, run("train", "mobilenet_v1_025", "--data", "digits", "--to", folder, *flags, *more)


def test_train_takes_a_recipe_and_trains_in_stages(stages):
    folder, text = stages
    recipe = Recipe.from_dict(json.loads((folder / "model.json").read_text())["recipe"])
    assert recipe.layer_decay == 0.9
    assert recipe.freeze == "stem*"
    assert recipe.freeze_epochs == 1
    assert recipe.learning_rate == pytest.approx(RECIPES["finetune"].learning_rate * 256 / 32)
    with (folder / "history.csv").open() as file:
        assert [row["size"] for row in csv.DictReader(file)] == ["14", "20", "26", "32"]
    assert (folder / "curves.png").stat().st_size > 1000
    assert "Best epoch" in text


def test_the_model_of_a_run_in_stages_takes_images_of_the_datas_size(stages):
    model, _ = load_run(stages[0])  # so that it can be exported
    assert model.input_shape == (None, 32, 32, 1)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("shufflenet_v2_050", "--progressive"), "`--progressive` needs a model that takes images of any size"),
        (("mobilenet_v1_025", "--recipe", "nothing"), "`--recipe` must be one of .*photos"),
        (("mobilenet_v1_025", "--freeze", "nothing"), "`freeze` must be a pattern"),
    ],
)
def test_flags_that_can_not_be_used(run, tmp_path, flags, text):
    with pytest.raises(InvalidArgumentError, match=text):
        run("train", *flags, "--data", "digits", "--size", 32, "--to", tmp_path)


def test_find_lr_suggests_a_rate(run, tmp_path):
    plot = tmp_path / "lr.png"
    arguments = ("--data", "digits", "--size", 32, "--batch-size", 16, "--steps", 40, "--plot", plot, "--json")
    found = json.loads(run("find-lr", "mobilenet_v1_025", *arguments))
    assert found["rates"][0] == pytest.approx(1e-6)
    assert 1e-6 < found["suggestion"] < 1
    assert len(found["rates"]) == len(found["losses"]) <= 40
    assert plot.stat().st_size > 1000
