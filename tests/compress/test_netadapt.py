"""NetAdapt on a tiny net: budget, ranking, halved steps, resuming."""

import dataclasses
import json
import re

import keras
import numpy as np
import pytest
from keras import layers

from keraslight import analysis
from keraslight.compress import channel_groups, netadapt, shrink
from keraslight.compress.channels.adaptation import AdaptationFolder
from keraslight.errors import InvalidArgumentError, TrainingError
from keraslight.graph import copy
from keraslight.preprocessing import Preprocessing
from keraslight.training import ImageData
from tests.compress.masking import distance, outputs, randomize

SMALL = Preprocessing((6, 6), mean=(0.5,), std=(0.5,))
QUICK = {"steps": 2, "divisor": 4, "minimum": 4, "progress": False, "batch_size": 16}


@pytest.fixture(scope="module")
def data():
    """Images of three classes: where they are bright."""
    rng = np.random.default_rng(0)
    targets = np.arange(90) % 3
    pixels = rng.integers(0, 100, (90, 6, 6, 1), np.uint8)
    for pixel, target in zip(pixels, targets, strict=True):
        pixel[2 * target : 2 * target + 2] += 150
    return ImageData.from_arrays(pixels, targets, ["top", "middle", "bottom"], SMALL)


@pytest.fixture(scope="module")
def net():
    """A residual net, whose widths are 16 (stem and project), 24 and 12."""
    images = keras.Input((6, 6, 1), name="images")
    x = layers.Rescaling(1 / 255)(images)
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(x)
    x = layers.Activation("hard_sigmoid")(layers.BatchNormalization()(x))  # 0.5 for 0, also of removed channels
    y = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(24, 1, use_bias=False, name="expand")(x)))
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(y)
    x = layers.Add()([x, layers.BatchNormalization()(layers.Conv2D(16, 1, use_bias=False, name="project")(y))])
    x = layers.Dense(12, activation="hard_sigmoid", name="head")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(images, layers.Dense(3, name="classifier")(x), name="net")
    randomize(model)
    return model


@pytest.fixture(scope="module")
def branches():
    """A net that says where images are bright, of two groups of 8 channels: one decides, and one isn't used."""
    images = keras.Input((6, 6, 1))
    x = layers.Rescaling(1 / 255)(images)
    parts = [layers.Conv2D(8, 6, activation="relu", name=name)(x) for name in ("needed", "idle")]
    x = layers.Dropout(0.2, seed=3)(layers.Flatten()(layers.Concatenate()(parts)))
    model = keras.Model(images, layers.Dense(3, name="classifier")(x))
    kernel, classifier = np.full((6, 6, 1, 8), -0.5), np.zeros((16, 3))
    for channel in range(8):
        target = channel % 3
        kernel[2 * target : 2 * target + 2, ..., channel] = 1
        classifier[channel, target] = 0.3
    model.get_layer("needed").set_weights([kernel, np.zeros(8)])
    model.get_layer("classifier").set_weights([classifier, np.zeros(3)])
    return model


BRANCHES = {"needed": 8, "idle": 8}


@dataclasses.dataclass
class Channels:
    """A resource that is measured in no time: the number of channels, or another function of the layers' widths."""

    widths: dict
    number: object = sum
    calls: int = 0
    last: int = -1
    metric: str = "channels"
    unit: str = ""

    def __call__(self, widths=None):
        self.calls += 1
        if self.calls == self.last:
            raise KeyboardInterrupt
        return self.number({**self.widths, **(widths or {})}.values())


WIDTHS = {"stem": 16, "project": 16, "expand": 24, "head": 12}


@pytest.fixture(scope="module")
def found(net, data, tmp_path_factory):
    """A search by multiply-adds, and what they are."""
    macs = analysis.resource(net, "macs")
    return netadapt(net, data, macs, run_dir=tmp_path_factory.mktemp("macs"), budget=0.6, step=0.1, **QUICK), macs


def test_the_budget_is_reached_by_widths_that_are_multiples(found, net):
    result, macs = found
    first, *rows = result.iterations
    assert first.resource == macs()
    assert result.budget == 0.6 * first.resource
    assert rows[-1].resource <= result.budget < rows[-2].resource
    for before, row in zip([first, *rows], rows, strict=False):
        assert row.resource <= row.target < before.resource
        assert row.now in range(4, row.was, 4)
        assert result.budget <= row.target
    assert result.widths == {
        name: (size, next((row.now for row in reversed(rows) if row.group == name), size))
        for name, size in (("stem", 16), ("expand", 24), ("head", 12))
    }
    # What the masks were said to cost is what the model costs.
    assert analysis.resource(result.model, "macs")() == rows[-1].resource
    assert result.model.get_layer("expand").filters == result.widths["expand"][1]


