"""Runs the examples marked `<!-- tested -->` in the README and in docs/, one after another in one folder."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from sklearn.datasets import load_digits

import keraslight

ROOT = Path(__file__).parent.parent
PAGES = ("docs/models.md", "README.md", "docs/analysis.md", "docs/serving.md")  # in the order in which they are run

PROSE = (
    "README.md",
    *(f"docs/{page}.md" for page in ("models", "training", "compression-guide", "analysis", "serving")),
)


def examples_of(page):
    return re.findall(r"<!-- tested -->\n```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


def prose_calls(page):
    """The calls that a page's text shows between backticks, without those that leave something out."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    calls = re.findall(r"`((?:print\()?(?:keraslight|compress|analysis)\.[\w.]+\([^`]*\))`", text)
    return [call for call in calls if "..." not in call]


# Runs each example as a program of its own, in one process: to import TensorFlow takes as long as most of them. A net
# of a hundred layers shows as well with 160 digits that its training runs.
RUNNER = """
import contextlib, dataclasses, io, json, sys
import keraslight.training

whole = keraslight.training.load_digits

def few(*args):
    data = whole(*args)
    return dataclasses.replace(data, train_indices=data.train_indices[:160])

keraslight.training.load_digits = few
printed = []
for example in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(example, example, "exec"), {"__name__": "__main__"})
    printed.append(output.getvalue())
json.dump(printed, sys.stdout)
"""


def test_examples(tmp_path):
    examples = [example for page in PAGES for example in examples_of(page)]
    assert len(examples) == 4 + 2
    # What the pages' text calls goes on where the README's first example ends.
    calls = [call for page in PROSE for call in prose_calls(page)]
    assert "print(compress.quantization_report(quantized))" in calls
    prelude = ["images = next(iter(data.train(8)))[0]", "model.save('model.keras')"]
    first = examples.index(examples_of("README.md")[0])
    examples[first] = "\n".join([examples[first], *prelude, *calls])
    Image.fromarray((load_digits().images[0] * 15.9).astype("uint8")).save(tmp_path / "digit.png")
    command = [sys.executable, "-c", RUNNER]
    done = subprocess.run(
        command, input=json.dumps(examples), cwd=tmp_path, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    printed = json.loads(done.stdout)
    assert "('0'," in printed[2]  # the labels in the client's rankings
    assert "0.12" in printed[3]  # 1/64 + 1/9
    costs, ratio = printed[4].splitlines()
    assert costs.endswith(" ms")
    assert float(ratio) > 0
    ranked, kept, refused, shape, by_stubs = printed[5].splitlines()
    assert (ranked.split()[0], refused, shape) == (kept, "refused", "(2, 10)")
    assert by_stubs == kept
    assert (tmp_path / "runs/architecture.png").is_file()
    assert (tmp_path / "savedmodels/readme/1/saved_model.pb").is_file()
    assert (tmp_path / "runs/readme/digits_int8.tflite").is_file()


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")], ids=lambda page: page.name)
def test_links_within_the_repository_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_readme_claims_equal_logits_for_as_many_models_as_have_fixtures():
    fixtures = list((ROOT / "tests" / "golden").glob("*.npz"))  # tests/weights/test_golden.py compares each
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert re.findall(r"compare the logits of (\d+) models", text) == [str(len(fixtures))]
    families = {keraslight.model_info(name).family for name in keraslight.list_models()}
    assert re.findall(r"the (\d+) families", text) == [str(len(families))]


def test_the_license_is_complete():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.split()[:4] == ["Apache", "License", "Version", "2.0,"]
    assert "END OF TERMS AND CONDITIONS" in text
    assert len(text.splitlines()) == 202
