import keras
import numpy as np
import pytest

from keraslight import compress
from keraslight.errors import CompressionError, InvalidArgumentError


def small():
    images = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(8, 3, name="stem")(images)
    x = keras.layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = keras.layers.Conv2D(48, 1, name="expand")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(images, keras.layers.Dense(10, name="logits")(x), name="small")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, jit_compile=False)
    model.optimizer.build(model.trainable_variables)  # else the first step is traced twice
    return model


DATA = (np.random.default_rng(0).normal(size=(64, 8, 8, 1)).astype("float32"), np.arange(64) % 10)


def fit(model, callback, epochs=2):
    return model.fit(*DATA, batch_size=8, epochs=epochs, callbacks=[callback], verbose=0)


def test_prunes_to_what_was_asked_and_keeps_the_accuracy(trained, pruned, accuracy):
    report = compress.sparsity(pruned)
    assert report.total >= 0.7
    assert all(0.7 <= layer.fraction < 0.72 for layer in report.layers)
    assert accuracy(pruned) >= accuracy(trained) - 0.015
    assert compress.sparsity(trained).total == 0  # the model that went in is as it was


def test_default_policy_leaves_the_stem_and_depthwise_kernels(pruned):
    everything = {layer.name: layer.fraction for layer in compress.sparsity(pruned, "*").layers}
    assert everything["stem"] == everything["block0_start"] == everything["block0_depthwise"] == 0
    assert everything["logits"] >= 0.7


def test_report_is_a_table(pruned):
    text = str(compress.sparsity(pruned, ["fused", "logits"]))
    assert "3x3x16x24" in text
    assert text.splitlines()[-1].startswith("total")


def test_pruning_is_deterministic(digits):
    images, labels = digits[0][0][:64, ::4, ::4], digits[0][1][:64]
    model = small()
    first, second = (compress.prune(model, (images, labels), epochs=2, seed=3, verbose=0) for _ in range(2))
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_zeros_hold_at_the_end_of_every_epoch_and_grow():
    model, seen = small(), []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_, **__: seen.append(compress.sparsity(model).total))
    callback = compress.Pruning(0.8, end_fraction=0.9)
    model.fit(*DATA, batch_size=8, epochs=4, callbacks=[callback, watch], verbose=0)
    assert 0 < seen[0] < seen[1] < seen[2] <= seen[3]
    assert seen[3] >= 0.8


@pytest.mark.parametrize("frequency", [1, 3, 7, 100])
def test_final_sparsity_is_reached_whatever_the_frequency(frequency):
    model = small()
    fit(model, compress.Pruning(0.6, frequency=frequency))
    assert compress.sparsity(model).total >= 0.6


def test_sparsity_grows_by_the_papers_cube():
    """Zhu and Gupta, equation 1: final * (1 - (1 - t) ** 3) at t = 0, 1/4, 1/2, 3/4 and 1 of the schedule."""
    images = keras.Input((40,))
    model, seen = keras.Model(images, keras.layers.Dense(50, name="dense")(images)), []
    model.compile("sgd", "mse", jit_compile=False)
    callback = compress.Pruning(0.8, begin_step=3, end_step=11, frequency=1)
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda *_, **__: seen.append(compress.sparsity(model, "dense").total)
    )
    x = np.random.default_rng(0).normal(size=(14, 40)).astype("float32")
    model.fit(x, x @ np.ones((40, 50), "float32"), batch_size=1, epochs=1, callbacks=[callback, watch], verbose=0)
    assert seen[:3] == [0, 0, 0]  # step 3 begins with t = 0
    assert [seen[step - 1] for step in (5, 7, 9, 11, 14)] == pytest.approx([0.4625, 0.7, 0.7875, 0.8, 0.8], abs=1e-3)


def test_fractions_are_shares_of_all_steps():
    callback = compress.Pruning(begin_fraction=0.25, end_fraction=0.75)
    callback.set_params({"steps": 8, "epochs": 5})
    assert callback._steps() == (10, 30)


def test_constant_schedule_prunes_at_once():
    model, seen = small(), []
    callback = compress.Pruning(0.5, "constant", begin_step=3, end_step=3)
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda *_, **__: seen.append(compress.sparsity(model).total)
    )
    model.fit(*DATA, batch_size=8, epochs=1, callbacks=[callback, watch], verbose=0)
    assert seen[1] == 0
    assert min(seen[2:]) >= 0.5


