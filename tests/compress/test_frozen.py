"""Compression leaves frozen layers and parts in inference mode as they are."""

import keras
import numpy as np
import pytest
from keras import layers

from keraslight import compress
from keraslight.errors import InvalidArgumentError
from keraslight.graph import flat_layers
from keraslight.training import Distillation

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(3, 2, (32, 8, 8, 3)).astype("float32")
LABELS = np.arange(32) % 4


@keras.saving.register_keras_serializable(package="test_frozen")
class Block(layers.Layer):
    """A layer that holds a batch norm and a dropout without passing a mode on."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm, self.drop = layers.BatchNormalization(name="norm"), layers.Dropout(0.5, name="drop")

    def build(self, shape):
        self.norm.build(shape)
        super().build(shape)

    def call(self, x):
        return self.drop(self.norm(x))


def base(name, *, deep=False):
    """A pretrained part; `deep` puts a Sequential one into it."""
    images = x = keras.Input((8, 8, 3))
    if deep:
        stack = [layers.Conv2D(4, 3, padding="same"), layers.BatchNormalization(name=f"{name}_inner_bn")]
        x = keras.Sequential([keras.Input((8, 8, 3)), *stack], name=f"{name}_inner")(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(layers.Conv2D(4, 3, name=f"{name}_stem")(x))
    x = layers.Conv2D(4, 3, activation="relu", name=f"{name}_conv")(layers.Dropout(0.3, name=f"{name}_drop")(x))
    return keras.Model(images, layers.BatchNormalization(name=f"{name}_last")(x), name=name)


def build(*, block=True):
    """A transfer model with a part of each kind."""
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 3))
    frozen, inference = base("frozen"), base("inference")
    deep, variable = base("deep", deep=True), base("variable")
    frozen.trainable = False
    variable.get_layer("variable_conv").kernel.trainable = False
    x = layers.BatchNormalization(name="free")(images)
    flat = layers.BatchNormalization(name="flat_bn")(layers.Conv2D(4, 3, name="flat_stem")(x), training=False)
    flat = layers.SeparableConv2D(4, 3, activation="relu", name="flat_conv", trainable=False)(flat)
    if block:
        flat = Block(name="block")(flat, training=False)
    parts = [frozen(x), inference(x, training=False), deep(x, training=False), variable(x), flat]
    x = layers.GlobalAveragePooling2D(name="pool")(layers.Concatenate(name="parts")(parts))
    x = layers.Dense(16, activation="relu", name="hidden")(x)
    return keras.Model(images, layers.Dense(4, activation="softmax", name="logits")(x), name="transfer")


FROZEN = ("frozen_stem", "frozen_conv", "flat_conv", "variable_conv")
INFERENCE = (
    *("frozen_bn", "frozen_last", "inference_bn", "inference_last", "deep_bn", "deep_last", "deep_inner_bn"),
    *("flat_bn", "norm"),
)


def parts_of(model):
    return {part.name: part for layer in model.layers for part in flat_layers(layer)}


def norms(model):
    found = {name: part for name, part in parts_of(model).items() if isinstance(part, layers.BatchNormalization)}
    return {name: np.stack([norm.moving_mean, norm.moving_variance]) for name, norm in found.items()}


def kernels(model):
    found = {
        name: part for name, part in parts_of(model).items() if name.endswith(("stem", "conv", "hidden", "logits"))
    }
    return {name: part.get_weights()[-2] for name, part in found.items()}


def assert_kept(before, after, names):
    for name in names:
        if name in before:
            np.testing.assert_array_equal(after[name], before[name], err_msg=name)


@pytest.fixture(scope="module")
def transfer():
    return build()


def test_pruning_keeps_frozen_kernels_and_statistics_in_inference_mode(transfer):
    pruned = compress.prune(transfer, (IMAGES, LABELS), sparsity=0.6, epochs=1, batch_size=16, verbose=0)
    assert_kept(kernels(transfer), kernels(pruned), FROZEN)
    assert_kept(norms(transfer), norms(pruned), INFERENCE)
    zeros = {name: (kernel == 0).mean() for name, kernel in kernels(pruned).items()}
    assert min(zeros["hidden"], zeros["inference_conv"], zeros["deep_conv"], zeros["logits"]) >= 0.6
    assert np.abs(norms(pruned)["free"][0] - IMAGES.mean((0, 1, 2))).max() < 1e-3  # settled
    assert np.abs(norms(pruned)["variable_bn"]).max() > 1e-3
    assert pruned.optimizer is not None


def test_distilled_pruning_keeps_them_too(transfer):
    """In inference mode, too, a part normalizes by its statistics, without dropout: the loss is that of inference."""
    losses = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda _, logs: losses.append(logs["loss"]))
    images = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(base("inference", deep=True)(images, training=False))
    model = keras.Model(images, layers.Dense(4, name="logits")(x))
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    expected = model.evaluate(IMAGES, LABELS, batch_size=32, verbose=0)
    pruned = compress.prune(
        model, (IMAGES, LABELS), sparsity=0.01, layers="logits", learning_rate=1e-9, epochs=1, callbacks=[watch],
        distillation=Distillation(model, alpha=0.5), verbose=0,
    )  # fmt: skip
    assert_kept(norms(model), norms(pruned), norms(model))
    np.testing.assert_allclose(losses[0], expected / 2, rtol=2e-2)


def test_settling_keeps_statistics_in_inference_mode():
    model = build()
    before = norms(model)
    compress.settle_batch_norms(model, IMAGES)
    assert_kept(before, norms(model), INFERENCE)
    np.testing.assert_allclose(norms(model)["free"][0], IMAGES.mean((0, 1, 2)), rtol=1e-4)
    assert np.abs(norms(model)["variable_last"] - before["variable_last"]).max() > 1e-3


def test_clustering_leaves_frozen_kernels(transfer):
    clustered = compress.cluster(transfer, clusters=4)
    fused = compress.fuse(transfer)
    assert_kept(kernels(fused), kernels(clustered), FROZEN)
    values = {name: np.unique(kernel).size for name, kernel in kernels(clustered).items()}
    assert max(values["hidden"], values["logits"], values["inference_conv"]) <= 4
    assert not any(parts_of(fused)[name].trainable for name in FROZEN)
    assert {entry.name for entry in compress.cluster_report(clustered).layers} >= {"frozen_conv", "hidden", "logits"}


def test_a_kernel_that_a_frozen_one_is_merged_into_is_frozen():
    images = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 1, name="first", trainable=False)(images)
    x = layers.Conv2D(8, 1, name="second")(x)
    x = layers.Add(name="add")([layers.Conv2D(8, 3, padding="same", name="wide")(x),
                                layers.Conv2D(8, 1, name="narrow", trainable=False)(x)])  # fmt: skip
    fused = compress.fuse(keras.Model(images, layers.ReLU()(x)))
    kernels = [layer for layer in fused.layers if getattr(layer, "kernel", None) is not None]
    assert [layer.name for layer in kernels if not layer.trainable] == ["first", "wide"]


def test_quantization_aware_training_keeps_them_too():
    model = build(block=False)
    trained = compress.train_quantized(
        model, (IMAGES, LABELS), epochs=1, batch_size=16, batch_norm_steps=2, learning_rate=1e-2, verbose=0
    )
    back = compress.quantized_weights_to_keras(trained, model)
    assert_kept(kernels(model), kernels(back), FROZEN)
    assert_kept(norms(model), norms(back), INFERENCE)
    assert np.abs(kernels(back)["hidden"] - kernels(model)["hidden"]).max() > 1e-3
    assert np.abs(norms(back)["free"] - norms(model)["free"]).max() > 1e-3


def test_only_frozen_layers_are_an_error():
    model = build(block=False)
    with pytest.raises(InvalidArgumentError, match=r"with `trainable=True`: frozen kernels .* Received: 'frozen_\*'"):
        compress.prune(model, (IMAGES, LABELS), layers="frozen_*", verbose=0)
    assert [entry.name for entry in compress.sparsity(model, "frozen_*").layers] == ["frozen_stem", "frozen_conv"]
    report = compress.sensitivity(model, (IMAGES, LABELS), sparsities=(0.5,))
    assert not {"frozen_conv", "variable_conv", "flat_conv"} & set(report.accuracies)
    model.trainable = False
    with pytest.raises(InvalidArgumentError, match="which has frozen .*hidden.*logits"):
        compress.prune(model, (IMAGES, LABELS), verbose=0)
