"""A training step while pruning, and a quantization-aware one, against a plain step of the same model.

Whole steps inside `fit`, callbacks included: medians over the steps of the last epoch, so that tracing does not count.
Random weights, no XLA. `python benchmarks/pruning_step.py NAME ...` runs some models. Promised: at most 1.15 for
pruning, at most 3 for quantization-aware training.
"""

import os
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import keraslight
from keraslight import compress

NAMES = ("mobilenet_v2_100", "mobilenet_v4_conv_small", "resnet18")
SIZE, BATCH = 96, 16
STEPS = int(os.environ.get("STEPS", "20"))


def clock(base: type):
    """A callback of that library that takes the time from the end of a step to the end of the next."""

    class Clock(base):
        def on_epoch_begin(self, epoch, logs=None):
            self.ends = []

        def on_train_batch_end(self, batch, logs=None):
            self.ends.append(time.perf_counter())

        @property
        def seconds(self) -> float:
            return statistics.median(b - a for a, b in zip(self.ends, self.ends[1:], strict=False))

    return Clock()


def measure(name: str) -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(STEPS * BATCH, SIZE, SIZE, 3)).astype("float32")
    labels = rng.integers(0, 10, STEPS * BATCH)

    def fit(model, watch, *callbacks) -> float:
        model.fit(images, labels, batch_size=BATCH, epochs=2, shuffle=False, verbose=0, callbacks=[*callbacks, watch])
        return watch.seconds

    seconds = {}
    for kind in ("plain", "pruning", "plain again"):  # twice: what the machine does besides shows
        model = keraslight.create_model(name, input_shape=(SIZE, SIZE, 3), classes=10)
        model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
        callbacks = [compress.Pruning(0.7)] if kind == "pruning" else []
        seconds[kind] = fit(model, clock(keras.callbacks.Callback), *callbacks)
    quantized = compress.quantize_aware(model, calibration_data=images[:BATCH])
    import tf_keras

    seconds["quantization-aware"] = fit(quantized, clock(tf_keras.callbacks.Callback))
    plain = statistics.mean((seconds["plain"], seconds["plain again"]))
    print(
        f"{name}: plain step {1e3 * plain:.0f} ms (again: {seconds['plain again'] / seconds['plain']:.2f}), "
        f"pruning / plain {seconds['pruning'] / plain:.2f}, "
        f"quantization-aware / plain {seconds['quantization-aware'] / plain:.2f}",
        flush=True,
    )


def main() -> None:
    for name in sys.argv[1:] or NAMES:
        measure(name)


if __name__ == "__main__":
    main()