def test_layer_patterns_and_two_of_four():
    model = small()
    fit(model, compress.Pruning(layers="logits", m_by_n=(2, 4)))
    kernels = {layer.name: layer.fraction for layer in compress.sparsity(model, "*").layers}
    assert kernels == {"stem": 0, "depthwise": 0, "expand": 0, "logits": 0.5}


def test_schedule_object_of_the_library():
    from tensorflow_model_optimization.python.core.sparsity.keras import pruning_schedule

    model = small()
    fit(model, compress.Pruning(schedule=pruning_schedule.ConstantSparsity(0.25, begin_step=1, frequency=1)))
    assert compress.sparsity(model).total == pytest.approx(0.25, abs=0.01)


def test_two_of_four_holds_in_every_group_of_input_channels():
    images = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(10, 3, name="stem")(images)
    x = keras.layers.Conv2D(6, 3, name="conv")(x)  # ten input channels: two groups of four, and two channels left
    model = keras.Model(images, keras.layers.Dense(10)(keras.layers.Flatten()(x)))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    fit(model, compress.Pruning(m_by_n=(2, 4), layers="conv"))
    kernel = model.get_layer("conv").kernel.numpy()
    groups = kernel[:, :, :8].reshape(3, 3, 2, 4, 6)
    assert ((groups == 0).sum(axis=3) == 2).all()
    assert (kernel[:, :, 8:] != 0).all()


def test_blocks_of_a_dense_kernel_go_together():
    model = small()
    fit(model, compress.Pruning(0.5, layers="logits", block_size=(4, 2)))
    zero = model.get_layer("logits").kernel.numpy() == 0  # (48, 10)
    blocks = zero.reshape(12, 4, 5, 2).transpose(0, 2, 1, 3).reshape(60, 8)
    assert (blocks.all(axis=1) == blocks.any(axis=1)).all()
    assert blocks.all(axis=1).sum() == 30


def test_sparsity_by_layer():
    model = small()
    fit(model, compress.Pruning({"exp*": 0.25, "logits": 0.875, "*": 0.5}))
    shares = {layer.name: layer.fraction for layer in compress.sparsity(model, "*").layers}
    assert shares == pytest.approx({"stem": 0.5, "depthwise": 0.5, "expand": 0.25, "logits": 0.875}, abs=0.01)
    model = small()
    fit(model, compress.Pruning({"expand": 0.5}))
    assert {layer.name for layer in compress.sparsity(model, "*").layers if layer.zeros} == {"expand"}
    with pytest.raises(InvalidArgumentError, match="must be left out where the sparsities name the layers"):
        fit(model, compress.Pruning({"expand": 0.5}, layers="logits"))


def test_of_a_separable_convolution_the_pointwise_kernel():
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 1))
    x = keras.layers.SeparableConv2D(8, 3, name="stem")(images)
    x = keras.layers.SeparableConv2D(16, 3, strides=2, name="middle")(x)
    x = keras.layers.SeparableConv2D(16, 2, name="last")(x)  # 2x2 -> 1x1 pixels
    model = keras.Model(images, keras.layers.Dense(10, name="logits")(keras.layers.Flatten()(x)))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    assert [layer.name for layer in compress.sparsity(model, policy="xnnpack").layers] == ["stem", "middle", "last"]
    fit(model, compress.Pruning(0.75))
    report = compress.sparsity(model)
    assert [(layer.name, layer.shape) for layer in report.layers] == [
        ("middle", (1, 1, 8, 16)),
        ("last", (1, 1, 16, 16)),
        ("logits", (16, 10)),
    ]
    assert all(0.75 <= layer.fraction < 0.77 for layer in report.layers)
    assert all(layer.depthwise_kernel.numpy().all() for layer in model.layers[1:4])


