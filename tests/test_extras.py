"""Whoever lacks an extra reads which command installs it, at whichever door the first import that needs it is."""

import ast
import functools
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
MODELS = {
    "from keraslight.training import train": "train",
    "import keraslight.compress": "compress",
    "from keraslight.export import to_litert": "export",
    "from keraslight.export.litert import to_litert": "export",
    "import keraslight.analysis": "analysis",
    "from keraslight.analysis.plots import plot_costs": "analysis",
    "from keraslight.blocks import conv_bn": "models",
    "from keraslight.layers import DropPath": "models",
    "import keraslight.zoo": "models",
    "from keraslight import create_model": "models",
    "import keraslight; keraslight.MobileNetV4": "models",
    "from keraslight.architectures import MobileNetV4": "models",
    "from keraslight.architectures.vgg import VGG": "models",
    "import keraslight.weights": "models",
    "import keraslight.graph": "models",
    "import keraslight.rewrite": "models",
    "import keraslight.search": "search",
}
LABELS = {"from keraslight import decode_predictions": "models", "import keraslight.labels": "models"}
CLIENT = {
    "from keraslight_serving.client import ClassifierClient": "client",
    "from keraslight_serving.client import AsyncClassifierClient": "client",
    "from keraslight_serving.client.errors import ServingError": "client",
}
SERVER = {
    "from keraslight_serving.server import ModelServer": "server",
    "from keraslight_serving.testing import serve_in_process": "server",
    "from keraslight_serving.server.testing import FakeServable": "server",
}
ARRAYS = {
    "from keraslight_serving.client.load_test import load_test": "server",
    "from keraslight_serving.client.testing import FakeChannel": "server",
}
TELEMETRY = "from keraslight_serving.client.telemetry import {0}; {0}()"
CODE = """
import json, sys
missing, doors = json.loads(sys.argv[1])
sys.modules.update(dict.fromkeys(missing))
said = {}
for door in doors:
    try:
        exec(door, {})
    except ImportError as error:
        said[door] = [type(error).__name__, str(error)]
    except AttributeError as error:
        said[door] = ["AttributeError", str(error)]
print(json.dumps(said))
"""


