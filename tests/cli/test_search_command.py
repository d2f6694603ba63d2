"""`keraslight search`, on trials that aren't trained: what the search itself does is tested in tests/search."""

import json
import re
import types
from pathlib import Path

import pytest

from keraslight import search as package
from keraslight.errors import InvalidArgumentError
from keraslight.search import SPACES, Retrained, RetrainedNet, _search
from keraslight.search._measure import METRICS
from keraslight.search._study import SAMPLERS
from keraslight.training import DIGITS_RECIPE

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def recipes(monkeypatch):
    """Replaces trainings by none, and gives the list of their recipes."""
    used = []

    def train(model, data, recipe, **options):
        used.append(recipe)
        return types.SimpleNamespace(model=model)

    monkeypatch.setattr(_search, "train", train)
    return used


def test_search_prints_a_front_and_a_program_and_resumes(run, recipes, tmp_path):
    arguments = ("search", "mobilenet_v3", "--data", "digits", "--size", 32, "--metric", "macs", "--to", tmp_path)
    text = run(*arguments, "--trials", 1, "--hold-out", 0.1)
    assert "1 nets trained, 0 stopped before." in text
    scope = {}
    exec(re.search(r"^from keraslight import .*?^\)$", text, re.DOTALL | re.MULTILINE)[0], scope)
    assert scope["model"].output_shape == (None, 10)
    assert recipes == [DIGITS_RECIPE.shortened(3)]
    with pytest.raises(InvalidArgumentError, match="pass another `--to` or `--fresh`, which .*other values of .*limit"):
        run(*arguments, "--trials", 2, "--hold-out", 0.1, "--limit", 10)
    found = json.loads(run(*arguments, "--trials", 2, "--fresh", "--target", 10, "--epochs", 1, "--json"))
    assert [trial["stopped"][:7] for trial in found["trials"]] == ["macs of", "macs of"]
    assert (found["target"], found["front"], len(recipes)) == (10, [], 1)


def test_search_retrains_picks(run, recipes, tmp_path, monkeypatch):
    given = {}

    def retrain(result, picks, data, recipe, *, seeds, against):
        given.update(picks=picks, epochs=recipe.epochs, seeds=seeds, against=against)
        return Retrained((RetrainedNet("trial 0", (0.5, 0.75), None, 10, 20, (tmp_path,)),))

    monkeypatch.setattr(package, "retrain", retrain)
    arguments = ("search", "mobilenet_v4", "--data", "digits", "--size", 32, "--metric", "parameters", "--trials", 1)
    more = ("--retrain", "0, 3", "--against", "vgg11,lenet5_modern", "--seeds", 2, "--final-epochs", 5)
    found = json.loads(run(*arguments, "--to", tmp_path, *more, "--json"))
    assert given == {"picks": [0, 3], "epochs": 5, "seeds": 2, "against": ["vgg11", "lenet5_modern"]}
    assert found["retrained"][0]["accuracy"] == 0.625
    assert found["trials"][0]["code"].startswith("from keraslight import")
    for wrong, text in (
        (("--retrain", "best"), "`--retrain` must be numbers of trials with commas, such as 12,31. Received: 'best'."),
        (("--against", "vgg11"), "`--against` needs `--retrain`."),
        (("--retrain", "0", "--against", "vgg1"), "vgg1"),
    ):
        with pytest.raises(InvalidArgumentError, match=text):
            run(*arguments, "--to", tmp_path, *wrong)


def test_the_choices_of_the_command_are_those_of_the_package():
    from keraslight.cli import search

    assert [name.value for name in search.SpaceName] == list(SPACES)
    assert {name.value for name in search.Metric} == set(METRICS)
    assert {name.value for name in search.Sampler} == set(SAMPLERS)


def test_every_option_on_the_page_exists(run):
    shown = set(re.findall(r"--[a-z][a-z0-9-]+", (DOCS / "search.md").read_text(encoding="utf-8")))
    known = set(re.findall(r"--[a-z][a-z0-9-]+", run("search", "--help") + run("demo", "--help")))
    assert shown - known == {"--help"} - known
    assert len(shown) > 10
