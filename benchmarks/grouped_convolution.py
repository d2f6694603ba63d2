"""A training step with keraslight's grouped convolution against the same model with stock Keras', on this CPU.

The same weights and images, the two taking turns, medians. The first steps, which compile, are not counted.
"""

import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import keraslight
from keraslight.layers import GroupedConv2D

MODELS = ("shufflenet_v1_g3_100", "repvgg_b1g4")
SIZE, BATCH, STEPS, CLASSES = 224, 8, 3, 10


def stock(layer: keras.layers.Layer) -> keras.layers.Layer:
    """The same layer, a grouped convolution as Keras' own."""
    grouped = type(layer) is GroupedConv2D and layer.groups > 1
    return (keras.layers.Conv2D if grouped else type(layer)).from_config(layer.get_config())


def main() -> None:
    images = np.random.default_rng(0).normal(size=(BATCH, SIZE, SIZE, 3)).astype("float32")
    targets = np.arange(BATCH)
    for name in MODELS:
        ours = keraslight.create_model(name, input_shape=(SIZE, SIZE, 3), classes=CLASSES)
        theirs = keras.models.clone_model(ours, clone_function=stock)
        theirs.set_weights(ours.get_weights())
        models = {"keraslight": ours, "stock": theirs}
        times: dict[str, list[float]] = {which: [] for which in models}
        for model in models.values():
            model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
            model.train_on_batch(images, targets)
        for _ in range(STEPS):
            for which, model in models.items():
                began = time.perf_counter()
                model.train_on_batch(images, targets)
                times[which].append(time.perf_counter() - began)
        fast, slow = (1000 * statistics.median(values) for values in times.values())
        print(f"{name}: training step {fast:.0f} ms, stock {slow:.0f} ms, keraslight / stock {fast / slow:.3f}")
        keras.backend.clear_session()


if __name__ == "__main__":
    main()
