"""Compares the moving average of the weights (`Recipe.ema`) with the weights themselves, at a constant learning rate.

ResNet-18 with a quarter of its channels on digits at 32 pixels; accuracy on the held-out images after the last epoch.
`python benchmarks/moving_average.py SEEDS EPOCHS` (3 and 6).
"""

import os
import sys
import tempfile
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import keraslight
from keraslight.training import DIGITS_PREPROCESSING, DIGITS_RECIPE, load_digits, train


class Raw(keras.callbacks.Callback):
    """The accuracy of the weights themselves, after each epoch."""

    def __init__(self, images: np.ndarray, targets: np.ndarray) -> None:
        super().__init__()
        self._images, self._targets = images.astype("float32"), targets
        self.accuracy = 0.0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        outputs = [np.asarray(self.model(part, training=False)) for part in np.array_split(self._images, 8)]
        self.accuracy = float((np.concatenate(outputs).argmax(-1) == self._targets).mean())


def main() -> None:
    seeds, epochs = (int(argument) for argument in (*sys.argv[1:3], *("3", "6")[len(sys.argv[1:3]) :]))
    spec = DIGITS_PREPROCESSING.replace(size=(32, 32))
    data = load_digits(spec)
    recipe = DIGITS_RECIPE.shortened(epochs).replace(ema=0.99, final_learning_rate=1.0)
    for seed in range(seeds):
        keras.utils.set_random_seed(seed)
        model = keraslight.create_model("resnet18", classes=10, input_shape=(32, 32, 1), preprocessing=spec, width=0.25)
        raw = Raw(*data.validation_arrays())
        with tempfile.TemporaryDirectory() as folder:
            given = recipe.replace(seed=seed)
            result = train(model, data, given, run_dir=folder, callbacks=[raw], save_every=epochs, progress=False)
        print(f"seed {seed}: average {result.history[-1]['val_accuracy']:.2%}, weights {raw.accuracy:.2%}", flush=True)
        keras.backend.clear_session()


if __name__ == "__main__":
    main()
