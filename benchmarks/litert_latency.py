"""Compares our model.tflite with keras.applications exported by `model.export(format="litert")`, batch size 1.

Same architectures with random weights, 224x224, 1000 classes; then int8 with float32. One process, one thread,
interleaved; medians. Targets: at most 1.0, and 0.6 for MobileNetV2 in int8. The latter is 0.50 on a CPU with AVX-512
VNNI (AMD EPYC), but 0.61 to 0.65 on one with AMX, where float32 is even faster: XNNPACK's int8 depthwise kernel takes
1.4 times as long as the float32 one there (38% of the int8 file's time), and the first convolution, with 3 channels,
fills a 16th of a tile (13%).
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter

import keraslight
from keraslight.compress import settle_batch_norms
from keraslight.export import to_litert

PAIRS = {  # name -> Keras' builder, and whether its models (and so ours) normalize pixels
    "mobilenet_v2_100": (keras.applications.MobileNetV2, False),
    "mobilenet_v3_large_100": (keras.applications.MobileNetV3Large, True),
    "efficientnet_b0": (keras.applications.EfficientNetB0, True),
    "convnext_tiny": (keras.applications.ConvNeXtTiny, True),
}
INT8 = ("mobilenet_v2_100", "mobilenet_v3_large_100", "mobilenet_v4_conv_small", "convnext_tiny")


def interpreter(path: Path) -> Interpreter:
    """An interpreter with a random image as its input."""
    runner = Interpreter(str(path), num_threads=1)
    details = runner.get_input_details()[0]
    runner.resize_tensor_input(details["index"], (1, 224, 224, 3))  # Keras exports an open batch size
    runner.allocate_tensors()
    runner.set_tensor(details["index"], np.random.default_rng(0).random((1, 224, 224, 3), np.float32))
    runner.invoke()
    return runner


def ratio(ours: Path, theirs: Path, repeats: int) -> tuple[float, float, float]:
    """Median milliseconds of both, and the median ratio over the rounds."""
    runners = [interpreter(ours), interpreter(theirs)]
    times: list[list[float]] = [[], []]
    for turn in range(repeats):
        for which in (0, 1) if turn % 2 else (1, 0):
            began = time.perf_counter()
            runners[which].invoke()
            times[which].append(1000 * (time.perf_counter() - began))
    first, second = (statistics.median(values) for values in times)
    return first, second, statistics.median(a / b for a, b in zip(*times, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=200, help="rounds per pair")
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        for name, (application, normalizes) in PAIRS.items():
            keras.utils.set_random_seed(0)
            model = keraslight.create_model(name, input_shape=(224, 224, 3), preprocessing=normalizes)
            ours = to_litert(model, Path(folder, f"{name}.tflite"))
            theirs = Path(folder, f"keras_{name}.tflite")
            application(weights=None).export(theirs, format="litert", verbose=False)
            mine, other, share = ratio(ours, theirs, repeats)
            print(f"{name}: ours {mine:.2f} ms, keras.applications {other:.2f} ms, ratio {share:.2f}", flush=True)
        images = np.random.default_rng(0).normal(size=(8, 224, 224, 3)).astype("float32")
        for name in INT8:
            model = keraslight.create_model(name, input_shape=(224, 224, 3))
            settle_batch_norms(model, images)  # random ones shrink ranges below the limit of XNNPACK's kernels
            files = [
                to_litert(model, Path(folder, f"{numbers}.tflite"), quantization=numbers, representative_data=samples)
                for numbers, samples in (("int8", images), (None, None))
            ]
            mine, other, share = ratio(*files, repeats)
            print(f"{name}: int8 {mine:.2f} ms, float32 {other:.2f} ms, ratio {share:.2f}", flush=True)


if __name__ == "__main__":
    main()
