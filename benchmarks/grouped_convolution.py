"""Compares training with keraslight's grouped convolution and with stock Keras' on this CPU.

Prints two ratios per model: of a whole training step with either kind of grouped convolution, and of the grouped
convolutions alone, forward and backward. Everything else in a step is the same. Runs are interleaved; medians, without
the first runs, which compile.
"""

import os
import statistics
import time
from collections import Counter
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

import keraslight
from keraslight.layers import GroupedConv2D

MODELS = ("shufflenet_v1_g3_100", "repvgg_b1g4")
SIZE, BATCH, STEPS, CLASSES = 224, 8, 5, 10


def is_grouped(layer: keras.layers.Layer) -> bool:
    return type(layer) is GroupedConv2D and layer.groups > 1


def stock(layer: keras.layers.Layer) -> keras.layers.Layer:
    """The same layer as a stock Keras convolution."""
    return (keras.layers.Conv2D if is_grouped(layer) else type(layer)).from_config(layer.get_config())


def take_turns(pair: dict[object, Callable[[], object]]) -> list[float]:
    """Median milliseconds of each function."""
    times: dict[object, list[float]] = {which: [] for which in pair}
    for run in pair.values():
        run()
    for _ in range(STEPS):
        for which, run in pair.items():
            began = time.perf_counter()
            run()
            times[which].append(1000 * (time.perf_counter() - began))
    return [statistics.median(values) for values in times.values()]


def forward_and_backward(layer: keras.layers.Layer, shape: tuple[int, ...]) -> Callable[[], object]:
    images = tf.random.stateless_normal((BATCH, *shape), seed=(0, 0))
    layer.build(images.shape)

    @tf.function
    def run():
        with tf.GradientTape() as tape:
            tape.watch(images)
            total = tf.reduce_sum(layer(images))
        return tape.gradient(total, [images, *layer.trainable_weights])

    return run


def main() -> None:
    images = np.random.default_rng(0).normal(size=(BATCH, SIZE, SIZE, 3)).astype("float32")
    targets = np.arange(BATCH)
    for name in MODELS:
        ours = keraslight.create_model(name, input_shape=(SIZE, SIZE, 3), classes=CLASSES)
        theirs = keras.models.clone_model(ours, clone_function=stock)
        theirs.set_weights(ours.get_weights())
        for model in (ours, theirs):
            model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
        fast, slow = take_turns({m: lambda m=m: m.train_on_batch(images, targets) for m in (ours, theirs)})
        print(f"{name}: training step {fast:.0f} ms, stock {slow:.0f} ms, keraslight / stock {fast / slow:.3f}")

        grouped = [layer for layer in ours.layers if is_grouped(layer)]
        counts = Counter((layer.input.shape[1:], layer.filters, layer.kernel_size, layer.strides) for layer in grouped)
        fast = slow = 0.0
        for layer in grouped:
            kind = (layer.input.shape[1:], layer.filters, layer.kernel_size, layer.strides)
            count = counts.pop(kind, 0)  # time each kind once
            if count:
                copies = (GroupedConv2D.from_config(layer.get_config()), stock(layer))
                one, other = take_turns({copy: forward_and_backward(copy, kind[0]) for copy in copies})
                fast, slow = fast + count * one, slow + count * other
        print(f"{name}: its {len(grouped)} grouped convolutions {fast:.0f} ms, stock {slow:.0f} ms, "
              f"keraslight / stock {fast / slow:.3f}")  # fmt: skip
        keras.backend.clear_session()


if __name__ == "__main__":
    main()
