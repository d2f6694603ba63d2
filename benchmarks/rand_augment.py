"""Compares RandAugment of `keraslight.training.Augmentation` with `keras.layers.RandAugment`, in a tf.data pipeline.

Batches of 32 images of 96 x 96; both run in a traced function, interleaved in one process; medians. Keras' layer draws
one operation for a whole batch, ours one for each image.
"""

import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from keraslight.training import Augmentation

REPEATS = 15


def main() -> None:
    images = tf.constant(np.random.default_rng(0).uniform(0, 255, (32, 96, 96, 3)).astype(np.float32))
    ours = tf.function(Augmentation(rand_layers=2, rand_magnitude=9))
    layer = keras.layers.RandAugment(value_range=(0, 255), num_ops=2, factor=0.5, seed=0)
    theirs = tf.function(lambda given: layer(given, training=True))
    runs = {"keraslight": lambda step: ours(images, tf.constant([0, step])), "keras": lambda step: theirs(images)}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for step in range(REPEATS + 1):
        for name, run in runs.items():
            began = time.process_time()
            run(step)
            times[name].append(time.process_time() - began)
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}  # the first call traces
    for name, seconds in medians.items():
        print(f"{name:<11} {1000 * seconds:7.1f} ms of CPU time a batch")
    print(f"keras / keraslight: {medians['keras'] / medians['keraslight']:.1f}")


if __name__ == "__main__":
    main()
