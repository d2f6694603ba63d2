"""Adding a family takes two files: they appear everywhere without an entry in any list."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keraslight_serving
import pytest

import keraslight

ARCHITECTURE = '''"""TinyNet: one convolution."""

from __future__ import annotations

from keras import KerasTensor

from keraslight.blocks.conv import conv_bn
from keraslight.blocks.family import register
from keraslight.blocks.model import Network
from keraslight.registry import Variant

VARIANTS = {"tinynet_one": Variant({"channels": 8}, 32, 338, 79_000, "timm/tinynet_one.made_up")}


@register(VARIANTS, prefix="tinynet_")
def TinyNet(images: KerasTensor, *, channels: int) -> Network:
    """Builds a TinyNet image classifier.

    Args:
        channels: Channels of the convolution.
    """
    x = conv_bn(images, channels, 3, stride=2, name="stem")
    return Network({"stride_2": x}, x)
'''
WEIGHTS = '''"""TinyNet's weights."""

from collections.abc import Iterator

from keraslight.preprocessing import Preprocessing
from keraslight.weights.loader import Checkpoint


def names(*, channels: int) -> Iterator[tuple[str, str]]:
    yield from (("stem", "conv"), ("stem_bn", "bn"), ("classifier", "fc"))


CHECKPOINTS = {"timm/tinynet_one.made_up": Checkpoint("tinynet_one", names, Preprocessing((32, 32)), 12.5)}
'''
SCRIPT = """
import inspect, json, sys
import keraslight
listed = "TinyNet" in keraslight.__all__ and "TinyNet" in dir(keraslight)
light = "keras" not in sys.modules
from keraslight import TinyNet
from keraslight.architectures import TinyNet as plain
info = keraslight.model_info("timm/tinynet_one")
print(json.dumps({
    "listed": listed,
    "light": light,
    "layers": [layer.name for layer in TinyNet("one", classes=3, features_only=False).layers],
    "arguments": list(inspect.signature(plain).parameters)[:3],
    "models": keraslight.list_models("tiny*"),
    "info": [info.name, info.family, info.paper, info.top1],
}))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What a copy of the package with the two files says about the family."""
    root = tmp_path_factory.mktemp("copy")
    package = root / "keraslight"
    shutil.copytree(Path(keraslight.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "architectures" / "tinynet.py").write_text(ARCHITECTURE)
    (package / "weights" / "tinynet.py").write_text(WEIGHTS)
    serving = Path(keraslight_serving.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{serving}"}
    run = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, cwd=root)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_it_is_a_public_name_without_importing_keras(found):
    assert found["listed"]
    assert found["light"]


def test_it_builds_with_the_common_arguments(found):
    assert found["layers"] == ["images", "stem_pad", "stem", "stem_bn", "pool", "classifier", "probabilities"]
    assert found["arguments"] == ["variant", "channels", "input_shape"]


def test_it_is_listed_with_its_checkpoint(found):
    assert found["models"] == ["tinynet_one"]
    assert found["info"] == ["tinynet_one", "TinyNet", "TinyNet: one convolution.", 12.5]
