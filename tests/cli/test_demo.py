"""`keraslight demo`: with a smaller net on few digits, and by `make test-all` as `make demo` runs it.

What is promised of the accuracy needs the whole training, so that `make test-all` alone checks it here. In `make test`,
test_digits_matrix.py checks what pruning and quantization cost.
"""

import dataclasses
import json
import subprocess
import sys

import keras
import numpy as np
import pytest

import keraslight
from keraslight.cli._forms import probabilities
from keraslight.export import litert_report
from keraslight.training import DIGITS_PREPROCESSING, load_digits

# Accuracy that the float model must reach, and what pruning and quantization may cost.
PROMISE = 0.975, 0.01
TRAINED, HELD_OUT = 320, 40  # digits of the quick form
QUICK = f"""
import dataclasses
from keraslight.cli import _demo

whole = _demo.load_digits

def few(*args):
    data = whole(*args)
    train, held_out = data.train_indices[:{TRAINED}], data.validation_indices[:{HELD_OUT}]
    originals = data.originals[:{HELD_OUT}]
    return dataclasses.replace(data, train_indices=train, validation_indices=held_out, originals=originals)

_demo.load_digits, _demo.MODEL = few, "mobilenet_v1_100"
"""


@dataclasses.dataclass(frozen=True)
class Form:
    """How the demo is run: the code before it, its options, its model and its number of held-out digits."""

    code: str
    options: tuple[str, ...]
    model: str
    images: int


FULL = Form("", (), "mobilenet_v4_conv_small", 359)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(Form(QUICK, ("--epochs", "2"), "mobilenet_v1_100", HELD_OUT), id="quick"),
        pytest.param(FULL, id="full", marks=pytest.mark.slow),
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
    data = load_digits(DIGITS_PREPROCESSING)
    held_out = data.validation_indices[: form.images]
    for name in ("float", "pruned", "int8"):
        answers = probabilities(stages[name]["litert"], data.pixels[held_out].astype(np.float32))
        right = (answers.argmax(axis=1) == data.targets[held_out]).mean()
        assert stages[name]["accuracy"] == pytest.approx(right)
    if form is not FULL:
        return
    least, cost = PROMISE
    assert stages["float"]["accuracy"] >= least
    assert stages["pruned"]["accuracy"] >= stages["float"]["accuracy"] - cost
    assert stages["int8"]["accuracy"] >= stages["float"]["accuracy"] - cost


def test_sparsity_and_sizes(demo):
    _, stages, _ = demo
    assert stages["pruned"]["sparsity"] >= 0.70
    assert stages["int8"]["sparsity"] >= 0.70, "quantization-aware training must keep the pruned zeros"
    assert stages["int8"]["kilobytes"] <= 0.30 * stages["float"]["kilobytes"]
    assert stages["pruned"]["gzip_kilobytes"] < 0.6 * stages["float"]["gzip_kilobytes"]


def test_every_convolution_is_int8(demo, form):
    """Both by our reader of the file and by LiteRT's own interpreter, without a delegate to hide the operators."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    _, stages, _ = demo
    file = stages["int8"]["litert"]
    model = keraslight.create_model(form.model, input_shape=(48, 48, 1), classes=10)
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
    for name in ("float", "pruned", "int8"):
        assert f"{name}: 3 signatures, {form.images} digits, every answer as in this process" in output
        assert stages[name]["largest_difference"] <= 1e-4


def test_pictures_and_table(demo, form):
    from PIL import Image

    folder, stages, output = demo
    for picture in ("confusion_matrix.png", "classified.png"):
        with Image.open(folder / picture) as image:
            assert np.asarray(image.convert("L")).std() > 10
    table = (folder / "table.txt").read_text()
    for name, stage in stages.items():
        assert name in table
        assert f"{stage['accuracy']:.2%}" in table
    assert f"{form.images} held-out digits" in output
