"""Max pooling with indices and unpooling against PyTorch.

`unpooling.npz` was written with torch 2.13 by

    import numpy as np, torch
    from torch.nn import functional as F
    torch.manual_seed(0)
    last = lambda t: t.permute(0, 2, 3, 1).numpy()
    out = {}
    for name, shape, (k, s, p) in [("plain", (2, 3, 6, 8), (2, 2, 0)), ("odd", (2, 3, 7, 9), (2, 2, 0)),
                                   ("padded", (2, 3, 7, 8), (3, 2, 1)), ("overlap", (1, 2, 6, 5), (3, 1, 0))]:
        x = torch.randint(-9, 9, shape).float() / 4
        y, i = F.max_pool2d(x, k, s, p, return_indices=True)
        back = F.max_unpool2d(y, i, k, s, p, output_size=shape[2:])
        out |= {f"{name}_x": last(x), f"{name}_y": last(y), f"{name}_i": last(i).astype("int32")}
        out[f"{name}_back"] = last(back)
        if name == "plain":
            out["default_back"] = last(F.max_unpool2d(y, i, k))
    np.savez_compressed("tests/layers/unpooling.npz", **out)
"""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from keraslight.errors import InvalidArgumentError
from keraslight.export import to_litert
from keraslight.layers import MaxPoolWithIndices2D, MaxUnpool2D

TORCH = np.load(Path(__file__).with_name("unpooling.npz"))
WINDOWS = {"plain": (2, 2, 0), "odd": (2, 2, 0), "padded": (3, 2, 1), "overlap": (3, 1, 0)}


def there_and_back(shape, window=(2, 2, 0), output_size=None, after=None, **settings):
    images = keras.Input(shape)
    values, indices = MaxPoolWithIndices2D(*window, name="pool", **settings)(images)
    if after:
        values = after(values)
    return keras.Model(images, MaxUnpool2D(*window, output_size, name="unpool", **settings)([values, indices]))


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("known", [True, False])
def test_pooling_and_unpooling_are_pytorchs(name, known):
    x, window = TORCH[f"{name}_x"], WINDOWS[name]
    shape = x.shape[1:] if known else (None, None, x.shape[-1])
    model = there_and_back(shape, window, x.shape[1:3])
    values, indices = model.get_layer("pool").output
    for k in (1, 2):
        assert values.shape[k] == (TORCH[f"{name}_y"].shape[k] if known else None)
    values, indices = keras.Model(model.inputs, [values, indices]).predict(x, verbose=0)  # as a compiled function
    np.testing.assert_array_equal(values, TORCH[f"{name}_y"])
    np.testing.assert_array_equal(indices, TORCH[f"{name}_i"])
    np.testing.assert_array_equal(model.predict(x, verbose=0), TORCH[f"{name}_back"])


@pytest.mark.parametrize("shape", [(6, 8, 3), (None, None, 3)])
def test_the_output_size_is_worked_out(shape):
    model = there_and_back(shape)
    assert model.output_shape == (None, *shape)
    np.testing.assert_array_equal(model.predict(TORCH["plain_x"], verbose=0), TORCH["default_back"])


def test_a_window_of_minus_infinities_has_an_index_on_the_map():
    x = np.full((1, 4, 4, 1), -np.inf, "float32")
    _, indices = MaxPoolWithIndices2D(3, 2, 1)(x)
    np.testing.assert_array_equal(np.asarray(indices)[0, :, :, 0], [[0, 1], [4, 5]])


def test_the_gradient_goes_to_the_first_maximum_alone():
    x = tf.ones((1, 4, 4, 1))
    model = there_and_back((4, 4, 1))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = model(x)
        total = tf.reduce_sum(y * np.arange(16, dtype="float32").reshape(1, 4, 4, 1))
    wanted = np.zeros((4, 4))
    wanted[::2, ::2] = [[0, 2], [8, 10]]
    np.testing.assert_array_equal(tape.gradient(total, x)[0, :, :, 0], wanted)


def test_layers_are_saved_trained_and_converted(tmp_path):
    x, window, size = TORCH["odd_x"], WINDOWS["odd"], (7, 9)  # overlapping windows convert to sums
    model = there_and_back(x.shape[1:], window, size, keras.layers.Conv2D(3, 1, name="scale"))
    wanted = np.asarray(model(x))
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(np.asarray(loaded(x)), wanted)

    converted = Interpreter(str(to_litert(model, tmp_path / "m.tflite", batch_size=2))).get_signature_runner()
    np.testing.assert_allclose(converted(images=x)["probabilities"], wanted, atol=1e-4)

    loaded.compile("sgd", "mse", jit_compile=False)
    before = np.asarray(loaded.get_layer("scale").kernel)
    assert np.isfinite(loaded.train_on_batch(x, np.ones_like(x)))
    assert (np.asarray(loaded.get_layer("scale").kernel) != before).all()


def test_half_precision_keeps_the_indices():
    x = TORCH["padded_x"]
    model = there_and_back(x.shape[1:], WINDOWS["padded"], (7, 8), dtype="mixed_float16")
    assert [t.dtype for t in model.get_layer("pool").output] == ["float16", "int32"]
    y = model(x)
    assert keras.backend.standardize_dtype(y.dtype) == "float16"
    np.testing.assert_array_equal(np.asarray(y, "float32"), TORCH["padded_back"])  # quarters are exact


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: MaxPoolWithIndices2D(0), "`pool_size` and `strides` must be at least 1 .* Received: pool_size=0"),
        (lambda: MaxUnpool2D(2, 2, 2), r"`padding` in 0..pool_size // 2. Received: pool_size=2, strides=2, padding=2"),
        (lambda: MaxUnpool2D(output_size=(0, 4)), r"`output_size` must be None .* Received: \(0, 4\)"),
        (lambda: MaxPoolWithIndices2D(5)(keras.Input((4, 8, 1))), "must hold a window. Received: 4x8, pool_size=5"),
        (
            lambda: MaxUnpool2D()([keras.Input((2, 2, 1)), keras.Input((2, 3, 1), dtype="int32")]),
            "Values and indices must have one shape. Received: .*2, 2, 1.*2, 3, 1",
        ),
    ],
)
def test_bad_arguments(build, text):
    with pytest.raises(InvalidArgumentError, match=text):
        build()
