"""A training step with keraslight's grouped convolution against stock Keras', on this machine's CPU.

The same layer sizes and kernels, the two taking turns, medians.
"""

import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from keraslight.layers import GroupedConv2D

CASES = ((28, 240, 3), (14, 512, 32))  # side, channels, groups: ShuffleNetV1 g=3, a ResNeXt stage
BATCH, STEPS = 8, 5


def step(layer_class: type, side: int, channels: int, groups: int):
    images = keras.Input((side, side, channels))
    x = layer_class(channels, 3, groups=groups, padding="same", use_bias=False)(images)
    model = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))
    model.compile("sgd", "mse", jit_compile=False)
    data = np.random.default_rng(0).normal(size=(BATCH, side, side, channels)).astype("float32")
    targets = np.zeros((BATCH, channels), "float32")
    model.train_on_batch(data, targets)
    return lambda: model.train_on_batch(data, targets)


def main() -> None:
    for side, channels, groups in CASES:
        steps = {"keraslight": step(GroupedConv2D, side, channels, groups),
                 "stock": step(keras.layers.Conv2D, side, channels, groups)}  # fmt: skip
        times = {name: [] for name in steps}
        for _ in range(STEPS):
            for name, run in steps.items():
                began = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - began)
        ours, theirs = (1000 * statistics.median(values) for values in times.values())
        case = f"{side}x{side}x{channels}, {groups} groups"
        print(f"{case}: {ours:.1f} ms against {theirs:.1f} ms, ratio {ours / theirs:.3f}")


if __name__ == "__main__":
    main()
