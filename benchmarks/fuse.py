"""Compares Keras predict of a fused model with the original: time ratio, layers, and the largest difference.

One process per model, interleaved; medians of wall time and, in parentheses, of the process's CPU time over all
threads; random weights, no XLA. Run `python benchmarks/fuse.py NAME ...` for selected models. Targets: at most 1.0
for all, at most 0.9 for networks with many batch norms.

DenseNet121 has 62 batch norms in front of a ReLU. As `relu(s * x + t)` isn't linear in `x`, no convolution can absorb
them. TensorFlow runs batch norm and ReLU in one operation, but slowly: on 8x32x32x192, with the following 1x1
convolution, it takes 6.2 ms of CPU time, compared to 5.1 as a 1x1 depthwise convolution with ReLU, 5.1 with the ReLU
alone and 4.1 without both. `fuse` turns them into depthwise convolutions (ratio 0.86, formerly 0.98). `max(x, -t /
s)`, with `s` and `t` in the following convolution, took 5.6 ms.
"""

import gc
import os
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import keraslight
from keraslight import compress

NAMES = (
    *("mobilenet_v1_100", "mobilenet_v2_100", "mobilenet_v3_large_100", "mobilenet_v4_conv_small", "mobilenext_100"),
    *(
        "efficientnet_b0",
        "resnet50",
        "densenet121",
        "repvgg_a0",
        "shufflenet_v2_100",
        "convnext_tiny",
        "squeezenet_1_1",
    ),
)
SIZE, BATCH = 128, 8
REPEATS = int(os.environ.get("REPEATS", "30"))


def compare(name: str) -> None:
    shape = (SIZE, SIZE, 3)
    plain = keraslight.create_model(name, input_shape=shape, classifier_activation=None)
    rng = np.random.default_rng(0)
    for layer in plain.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    models = {"fused": compress.fuse(plain), "plain": plain}
    images = rng.normal(size=(BATCH, *shape)).astype("float32")
    times: dict[str, list[tuple[float, float]]] = {which: [] for which in models}
    outputs = {which: model.predict_on_batch(images) for which, model in models.items()}  # traces
    for _ in range(REPEATS):
        for which, model in models.items():
            began = time.perf_counter(), time.process_time()
            model.predict_on_batch(images)
            times[which].append((time.perf_counter() - began[0], time.process_time() - began[1]))
    (wall, plain_wall), (cpu, plain_cpu) = (
        [statistics.median(pair[clock] for pair in values) for values in times.values()] for clock in (0, 1)
    )
    norms = sum(isinstance(layer, keras.layers.BatchNormalization) for layer in models["fused"].layers)
    error = np.abs(outputs["fused"] - outputs["plain"]).max() / outputs["plain"].std()
    print(
        f"{name}: fused / plain {wall / plain_wall:.2f} ({cpu / plain_cpu:.2f}), fused {1e3 * wall:.1f} ms, "
        f"{len(models['fused'].layers)} of {len(plain.layers)} layers, {norms} batch norms left, "
        f"difference {error:.1e} std",
        flush=True,
    )


def main() -> None:
    for name in sys.argv[1:] or NAMES:
        compare(name)
        keras.backend.clear_session()
        gc.collect()


if __name__ == "__main__":
    main()
