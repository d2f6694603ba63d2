"""One process of a training on Keras' JAX backend, for `test_distributed.py`: trains, and writes what came out."""

import json
import os
import signal
import sys

import keras
import numpy as np

from keraslight import training
from keraslight.errors import InvalidArgumentError
from keraslight.layers import BatchNorm, ImageNormalization
from keraslight.preprocessing import Preprocessing

job = json.loads(sys.argv[1])
SMALL = Preprocessing(size=(16, 16), crop_mode="squash", interpolation="bilinear", mean=(0.5,), std=(0.5,))


def data(count):
    """Images of three classes, told apart by where the bright bar is, with noise."""
    random = np.random.default_rng(0)
    targets = np.arange(count) % 3
    pixels = random.integers(0, 120, (count, 16, 16, 1), dtype=np.uint8)
    for image, target in zip(pixels, targets, strict=True):
        image[5 * target : 5 * target + 4] += 100
    return training.ImageData.from_arrays(pixels, targets, ["top", "middle", "bottom"], SMALL)


def build(size=16, dropout=0.0, auxiliary=False):
    layers = keras.layers
    images = keras.Input((size, size, 1))
    x = ImageNormalization(SMALL)(images)
    x = layers.Conv2D(6, 3, strides=2, padding="same", use_bias=False, name="stem_conv")(x)
    x = layers.ReLU()(BatchNorm(momentum=0.9, name="stem_bn")(x))
    inner = x
    x = layers.Conv2D(8, 3, strides=2, padding="same", name="stage1_block0_conv")(x)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    if dropout:
        x = layers.Dropout(dropout)(x)
    scores = layers.Dense(3, activation="softmax", name="head")(x)
    if not auxiliary:
        return keras.Model(images, scores)
    other = layers.Dense(3, activation="softmax", name="other")(layers.GlobalAveragePooling2D()(inner))
    return keras.Model(images, {"classifier": scores, "aux1": other})


class Killed(keras.callbacks.Callback):
    """Ends or stops this process in an epoch, or raises an error."""

    def on_train_batch_end(self, batch, logs=None):
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps == job["dies"]["step"]:
            if job["dies"]["how"] == "raise":
                raise ValueError("the disk is full")
            os.kill(os.getpid(), getattr(signal, job["dies"]["how"]))


def main():
    if job.get("processes") or job["devices"] > 1:
        arguments = [job.get("address"), job.get("processes"), job.get("process")]
        training.distribute(*arguments, timeout=job.get("timeout", 60))
    results = {}
    runs = dict(job["runs"])
    if job.get("alone") and job["process"] == 1:  # the first process waits for it
        runs["alone"] = {**runs["plain"], "to": f"{job['out']}-alone"}
    for name, run in runs.items():
        if name == "alone":
            keras.distribution.set_distribution(None)
        if job.get("process"):
            run = {**run, **job.get("others", {})}
        fields = run.get("recipe", {})
        recipe = training.Recipe.from_dict({"epochs": 2, "batch_size": 8, "seed": 3} | fields)
        keras.utils.set_random_seed(run.get("seed", 7))
        model = build(**run.get("model", {}))
        np.savez(f"{job['out']}.{name}.initial.npz", *model.get_weights())
        try:
            result = training.train(
                model,
                data(run.get("images", 104)),
                recipe,
                run_dir=run["to"],
                progress=False,
                distillation=training.Distillation(build()) if run.get("teacher") else None,
                callbacks=[Killed()] if job.get("dies") else [],
            )
        except InvalidArgumentError as error:
            results[name] = f"{type(error).__name__}: {error}"
            continue
        timed = ("seconds", "images_per_second", "waiting")
        results[name] = [{k: v for k, v in row.items() if k not in timed} for row in result.history]
        np.savez(f"{job['out']}.{name}.npz", *result.model.get_weights())
    with open(f"{job['out']}.json", "w", encoding="utf-8") as file:
        json.dump(results, file)


main()