@pytest.mark.parametrize(
    ("missing", "doors"),
    [
        (["keras"], MODELS),
        (["numpy", "keras", "tensorflow"], MODELS | LABELS),
        (["tensorflow"], dict(list(MODELS.items())[:2])),
        (["grpc"], CLIENT),
        (["PIL"], CLIENT),
        (["google.protobuf"], CLIENT),
        (["numpy"], SERVER | LABELS | ARRAYS),
        (["grpc_health"], SERVER),
        (["ai_edge_litert"], SERVER),
        (["uvicorn", "starlette"], SERVER),
        (["google_crc32c"], SERVER),
        (["prometheus_client"], {TELEMETRY.format("prometheus_hook"): "telemetry"}),
        (["opentelemetry"], {TELEMETRY.format("opentelemetry_hook"): "telemetry"}),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_a_door_names_the_command_that_installs_what_is_missing(missing, doors):
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps([missing, list(doors)])], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert list(said) == list(doors)
    for door, extra in doors.items():
        kind, text = said[door]
        assert kind == "MissingDependencyError", said
        command = rf'needs ({"|".join(missing)})[\w.]*, which is not installed: pip install "keraslight\[{extra}\]"\.$'
        assert re.search(command, text), (door, text)


@pytest.mark.parametrize(
    ("missing", "arguments", "text"),
    [
        ("typer", ["list"], 'needs typer: pip install "keraslight[cli]"'),
        ("rich", ["list"], 'needs rich: pip install "keraslight[cli]"'),
        ("grpc", ["classify", "."], 'pip install "keraslight[client]"'),
        ("PIL", ["load-test", "."], 'pip install "keraslight[client]"'),
        ("uvicorn", ["serve", "."], 'pip install "keraslight[server]"'),
        ("keras", ["profile", "lenet5_paper"], 'pip install "keraslight[models]"'),
        ("keras", ["litert", "lenet5_paper", "--to", "x.tflite"], 'pip install "keraslight[models]"'),
    ],
    ids=lambda value: "",
)
def test_the_command_line_says_it_in_one_line(missing, arguments, text):
    code = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv = ['keraslight', *{arguments!r}]\n"
        "from keraslight.cli import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("package", ["keraslight", "keraslight_serving"])
def test_a_library_that_is_installed_and_broken_says_so_itself(package, tmp_path):
    (tmp_path / "broken_library.py").write_text("raise ImportError('its DLL is missing')")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from keraslight_serving.extras import require\n"
        f"require({package!r}, 'models', 'broken_library')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "ImportError: its DLL is missing"


def test_the_pages_show_many_imports():
    shown = imports_of_the_pages()
    assert len(shown) >= 30
    assert {"import keraslight; keraslight.MobileNetV4", "from keraslight.training import train"} < set(shown)
    assert {door.split()[1].rstrip(";").partition(".")[0] for door in shown} == {"keraslight", "keraslight_serving"}


@pytest.mark.parametrize("extra", ["", "client", "cli"], ids=lambda extra: extra or "none")
def test_with_an_extra_alone_every_import_works_or_names_the_one_to_install(extra):
    """As in an environment of its own: what only other extras install can't be imported."""
    works, refused = imported_with(extra)
    assert "import keraslight; keraslight.list_models" in works
    assert ("from keraslight_serving.client import ClassifierClient" in works) == (extra == "client")
    for door, (kind, text) in refused.items():
        assert (kind, len(named(text))) == ("MissingDependencyError", 1), (door, text)


@pytest.mark.slow
@pytest.mark.parametrize(
    "extra", ["", *(extra for extra in EXTRAS if extra != "dev")], ids=lambda extra: extra or "none"
)
def test_an_import_works_with_the_extra_that_its_error_names(extra):
    for door, (kind, text) in imported_with(extra)[1].items():
        assert kind == "MissingDependencyError", (door, text)
        (other,) = named(text)
        assert other != extra, (door, text)
        # The first library that is missing may hide that another extra's is missing as well.
        again = imported_with(other)[1].get(door, ("", ""))[1]
        assert again == "" or named(again) not in ([], [other]), (door, again)
    assert extra != "all" or not imported_with(extra)[1]


def named(text: str) -> list[str]:
    """The extras that an error names."""
    return re.findall(r'pip install "keraslight\[(\w+)\]"\.$', text)


@functools.cache
def imported_with(extra: str) -> tuple[list[str], dict[str, tuple[str, str]]]:
    """The imports of the pages that work with one extra, and what the others raise: type and text."""
    installed, doors = closure([f"keraslight[{extra}]"] if extra else []), imports_of_the_pages()
    owners = importlib.metadata.packages_distributions()
    missing = [module for module, names in owners.items() if not installed & set(map(canonical, names))]
    packages = {"keraslight", "keraslight_serving"}
    run = [sys.executable, "-c", CODE, json.dumps([sorted({*missing} - packages), doors])]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    refused = json.loads(done.stdout.splitlines()[-1])
    return [door for door in doors if door not in refused], refused


def closure(requirements: list[str]) -> set[str]:
    """The canonical names of all distributions that requirements install, as the environment's metadata lists them."""
    found, left = set(), [Requirement(text) for text in requirements]
    seen = set()
    while left:
        wanted = left.pop()
        name = canonical(wanted.name)
        if (name, extras := frozenset(wanted.extras)) in seen:
            continue
        seen.add((name, extras))
        found.add(name)
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # such as one for another system
            continue
        if name == "keraslight":
            lines = [line for each in extras for line in EXTRAS[each]]
        for inner in map(Requirement, lines):
            if inner.marker is None or any(inner.marker.evaluate({"extra": each}) for each in ("", *extras)):
                left.append(inner)
    return found - {"keraslight"}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imports_of_the_pages() -> list[str]:
    """What the code of README and docs/ imports from both packages, one name at a time."""
    doors: dict[str, None] = {}
    readmes = (ROOT / folder / "README.md" for folder in (".", "savedmodels", "serving/deploy"))
    for page in (*readmes, *sorted(ROOT.glob("docs/*.md"))):
        for code in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
            for node in ast.walk(ast.parse(code)):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("keraslight"):
                    doors.update(dict.fromkeys(f"from {node.module} import {name.name}" for name in node.names))
                elif isinstance(node, ast.Import):
                    names = [name.name for name in node.names if name.name.startswith("keraslight")]
                    doors.update(dict.fromkeys(f"import {name}" for name in names))
                elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "keraslight":
                    doors[f"import keraslight; keraslight.{node.attr}"] = None
    return list(doors)
