import keras
import numpy as np
import pytest

from keraslight import compress
from keraslight.errors import CompressionError, InvalidArgumentError


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_same_answers_from_weights_of_half_the_size(trained, digits, dtype, tmp_path):
    images = digits[1][0][:64]
    model = compress.half(trained, dtype)
    kernels = [weight for weight in model.weights if weight.name == "kernel"]
    assert len(kernels) == sum(hasattr(layer, "kernel") for layer in trained.layers)
    assert {keras.backend.standardize_dtype(kernel.dtype) for kernel in kernels} == {dtype}
    norms = [weight for weight in model.weights if weight.name == "moving_variance"]
    assert norms
    assert {keras.backend.standardize_dtype(norm.dtype) for norm in norms} == {"float32"}
    wanted, got = (np.asarray(m(images)) for m in (trained, model))
    assert got.dtype == np.float32
    assert (wanted.argmax(-1) == got.argmax(-1)).mean() > 0.98
    assert 0 < np.abs(wanted - got).max() < (0.02 if dtype == "float16" else 0.15)
    model.save(tmp_path / "half.keras")
    again = keras.saving.load_model(tmp_path / "half.keras", compile=False)
    np.testing.assert_array_equal(got, np.asarray(again(images)))


def test_what_can_not_be_halved():
    model = keras.Sequential([keras.Input((3,), name="x"), keras.layers.Dense(2, name="big"), keras.layers.ReLU()])
    model.get_layer("big").kernel.assign(np.full((3, 2), 1e5))
    with pytest.raises(CompressionError, match="at most 65504 to fit float16. Received: layer 'big', whose 'kernel'"):
        compress.half(model)
    assert np.isfinite(np.asarray(compress.half(model, "bfloat16")(np.ones((1, 3), "float32")))).all()
    with pytest.raises(InvalidArgumentError, match="`dtype` must be one of .*Received: 'float8'"):
        compress.half(model, "float8")
