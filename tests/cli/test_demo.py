"""`keraslight demo`: with LeNet-5, and by `make test-all` as `make demo` runs it: the project's promise."""

import dataclasses
import json
import subprocess
import sys

import keras
import numpy as np
import pytest

from keraslight.blocks import conv_bn
from keraslight.cli import _demo, _demo_search
from keraslight.export import litert_report
from keraslight.layers import ImageNormalization
from keraslight.training import DIGITS_PREPROCESSING, load_digits, load_run

# Accuracy that the float model must reach, and what pruning and quantization may cost.
PROMISE = 0.975, 0.01
QUICK = 0.9, 0.05  # after 3 epochs
# A net of a few layers takes the same way in a fifth of the time.
LENET = """
from keraslight.cli import _demo
_demo.MODEL, _demo.DIGITS_PREPROCESSING = "lenet5_modern", _demo.DIGITS_PREPROCESSING.replace(size=(32, 32))
"""


@dataclasses.dataclass(frozen=True)
class Form:
    """How the demo is run: code before it and its options, and what it must reach.

    Attributes:
        accuracy: Of the float model, and what pruning and quantization may cost.
        int8_size: The int8 file's share of the float file; much of a small file are its operators.
        pruned: Stage, and run folder, of the net that is pruned.
    """

    code: str
    options: tuple[str, ...]
    accuracy: tuple[float, float]
    int8_size: float
    pruned: str = "float"


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(Form(LENET, ("--epochs", "3"), QUICK, 0.35), id="quick"),
        pytest.param(Form("", (), PROMISE, 0.30), id="full", marks=pytest.mark.slow),
        pytest.param(Form("", ("--search",), PROMISE, 0.4, "narrowed"), id="search", marks=pytest.mark.slow),
    ],
)
def form(request):
    return request.param


@pytest.fixture(scope="module")
def demo(form, tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    code = f"{form.code}\nfrom keraslight.cli import main; main()"
    command = [sys.executable, "-c", code, "demo", "--to", str(folder), "--json", *form.options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    results = json.loads((folder / "results.json").read_text())
    assert json.loads(done.stdout) == results
    return folder, {stage["name"]: stage for stage in results["stages"]}, done.stderr


def test_accuracies(demo, form):
    _, stages, _ = demo
    least, cost = form.accuracy
    assert stages["float"]["accuracy"] >= least
    assert stages[form.pruned]["accuracy"] >= stages["float"]["accuracy"] - cost
    assert stages["pruned"]["accuracy"] >= stages["float"]["accuracy"] - cost
    assert stages["int8"]["accuracy"] >= stages["float"]["accuracy"] - cost


def test_sparsity_and_sizes(demo, form):
    _, stages, _ = demo
    assert stages["pruned"]["sparsity"] >= 0.70
    assert stages["int8"]["sparsity"] >= 0.70, "quantization-aware training must keep the pruned zeros"
    assert stages["int8"]["kilobytes"] <= form.int8_size * stages[form.pruned]["kilobytes"]
    assert stages["pruned"]["gzip_kilobytes"] < 0.6 * stages[form.pruned]["gzip_kilobytes"]


def test_every_convolution_is_int8(demo, form):
    """Both by our reader of the file and by LiteRT's own interpreter, without a delegate to hide the operators."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    folder, stages, _ = demo
    file = stages["int8"]["litert"]
    model, _ = load_run(folder / form.pruned)
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
    wanted = sum(isinstance(layer, kinds) for layer in model.layers)

    assert not [operator for operator in litert_report(file).float_operators if is_product(operator.kind)]
    interpreter = Interpreter(file, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    tensors = {tensor["index"]: tensor["dtype"] for tensor in interpreter.get_tensor_details()}
    products = [operator for operator in interpreter._get_ops_details() if is_product(operator["op_name"])]
    assert len(products) >= wanted
    for operator in products:
        images, weights = operator["inputs"][:2]
        assert tensors[images] == tensors[weights] == np.int8
        assert all(tensors[output] == np.int8 for output in operator["outputs"])


def is_product(kind: str) -> bool:
    return kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def test_every_served_answer_was_compared(demo, form):
    _, stages, output = demo
    assert list(stages) == [*dict.fromkeys(("float", form.pruned)), "pruned", "int8"]
    for name in stages:
        assert f"{name}: 3 signatures, 359 digits, every answer as in this process" in output
        assert stages[name]["largest_difference"] <= 1e-4


def test_pictures_and_table(demo):
    from PIL import Image

    folder, stages, output = demo
    for picture in ("confusion_matrix.png", "classified.png"):
        with Image.open(folder / picture) as image:
            assert np.asarray(image.convert("L")).std() > 10
    table = (folder / "table.txt").read_text()
    for name, stage in stages.items():
        assert name in table
        assert f"{stage['accuracy']:.2%}" in table
    assert "359 held-out digits" in output
    headings = [line for line in output.splitlines() if line.startswith("─")]
    assert [len(line) for line in headings] == [80] * 3  # they don't fill the width that tables may take


def test_in_small_a_net_is_found_narrowed_pruned_and_quantized(tmp_path, monkeypatch):
    spec = DIGITS_PREPROCESSING.replace(size=(32, 32))

    def net(trial):
        images = keras.Input((32, 32, 1))
        x = ImageNormalization(spec)(images)
        for name in ("first", "second"):
            x = conv_bn(x, trial.suggest_int(name, 16, 32, step=8), 3, stride=2, activation="relu", name=name)
        x = keras.layers.GlobalAveragePooling2D()(x)
        return keras.Model(images, keras.layers.Dense(10, activation="softmax")(x))

    class Space:
        for_images = staticmethod(lambda side: net)

    monkeypatch.setattr(_demo, "MODEL", "lenet5_modern")
    for name, value in {"SPACES": {_demo_search.SPACE: Space}, "TRIALS": 2, "BUDGET": 0.9, "STEPS": 2}.items():
        monkeypatch.setattr(_demo_search, name, value)
    stages = {name: model for name, model, *_ in _demo._train(load_digits(spec), tmp_path, 0, 1, True)}
    assert list(stages) == ["float", "narrowed", "pruned", "int8"]
    compared = (tmp_path / "search" / "retrained.csv").read_text().splitlines()[1:]
    assert [row.partition(",")[0].split()[0] for row in compared] == ["trial", "lenet5_modern"]
    kinds = (keras.layers.Conv2D, keras.layers.BatchNormalization)
    float_net, narrowed, pruned = (
        sum(weight.shape[-1] for layer in model.layers if isinstance(layer, kinds) for weight in layer.weights)
        for model in list(stages.values())[:3]
    )
    assert pruned == narrowed < float_net
