"""Compares model.tflite and SavedModel of a servable, as the server runs them: MobileNetV4 conv_small, batch size 1.

One process, interleaved; medians. Both may use all cores.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import keraslight
from keraslight.export import save_servable

REPEATS = 100


def main() -> None:
    model = keraslight.MobileNetV4("conv_small", preprocessing=True)
    with tempfile.TemporaryDirectory() as folder:
        version = save_servable(model, Path(folder, "small"), labels=[str(i) for i in range(1000)])
        interpreter = Interpreter(str(version / "model.tflite"), num_threads=os.cpu_count())
        runner = interpreter.get_signature_runner("serving_default")
        saved = tf.saved_model.load(str(version)).signatures["serving_default"]
        image = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3)).astype("float32")
        engines = {
            "SavedModel": lambda: np.asarray(saved(images=tf.constant(image))["probabilities"]),
            "LiteRT": lambda: runner(images=image)["probabilities"],
        }
        times: dict[str, list[float]] = {name: [] for name in engines}
        answers = {name: run() for name, run in engines.items()}
        for _ in range(REPEATS):
            for name, run in engines.items():
                began = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - began)
    median = {name: 1000 * statistics.median(values) for name, values in times.items()}
    print(", ".join(f"{name} {value:.2f} ms" for name, value in median.items()))
    print(f"ratio LiteRT / SavedModel {median['LiteRT'] / median['SavedModel']:.2f}")
    print(f"largest difference of a probability {np.abs(answers['LiteRT'] - answers['SavedModel']).max():.1e}")


if __name__ == "__main__":
    main()