def test_a_width_is_the_greatest_that_reaches_the_target(found, net):
    result, macs = found
    row = result.iterations[1]
    layer_names = {group.name: group.layers for group in channel_groups(net)}[row.group]
    wider = dict.fromkeys(layer_names, row.now + 4)
    assert row.now + 4 == row.was or macs(wider) > row.target
    assert macs(dict.fromkeys(layer_names, row.now)) == row.resource


def test_the_masked_net_computes_what_the_narrow_one_does(found, net):
    result, _ = found
    assert result.widths["stem"][1] < 16  # else training would leave the weights at zero without masks, too
    last = len(result.iterations) - 1
    _, kept, state = AdaptationFolder(result.run_dir).load(last)
    masked = copy(net)
    for variable, value in zip(masked.variables, state, strict=True):
        variable.assign(value)
    images = [np.random.default_rng(2).uniform(0, 255, (8, 6, 6, 1)).astype("float32")]
    wanted = outputs(masked, images)
    assert distance(wanted, outputs(result.model, images)) < 1e-5
    assert distance(wanted, outputs(shrink(masked, keep=kept), images)) < 1e-5
    assert distance(wanted, outputs(result.at(last), images)) < 1e-5
    assert distance(outputs(net, images), outputs(result.at(0), images)) < 1e-5
    assert distance(wanted, outputs(net, images)) > 0.01  # it was trained
    with pytest.raises(InvalidArgumentError, match="`iteration` must be from 0"):
        result.at(last + 1)


def test_files_and_table(found):
    result, _ = found
    folder = result.run_dir / "netadapt"
    history = (folder / "history.csv").read_text().splitlines()
    assert len(history) == 1 + len(result.iterations)
    assert history[0].split(",") == [field.name for field in dataclasses.fields(result.iterations[0])]
    assert json.loads((folder / "widths.json").read_text()) == {n: now for n, (_, now) in result.widths.items()}
    assert (folder / "tradeoff.png").read_bytes().startswith(b"\x89PNG")
    assert re.search(r"(?m)^stem +16 +\d+$", str(result))
    assert re.search(r"(?m)^0 .* 100\.0% ", str(result))


