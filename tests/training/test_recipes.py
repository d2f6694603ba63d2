"""The named recipes: what they say, and that each of them can be used."""

import json

import pytest

import keraslight
from keraslight.training import RECIPES, Recipe

# By hand from the sources: epochs, batch size, rate, warm-up in epochs, decay.
NUMBERS = {
    "mobilenet_v4_conv_small": (9623, 4096, 0.002, 5, 0.01),
    "mobilenet_v4_conv_medium": (500, 4096, 0.004, 5, 0.1),
    "mobilenet_v4_conv_large": (500, 16384, 0.004, 20, 0.2),
    "mobilenet_v4_hybrid_medium": (500, 16384, 0.016, 20, 0.1),
    "mobilenet_v4_hybrid_large": (500, 16384, 0.01, 20, 0.2),
    "mobilenet_v3_large": (700, 4096, 0.004, 5, 0.1),
    "convnext_tiny": (300, 4096, 0.004, 20, 0.05),
    "convnext_large": (300, 4096, 0.004, 20, 0.05),
    "convnext_finetune": (30, 512, 5e-5, 0, 1e-8),
}
DROP_PATHS = {"convnext_tiny": 0.1, "convnext_small": 0.4, "convnext_base": 0.5, "convnext_large": 0.5}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_those_of_the_sources(name):
    recipe = RECIPES[name]
    found = (recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.warmup_epochs, recipe.weight_decay)
    assert found == NUMBERS[name]


def test_strengths_of_mixing_and_drop_path():
    assert {name: RECIPES[name].model["drop_path"] for name in DROP_PATHS} == DROP_PATHS
    mixed = {name: recipe.mix_probability for name, recipe in RECIPES.items() if recipe.cutmix == 1.0}
    assert mixed == dict.fromkeys(DROP_PATHS, 1.0) | {
        "mobilenet_v4_conv_large": 0.2,
        "mobilenet_v4_hybrid_large": 0.3,
    }
    assert RECIPES["mobilenet_v4_conv_small"].beta_1 == 0.6
    assert RECIPES["convnext_finetune"].layer_decay == 0.7
    sizes = {name: recipe.progressive.size for name, recipe in RECIPES.items() if recipe.progressive}
    assert sizes == {
        "efficientnet_v2_s": (128, 300),
        "efficientnet_v2_m": (128, 380),
        "efficientnet_v2_l": (128, 380),
    }


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_a_source_survives_json_and_scales(name):
    recipe = RECIPES[name]
    assert len(recipe.source) > 20
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert recipe.scaled(64).learning_rate == pytest.approx(recipe.learning_rate * 64 / recipe.batch_size)
    assert recipe.shortened(10).epochs == 10


@pytest.mark.parametrize("name", [name for name in RECIPES if RECIPES[name].model])
def test_the_models_of_a_recipe_take_its_arguments(name):
    variant = {"mobilenet_v3_large": "mobilenet_v3_large_100", "mobilenet_v3_small": "mobilenet_v3_small_100"}
    info = keraslight.model_info(variant.get(name, name))
    assert info.name.startswith(name)
    builder = getattr(keraslight, info.family)
    assert set(RECIPES[name].model) <= set(__import__("inspect").signature(builder).parameters)
