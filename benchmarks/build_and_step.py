"""Compares keraslight with keras.applications on the same architectures: build, training step, predict step.

Each pair runs interleaved in one process; medians, random weights, no XLA. Run
`python benchmarks/build_and_step.py NAME` for a single pair.
"""

import gc
import os
import statistics
import sys
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import keraslight

PAIRS: dict[str, tuple[str, Callable]] = {
    "MobileNetV2": ("mobilenet_v2_100", keras.applications.MobileNetV2),
    "MobileNetV3Large": ("mobilenet_v3_large_100", keras.applications.MobileNetV3Large),
    "EfficientNetB0": ("efficientnet_b0", keras.applications.EfficientNetB0),
    "EfficientNetV2S": ("efficientnet_v2_s", keras.applications.EfficientNetV2S),
    "ConvNeXtTiny": ("convnext_tiny", keras.applications.ConvNeXtTiny),
    "DenseNet121": ("densenet121", keras.applications.DenseNet121),
    "ResNet50": ("resnet50", keras.applications.ResNet50),
}
SIZE, BATCH, BUILDS, STEPS = 128, 8, 9, 10


def ratio(pair: dict[str, Callable[[], object]], repeats: int) -> float:
    """Ratio of the median durations of two interleaved functions."""
    times: dict[str, list[float]] = {name: [] for name in pair}
    for run in pair.values():
        run()  # warm-up: imports, tracing
    for _ in range(repeats):
        for name, run in pair.items():
            began = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - began)
    ours, theirs = (statistics.median(values) for values in times.values())
    return ours / theirs


def compare(name: str) -> None:
    ours, theirs = PAIRS[name]
    shape = (SIZE, SIZE, 3)
    builders = {
        "keraslight": lambda: keraslight.create_model(ours, input_shape=shape),
        "keras": lambda: theirs(weights=None, input_shape=shape),
    }

    def build(which: str) -> None:
        builders[which]()
        keras.backend.clear_session()
        gc.collect()

    building = ratio({which: lambda which=which: build(which) for which in builders}, BUILDS)
    models = {which: make() for which, make in builders.items()}
    images = np.random.default_rng(0).integers(0, 256, (BATCH, *shape)).astype("float32")
    targets = np.arange(BATCH)
    for model in models.values():
        model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    training = ratio({w: lambda m=m: m.train_on_batch(images, targets) for w, m in models.items()}, STEPS)
    predicting = ratio({w: lambda m=m: m.predict_on_batch(images) for w, m in models.items()}, 2 * STEPS)
    print(
        f"{name}: keraslight / keras.applications: build {building:.2f}, train {training:.2f}, predict {predicting:.2f}"
    )


def main() -> None:
    for name in sys.argv[1:] or PAIRS:
        compare(name)
        keras.backend.clear_session()


if __name__ == "__main__":
    main()
