"""Numerical equality with the references: their parameters under their names must give their logits."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import keraslight
from keraslight.weights import CHECKPOINTS
from tests.golden import golden_rule

GOLDEN = Path(__file__).parent.parent / "golden"
FIXTURES = sorted(path.name for path in GOLDEN.glob("*.npz"))


def _id(fixture):
    return fixture.removesuffix(".npz").replace("__", ":")


SOURCES = {"timm": "timm", "tv": "torchvision", "ref": "ref"}
# Of the logits' standard deviation; float32 noise is below 1e-5 (in ShuffleNetV2+ 2e-5), mistakes start at 1e-4 (6e-3).
# RepVGG-D2se adds 3 branches in 47 layers: at 320 pixels PyTorch's own float32 is off by 8e-5, in float64 we by 2e-7.
TOLERANCE = {"ref:shufflenet_v2_plus_small": 1e-4, "timm:repvgg_d2se": 3e-4}
ALL = ("default", "odd", "rect")
SMALL, HUGE = 3_000_000, 25_000_000  # parameters


def cases():
    """`make test` compares the lightest net of each family unless it is huge; of one that isn't small, one case."""
    sources = {fixture: _id(fixture).partition(":")[::2] for fixture in FIXTURES}
    infos = {fixture: keraslight.model_info(f"{SOURCES[source]}/{name}") for fixture, (source, name) in sources.items()}
    lightest = {}
    for fixture in sorted(FIXTURES, key=lambda fixture: -infos[fixture].parameters):
        lightest[infos[fixture].family] = fixture
    for fixture, info in infos.items():
        parameters = info.parameters
        slow = () if fixture == lightest[info.family] and parameters <= HUGE else pytest.mark.slow
        if parameters > SMALL:
            yield pytest.param(fixture, ("rect",), id=f"{_id(fixture)}-rect", marks=slow)
        rest = tuple(case for case in ALL if case != "rect") if parameters > SMALL else ALL
        yield pytest.param(fixture, rest, id=_id(fixture), marks=pytest.mark.slow if parameters > SMALL else slow)


@pytest.mark.parametrize(("fixture", "wanted"), list(cases()))
def test_logits_equal_the_references(fixture, wanted, tmp_path):
    compare(fixture, wanted, tmp_path)


def compare(fixture, cases, tmp_path):
    """Builds the model for each case, and compares its logits with the fixture's."""
    meta, wanted = golden_rule.load(GOLDEN / fixture)
    parameters = dict(golden_rule.params(meta))
    assert golden_rule.params_crc32(meta) == meta["params_crc32"]
    file = tmp_path / "reference.safetensors"
    save_file(parameters, file)
    del parameters

    source, _, name = meta["id"].partition(":")
    checkpoint = f"{SOURCES[source]}/{name}"
    assert {case["case"] for case in meta["cases"]} == {"default", "odd", "rect"}
    for case in meta["cases"]:
        if case["case"] not in cases or case["output"] != "logits":
            continue  # GoogLeNet's auxiliary heads are compared in its own test
        model = keraslight.create_model(
            checkpoint, weights=file, classifier_activation=None, input_shape=tuple(case["shape"][1:])
        )
        images = golden_rule.make_input(case["seed"], case["shape"])
        assert golden_rule.input_crc32(images) == case["input_crc32"]
        if CHECKPOINTS[keraslight.model_info(checkpoint).checkpoint].bgr:
            images = images[..., ::-1]  # the reference's channels are blue, green, red
        difference = np.abs(np.asarray(model(images, training=False)) - wanted[case["array"]]).max()
        assert difference / case["std"] < TOLERANCE.get(meta["id"], 5e-5), case["case"]
