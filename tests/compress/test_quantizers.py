"""Rounding in training against TensorFlow's own fake quantization, which the file's graph has."""

import numpy as np
import pytest
import tensorflow as tf

from keraslight.compress._tfmot.quantizers import ActivationQuantizer, KernelQuantizer

# kernel shape, the axes over which one range goes (None: all), the shape of the ranges
KERNELS = [
    ((3, 3, 8, 16), (0, 1, 2), 16),
    ((3, 3, 8, 1), (0, 1), 8),
    ((1, 1, 5, 7), (0, 1, 2), 7),
    ((6, 4), None, None),
]


def ranges(quantizer):
    shape = () if isinstance(quantizer, ActivationQuantizer) else quantizer.limit.shape
    low, high = (quantizer.low, quantizer.high) if shape == () and hasattr(quantizer, "low") else (0.0, 0.0)
    return {"min_var": tf.Variable(tf.fill(shape, low)), "max_var": tf.Variable(tf.fill(shape, high))}


@pytest.mark.parametrize(("shape", "axes", "channels"), KERNELS)
def test_a_training_kernel_is_what_the_file_will_have(shape, axes, channels):
    kernel = np.random.default_rng(0).normal(size=shape).astype("float32")
    kernel[(..., 0, slice(None)) if axes == (0, 1) else (..., 0)] = 0  # a channel that pruning took away
    quantizer = KernelQuantizer(np.ones(channels) if channels else 1.0)
    weights = ranges(quantizer)
    variable = tf.Variable(kernel)
    with tf.GradientTape() as tape:
        rounded = tf.function(lambda: quantizer(variable, True, weights))()
    limit = np.abs(kernel).max(axis=axes).ravel()
    np.testing.assert_array_equal(np.ravel(weights["max_var"]), np.maximum(limit, quantizer.SMALLEST))
    np.testing.assert_array_equal(weights["min_var"], -weights["max_var"])
    step = np.broadcast_to(weights["max_var"] / 127, kernel.shape if axes != (0, 1) else kernel.shape[:3])
    step = step.reshape(kernel.shape)
    assert np.abs(rounded - kernel).max() > 0
    assert (np.abs(rounded - kernel) <= step * 0.5001).all()
    np.testing.assert_allclose(quantizer(variable, False, weights), rounded, rtol=1e-5, atol=1e-8)
    gradient = np.random.default_rng(1).normal(size=shape).astype("float32")
    np.testing.assert_array_equal(tape.gradient(rounded, variable, output_gradients=gradient), gradient)


@pytest.mark.parametrize("positive", [False, True])
def test_ranges_of_activations_follow_the_batches(positive):
    values = np.random.default_rng(0).uniform(0 if positive else -3, 5, (8, 4)).astype("float32")
    quantizer = ActivationQuantizer(-1, 2, positive=positive)
    weights = ranges(quantizer)
    low = 0.0 if positive else -1.0
    assert (float(weights["min_var"]), float(weights["max_var"])) == (low, 2.0)
    rounded = quantizer(tf.constant(values), True, weights)
    expected = 0.99 * low + 0.01 * (0.0 if positive else values.min()), 0.99 * 2 + 0.01 * values.max()
    np.testing.assert_allclose((weights["min_var"], weights["max_var"]), expected, rtol=1e-6)
    step = (expected[1] - expected[0]) / 255
    assert (np.abs(rounded - values.clip(*expected)) <= step).all()
    np.testing.assert_array_equal(quantizer(tf.constant(values), False, weights), rounded)


@pytest.mark.parametrize(("low", "high", "ends"), [(0.3, 0.9, (0.0, 0.9)), (-0.7, -0.2, (-0.7, 0.0))])
def test_ranges_of_activations_on_one_side_of_zero_reach_it(low, high, ends):
    """As those of a sigmoid: padding writes zeros, and of a range without zero TensorFlow uses another."""
    values = np.linspace(low, high, 32, dtype="float32")
    quantizer = ActivationQuantizer(low, high, least=1e-6)
    weights = ranges(quantizer)
    np.testing.assert_allclose((weights["min_var"], weights["max_var"]), ends, atol=2e-6)
    step = (ends[1] - ends[0]) / 255
    assert np.abs(quantizer(tf.constant(values), False, weights) - values).max() <= step * 0.51
    assert float(quantizer(tf.constant(0.0), False, weights)) == 0
    for _ in range(3):
        quantizer(tf.constant(values), True, weights)
    np.testing.assert_allclose((weights["min_var"], weights["max_var"]), ends, atol=2e-6)