def test_a_killed_search_resumes_with_the_same_bytes(branches, data, tmp_path):
    def search(folder, resource, step=0.15):
        options = {**QUICK, "divisor": 1, "minimum": 1, "step": step}
        return netadapt(branches, data, resource, run_dir=tmp_path / folder, **options)

    def files(folder):
        return {file.name: file.read_bytes() for file in (tmp_path / folder / "netadapt").iterdir()}

    resource = Channels(BRANCHES)
    whole = search("whole", resource)
    assert len(whole.iterations) >= 4
    with pytest.raises(KeyboardInterrupt):
        search("killed", Channels(BRANCHES, last=resource.calls // 2))
    begun = files("killed").keys()
    assert "0001.npz" in begun
    assert f"{len(whole.iterations) - 1:04d}.npz" not in begun
    (tmp_path / "killed" / "netadapt" / ".1.0002.npz").write_bytes(b"half")
    resumed = search("killed", Channels(BRANCHES))
    assert files("killed") == files("whole")
    assert resumed.iterations == whole.iterations
    for ours, theirs in zip(resumed.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(InvalidArgumentError, match=r"resumed with the model.*where step differ"):
        search("whole", Channels(BRANCHES), step=0.2)
    (tmp_path / "whole" / "netadapt" / "0001.npz").write_bytes(b"half")
    with pytest.raises(InvalidArgumentError, match=r"must be complete.*0001\.npz"):
        search("whole", Channels(BRANCHES))


def test_what_all_groups_propose_is_measured_together(branches, data, tmp_path):
    together = []

    class Measured(Channels):
        def many(self, choices):
            together.append(len(choices))
            return [self(widths) for widths in choices]

    options = {**QUICK, "divisor": 1, "minimum": 1, "step": 0.15, "steps": 1}
    apart = netadapt(branches, data, Channels(BRANCHES), run_dir=tmp_path / "apart", **options)
    resource = Measured(BRANCHES)
    found = netadapt(branches, data, resource, run_dir=tmp_path / "together", **options)
    assert found.iterations == apart.iterations
    assert sum(together) == resource.calls - 1  # the model's own is the first
    assert together[:4] == [2, 2, 2, 2]  # widths of 1 to 7, the narrowest first, then by bisection


def test_the_step_is_halved_until_a_group_can_give_it(branches, data, tmp_path, capsys):
    options = {**QUICK, "progress": True, "steps": 1, "budget": 0.1, "step": 0.9, "decay": 1.0}
    result = netadapt(branches, data, Channels(BRANCHES), run_dir=tmp_path, **options)
    # Each group can give a quarter of all channels, which is less than 0.45 and more than 0.225.
    assert result.iterations[1].halvings == 2
    assert "no group alone can give the step, which is now 22.50%" in " ".join(capsys.readouterr().err.split())
    # It ends above the budget only because there is nothing left.
    assert result.iterations[-1].resource > result.budget
    assert result.widths == {"needed": (8, 4), "idle": (8, 4)}


def test_a_resource_that_no_group_lowers_alone(branches, data, tmp_path):
    result = netadapt(branches, data, Channels(BRANCHES, max), run_dir=tmp_path, **QUICK)
    assert [row.resource for row in result.iterations] == [8, 8, 4]
    assert result.budget == 4


def test_the_group_that_costs_the_least_loss_is_narrowed(branches, data, tmp_path):
    options = {**QUICK, "steps": 1, "learning_rate": 1e-6, "budget": 0.8, "step": 0.2}
    result = netadapt(branches, data, Channels(BRANCHES), run_dir=tmp_path, **options)
    first, row = result.iterations
    assert (row.group, row.was, row.now, row.proposals) == ("idle", 8, 4, 2)
    assert row.loss == pytest.approx(first.loss, abs=1e-4)
    assert row.accuracy == 1


def test_a_loss_that_is_not_finite_is_an_error(branches, data, tmp_path):
    with pytest.raises(TrainingError, match="none of which has one"):
        netadapt(branches, data, Channels(BRANCHES), run_dir=tmp_path, **QUICK, learning_rate=1e38)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"budget": 1.0}, "`budget` must be above 0 and below 1. Received: 1.0."),
        ({"step": 0}, "`step` must be above 0 and below 1. Received: 0."),
        ({"hold_out": "a"}, "`hold_out` must be above 0 and below 1. Received: 'a'."),
        ({"decay": 1.1}, "`decay` must be above 0 and at most 1. Received: 1.1."),
        ({"steps": 1.5}, "`steps` must be a whole number of at least 1. Received: 1.5."),
        ({"divisor": True}, "`divisor` must be a whole number of at least 1. Received: True."),
        ({"learning_rate": float("nan")}, "`learning_rate` must be a number above 0. Received: nan."),
        ({"groups": "stage*"}, "`groups` must match groups that can be shrunk. Received: 'stage*'"),
        ({"groups": "classifier"}, "`groups` must match groups that can be shrunk. Received: 'classifier'"),
        ({"task": "binary"}, "`task` must fit the model"),
        ({"distillation": 1}, "`distillation` needs `fine_tune`"),
        ({"resource": "macs"}, "`resource` must be what `analysis.resource(model, metric)` returns"),
        ({"data": (np.zeros((4, 6, 6, 1)), np.zeros(4))}, "`data` must be an ImageData"),
    ],
)
def test_bad_arguments(net, data, tmp_path, options, text):
    given = {"data": data, "resource": Channels(WIDTHS), **options}
    with pytest.raises(InvalidArgumentError, match=re.escape(text)):
        netadapt(net, given.pop("data"), given.pop("resource"), run_dir=tmp_path / "new", **given)
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNetV2", "EfficientNetB0", "ResNet50V2"])
def test_models_of_keras_applications(name, tmp_path):
    model = getattr(keras.applications, name)(weights=None, input_shape=(32, 32, 3), classes=3)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), np.uint8)
    data = ImageData.from_arrays(pixels, np.arange(60) % 3, ["a", "b", "c"], Preprocessing((32, 32)))
    macs = analysis.resource(model, "macs")
    options = {"budget": 0.97, "steps": 1, "batch_size": 8, "progress": False}
    names = [group.name for group in channel_groups(model) if group.removable][::6]
    result = netadapt(model, data, macs, run_dir=tmp_path, groups=names, **options)
    assert result.iterations[-1].resource <= result.budget
    assert analysis.resource(result.model, "macs")() == result.iterations[-1].resource
