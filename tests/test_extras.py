"""Whoever lacks an extra reads which command installs it, at whichever door the first import that needs it is."""

import json
import re
import subprocess
import sys

import pytest

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
