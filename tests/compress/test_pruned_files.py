"""Zeros of a pruned model in every form it is written in."""

import gzip

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import keraslight
from keraslight import compress
from keraslight.errors import InvalidArgumentError
from keraslight.export import litert_report, save_servable, to_litert


def zeros_of(kernels):
    """The zeros of every kernel that has any, sorted: names and layouts differ from form to form."""
    counts = [int((np.asarray(kernel) == 0).sum()) for kernel in kernels]
    return sorted(count for count in counts if count)


def constants(path):
    """The constant tensors of a LiteRT file with more than one axis, less index lists."""
    interpreter = Interpreter(str(path))
    for detail in interpreter.get_tensor_details():
        if len(detail["shape"]) > 1 and detail["dtype"] in (np.float32, np.float16, np.int8):
            try:
                yield interpreter.get_tensor(detail["index"])
            except ValueError:  # not a constant
                continue


def test_zeros_hold_after_save_load_and_export(pruned, tmp_path):
    expected = [layer.zeros for layer in compress.sparsity(pruned).layers]
    pruned.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert [layer.zeros for layer in compress.sparsity(loaded).layers] == expected

    servable = save_servable(pruned, tmp_path / "digits", labels=[str(digit) for digit in range(10)])
    variables = tf.train.load_checkpoint(f"{servable}/variables/variables")
    kernels = [variables.get_tensor(name) for name in variables.get_variable_to_shape_map()]
    assert zeros_of(kernel for kernel in kernels if np.ndim(kernel) > 1) == sorted(expected)


def test_zeros_hold_in_float_files(pruned, digits, tmp_path):
    expected = [layer.zeros for layer in compress.sparsity(pruned).layers]
    dense = to_litert(pruned, tmp_path / "dense.tflite", sparse=False)
    found = zeros_of(constants(dense))
    for zeros in expected:
        found.remove(zeros)
    images = digits[1][0][:1]
    outputs = []
    for path in (dense, to_litert(pruned, tmp_path / "sparse.tflite")):
        run = Interpreter(str(path), num_threads=1).get_signature_runner("serving_default")
        outputs.append(run(images=images)["probabilities"])
    np.testing.assert_array_equal(*outputs)
    assert litert_report(tmp_path / "sparse.tflite").size < 0.6 * litert_report(dense).size


def test_sparse_is_for_float_files(pruned, tmp_path):
    with pytest.raises(InvalidArgumentError, match="`sparse` must come with a quantization of .*Received: .*'dynamic'"):
        to_litert(pruned, tmp_path / "file.tflite", quantization="dynamic", sparse=True)


@pytest.mark.slow
def test_a_mobilenet_v2_with_three_quarters_of_zeros_compresses(tmp_path):
    keras.utils.set_random_seed(0)
    model = keraslight.create_model("mobilenet_v2_100", input_shape=(64, 64, 3))
    dense = to_litert(model, tmp_path / "dense.tflite")
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            kernel = layer.kernel.numpy()
            layer.kernel.assign(np.where(np.abs(kernel) <= np.quantile(np.abs(kernel), 0.75), 0, kernel))
    assert compress.sparsity(model, "*").total == pytest.approx(0.75, abs=0.001)
    before = len(gzip.compress(dense.read_bytes()))
    plain = to_litert(model, tmp_path / "plain.tflite", sparse=False)
    sparse = to_litert(model, tmp_path / "sparse.tflite")
    assert len(gzip.compress(plain.read_bytes())) < 0.36 * before  # the promise is 0.42
    assert len(gzip.compress(sparse.read_bytes())) < 0.36 * before
    assert sparse.stat().st_size < 0.4 * dense.stat().st_size == 0.4 * plain.stat().st_size