def test_policy_for_xnnpack():
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(8, 1, strides=2, name="strided")(images)
    x = keras.layers.Conv2D(8, 3, name="wide")(x)
    x = keras.layers.Conv2D(8, 1, groups=2, name="grouped")(x)
    x = keras.layers.Conv2D(8, 1, name="pointwise")(x)
    x = keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
    model = keras.Model(images, keras.layers.Conv2D(8, 1, name="gate")(x), name="net")
    assert [layer.name for layer in compress.sparsity(model, policy="xnnpack").layers] == ["pointwise", "gate"]
    with pytest.raises(InvalidArgumentError, match="must have a 1x1 Conv2D. Received: 'dense'"):
        compress.prune(
            keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="dense"), DATA, policy="xnnpack"
        )
    with pytest.raises(InvalidArgumentError, match="'default' where layers are named. Received: policy='xnnpack'"):
        compress.sparsity(model, "wide", policy="xnnpack")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"final_sparsity": 1.0}, r"`final_sparsity` must be in \(0, 1\). Received: 1.0"),
        ({"schedule": "cubic"}, "`schedule` must be one of .*Received: 'cubic'"),
        ({"begin_fraction": 0.9}, "in this order. Received: begin_fraction=0.9, end_fraction=0.6"),
        ({"frequency": 0}, "`frequency` must be at least 1. Received: 0"),
        ({"final_sparsity": {"a": 0.5, "b": 0}}, r"must be in \(0, 1\). Received: {'a': 0.5, 'b': 0}"),
        ({"final_sparsity": {}}, r"must be in \(0, 1\). Received: {}"),
        ({"policy": "depthwise"}, "`policy` must be one of .*Received: 'depthwise'"),
        ({"block_size": (0, 2)}, r"`block_size` must be two numbers of at least 1. Received: \(0, 2\)"),
        ({"block_size": 2}, "`block_size` must be two numbers of at least 1. Received: 2"),
        ({"m_by_n": 2}, r"`m_by_n` must be \(m, n\) with 0 < m < n. Received: 2"),
        ({"m_by_n": (4, 4)}, r"`m_by_n` must be \(m, n\) with 0 < m < n. Received: \(4, 4\)"),
        ({"end_step": 0}, "`end_step` must be at least 1. Received: 0"),
        ({"begin_step": 9, "end_step": 3}, "must not be after `end_step`. Received: begin_step=9, end_step=3"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(InvalidArgumentError, match=message):
        compress.Pruning(**arguments)


def test_pattern_without_a_match():
    with pytest.raises(InvalidArgumentError, match="must match a Conv2D.*Received: 'nothing'; the model has .*'stem'"):
        compress.prune(small(), DATA, layers="nothing")
    with pytest.raises(InvalidArgumentError, match="`layers` must be None or name at least one pattern"):
        compress.prune(small(), DATA, layers=())


def test_blocks_are_for_matrices():
    message = r"match Dense layers or 1x1 convolutions only. Received: block_size=\(2, 2\)"
    with pytest.raises(InvalidArgumentError, match=message):
        fit(small(), compress.Pruning(block_size=(2, 2), layers="stem"))


@pytest.mark.parametrize(("arguments", "block"), [({}, (1, 4)), ({"block_size": (2, 3)}, (2, 3))])
def test_a_policy_for_xnnpack_zeroes_blocks_of_channels(arguments, block):
    images = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(8, 3, strides=2, name="stem")(images)
    x = keras.layers.Conv2D(12, 1, name="even")(x)
    x = keras.layers.Conv2D(10, 1, name="odd")(x)
    x = keras.layers.Conv2D(3, 1, name="narrow")(x)
    x = keras.layers.Conv2D(1, 1, name="single")(x)
    model = keras.Model(images, keras.layers.Dense(10, name="logits")(keras.layers.Flatten()(x)))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    fit(model, compress.Pruning(0.75, policy="xnnpack", **arguments))
    report = compress.sparsity(model, policy="xnnpack")
    assert [layer.name for layer in report.layers] == ["even", "odd", "narrow", "single"]
    assert report.total >= 0.7
    assert all(layer.fraction > 0.3 for layer in report.layers)  # of the smallest, whole blocks
    for name in ("even", "odd", "narrow"):
        zeros = model.get_layer(name).kernel.numpy()[0, 0] == 0
        for row in range(0, zeros.shape[0], block[0]):
            for column in range(0, zeros.shape[1], block[1]):
                part = zeros[row : row + block[0], column : column + block[1]]
                assert part.all() or not part.any()


def test_several_steps_an_execution_are_refused():
    model = small()
    model.compile("adam", "mse", steps_per_execution=2)
    with pytest.raises(InvalidArgumentError, match=r"steps_per_execution=1.*Received: steps_per_execution=2"):
        fit(model, compress.Pruning())


def test_subclassed_models_are_refused():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(CompressionError, match=r"must be a functional Keras 3 model.*of class Own"):
        compress.prune(Own(name="own"), DATA)
