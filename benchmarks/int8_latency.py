"""Latency of int8 against float32 in LiteRT, for networks of 224x224 pixels.

CPU time of one thread, both files of a network in turn, median of many runs. The last column are the instructions of
both on a phone's kernels, where the emulated ARM64 system is installed (`make arm64`).

`python benchmarks/int8_latency.py [MODEL ...]`
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter

import keraslight
from keraslight.export import arm64_problem, litert_report, run_on_arm64, to_litert

MODELS = (
    "mobilenet_v1_100",
    "mobilenet_v2_100",
    "mobilenet_v3_small_100",
    "mobilenet_v3_large_100",
    "mobilenet_v4_conv_small",
    "mobilenet_v4_conv_medium",
    "efficientnet_b0",
    "ghostnet_100",
    "shufflenet_v2_100",
    "repvgg_a0",
)
SIDE, REPEATS = 224, 60


def runner(file: Path, images: np.ndarray) -> Callable[[], float]:
    """A function that runs a file once and returns the seconds of CPU time."""
    interpreter = Interpreter(str(file), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images)

    def run() -> float:
        began = time.thread_time()
        interpreter.invoke()
        return time.thread_time() - began

    run()
    return run


def measure(name: str) -> str:
    """One row of the table."""
    keras.utils.set_random_seed(0)
    model = keraslight.create_model(name, weights=None, input_shape=(SIDE, SIDE, 3))
    images = np.random.default_rng(0).normal(size=(8, SIDE, SIDE, 3)).astype("float32")
    with tempfile.TemporaryDirectory() as folder:
        floats = to_litert(model, Path(folder) / "float32.tflite")
        int8 = to_litert(model, Path(folder) / "int8.tflite", quantization="int8", representative_data=images)
        runs = [runner(file, images[:1]) for file in (floats, int8)]
        times = [[run() for run in runs] for _ in range(REPEATS)]
        medians = [1000 * statistics.median(column) for column in zip(*times, strict=True)]
        left = sum(1 for _ in litert_report(int8).float_operators)
        phone = "not installed"
        if not arm64_problem():
            counts = [run_on_arm64(file, images[:1]).instructions for file in (floats, int8)]
            phone = f"{counts[1] / counts[0]:.2f}"
    keras.backend.clear_session()
    return f"{name:<26} {medians[0]:>9.2f} {medians[1]:>9.2f} {medians[1] / medians[0]:>7.2f} {left:>7} {phone:>14}"


def main(names: list[str]) -> None:
    print(f"{'model':<26} {'float32':>9} {'int8 (ms)':>9} {'ratio':>7} {'floats':>7} {'on ARM64':>14}")
    for name in names or MODELS:
        print(measure(name), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
