"""Quantization-aware training of every family: no layer refused, every kernel int8 in the file, the rest named."""

import numpy as np
import pytest

from keraslight import compress
from keraslight.export.litert import litert_report, to_litert
from tests.compress import digit_models

# What stays float, by the class of the Keras layer; everything else of every family is int8.
FLOAT = {
    "AlexNet": {"LocalResponseNorm"},
    "ConvNeXt": {"LayerNorm"},
    "ConvNeXtV2": {"LayerNorm", "GRN"},
    "LeNet5": {"CodeDistance"},
}
# Small enough, and of a vocabulary of their own; `make test-all` runs the others.
QUICK = ("LeNet5", "ResNet")


@pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in digit_models.families()],
)
def test_every_kernel_is_int8(family, tmp_path):
    model = digit_models.build(family)
    images = np.random.default_rng(0).normal(size=(16, *model.input_shape[1:])).astype("float32")
    compress.settle_batch_norms(model, (images, np.zeros(len(images))))
    quantized = compress.quantize_aware(model, calibration_data=images)
    quantized.run_eagerly = True  # tracing takes longer than a single step
    assert np.isfinite(quantized.train_on_batch(images, np.arange(16) % 10)).all()
    report = compress.quantization_report(quantized)
    assert {layer.kind for layer in report.layers if layer.precision == "float"} == FLOAT.get(family, set())

    file = litert_report(to_litert(quantized, tmp_path / "int8.tflite"))

    def said(operator):
        return digit_models.belongs_to(operator, report.floats)

    # LeNet5's distance to fixed codes is a matrix product in a layer that the report names.
    kernels = [operator for operator in file.operators if operator.kind in digit_models.KERNELS and not said(operator)]
    assert len(kernels) >= 5
    for operator in kernels:
        assert operator.inputs[:2] == ("INT8", "INT8"), operator
        assert operator.outputs == ("INT8",), operator
    for operator in file.float_operators:  # each belongs to a layer that the report names
        print(family, operator.kind, operator.name)
        assert said(operator), operator
    assert bool(file.float_operators) == bool(report.floats)
