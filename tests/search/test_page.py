"""The programs of docs/search.md, with one trial each and without training."""

import dataclasses
import re
import types
from pathlib import Path

from optuna.trial import FixedTrial

from keraslight import search as package, training
from keraslight.search import _search
from keraslight.search._measure import Meter
from tests.search.conftest import small_net

CHOICES = FixedTrial({"width": 2, "stride": 3})
PAGE = Path(__file__).parents[2] / "docs" / "search.md"


def test_the_programs_run(tmp_path, monkeypatch):
    text = PAGE.read_text(encoding="utf-8")
    programs = re.findall(r"<!-- tested -->\n```python\n(.*?)```", text, re.DOTALL)
    assert len(programs) == text.count("```python") == 3
    whole, searched, results = training.load_digits, package.search, []

    def few(*given):
        data = whole(*given)
        return dataclasses.replace(data, train_indices=data.train_indices[:60])

    def once(*given, **options):
        assert options["trials"] in (40, 60)
        results.append(searched(*given, **options | {"trials": 1, "progress": False}))
        return results[-1]

    def train(model, data, recipe, *, run_dir, **options):
        run_dir.mkdir(parents=True)
        model.save(run_dir / "best.keras")
        (run_dir / "model.json").write_text("{}")
        return types.SimpleNamespace(model=model, best_accuracy=0.5)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "load_digits", few)
    monkeypatch.setattr(package, "search", once)
    monkeypatch.setattr(_search, "train", train)
    monkeypatch.setattr("keraslight.search._retrain.train", train)
    monkeypatch.setattr("keraslight.search._retrain.create_model", lambda name, **ends: small_net(CHOICES))
    monkeypatch.setattr(Meter, "latencies", lambda self, models, data: dict.fromkeys(models, 0.1))
    scope = {}
    for program in programs:
        exec(program, scope)
    assert [result.metric for result in results] == ["latency", "macs"]
    assert (scope["found"].run_dir / "front.csv").is_file()
