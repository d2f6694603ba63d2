"""Compares training steps while pruning, and quantization-aware ones, with plain steps of the same model.

Times whole steps including callbacks, interleaved over three models, so that all see the same machine load. Medians of
wall time and, in parentheses, of the process's CPU time over all threads, without tracing. Random weights, no XLA.
"Updating masks" are the steps that compute new masks, about 20 in a training of any length; the other steps only apply
them, and "of 200" is the mean step of a training with 200 steps. Run `python benchmarks/pruning_step.py NAME ...` for
selected models. Targets: at most 1.15 for pruning, at most 3 for quantization-aware training.
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
STEPS = max(4, int(os.environ.get("STEPS", "20")))
UPDATES, TRAINING = 20, 200  # of a typical training


def median_ratio(times: list[tuple[float, float]], plain: list[tuple[float, float]]) -> str:
    wall, cpu = (statistics.median(t[i] for t in times) / statistics.median(t[i] for t in plain) for i in (0, 1))
    return f"{wall:.2f} ({cpu:.2f})"


def measure(name: str) -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(BATCH, SIZE, SIZE, 3)).astype("float32")
    labels = rng.integers(0, 10, BATCH)
    plain, pruned = (keraslight.create_model(name, input_shape=(SIZE, SIZE, 3), classes=10) for _ in range(2))
    for model in (plain, pruned):
        model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    quantized = compress.quantize_aware(plain, calibration_data=images)
    updates = range(2, STEPS // 2 + 1)  # step 1 traces; after the first half, the masks don't change
    pruning = compress.Pruning(0.7, begin_step=1, end_step=updates[-1], frequency=1)
    pruning.set_model(pruned)
    pruning.on_train_begin()

    def prune() -> None:
        pruning.on_train_batch_begin(0)
        pruned.train_on_batch(images, labels)
        pruning.on_train_batch_end(0)

    steps = {
        "plain": lambda: plain.train_on_batch(images, labels),
        "plain again": lambda: plain.train_on_batch(images, labels),
        "pruning": prune,
        "quantization-aware": lambda: quantized.train_on_batch(images, labels),
    }
    times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in steps}
    for _ in range(STEPS):
        for kind, step in steps.items():
            began = time.perf_counter(), time.process_time()
            step()
            times[kind].append((time.perf_counter() - began[0], time.process_time() - began[1]))
    times = {kind: values[1:] for kind, values in times.items()}  # the first one traces
    masking, updating = times["pruning"][len(updates) :], times["pruning"][: len(updates)]
    wall = statistics.median(seconds for seconds, _ in times["plain"])
    seconds = [statistics.median(second for second, _ in kind) for kind in (updating, masking)]
    of_training = (UPDATES * seconds[0] + (TRAINING - UPDATES) * seconds[1]) / TRAINING / wall
    print(
        f"{name}: plain step {1e3 * wall:.0f} ms (again: {median_ratio(times['plain again'], times['plain'])}), "
        f"pruning / plain {median_ratio(masking, times['plain'])}, "
        f"updating masks {median_ratio(updating, times['plain'])}, of {TRAINING} {of_training:.2f}, "
        f"quantization-aware / plain {median_ratio(times['quantization-aware'], times['plain'])}",
        flush=True,
    )


def main() -> None:
    for name in sys.argv[1:] or NAMES:
        measure(name)
        keras.backend.clear_session()


if __name__ == "__main__":
    main()
