"""Compares `ImageData.train`, which decodes files in each epoch, with a hand-written tf.data pipeline.

Both read the same 224x224 JPEG files in shuffled order, decode them, and augment batches with the same operations. The
hand-written pipeline knows that the files are upright RGB images of the right size; `ImageData.train` finds that out
for each file. Epochs alternate. Medians of images per second over all repeats, without each epoch's first batch; the
ratio is the median of each pair's. Target: at least 0.9 of the hand-written pipeline's rate.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from keraslight import Preprocessing
from keraslight.training import Augmentation, ImageData, load_directory

SIZE, BATCH = 224, 32
IMAGES = int(os.environ.get("IMAGES", "512"))
REPEATS = int(os.environ.get("REPEATS", "9"))
AUGMENTATION = Augmentation(shift=0.1, rotate_degrees=10, zoom=0.1, brightness=0.1, flip=True)


def write(folder: Path) -> None:
    """Writes smooth images of about 20 kB, like photographs."""
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        coarse = tf.constant(rng.uniform(0, 255, (28, 28, 3)), tf.float32)
        smooth = tf.clip_by_value(tf.image.resize(coarse, (SIZE, SIZE), "bicubic"), 0, 255)
        path = folder / ("cat", "dog")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(tf.io.encode_jpeg(tf.cast(smooth, tf.uint8), quality=90).numpy())


def by_hand(data: ImageData, epoch: int) -> tf.data.Dataset:
    indices = data.train_indices
    files, targets = np.array(data.files)[indices], data.targets[indices]

    def read(file: tf.Tensor, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.cast(tf.io.decode_jpeg(tf.io.read_file(file), channels=3), tf.float32), target

    def augment(step: tf.Tensor, batch: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        images = tf.ensure_shape(batch[0], (None, SIZE, SIZE, 3))
        return AUGMENTATION(images, tf.stack([tf.constant(0, tf.int64), step])), batch[1]

    dataset = tf.data.Dataset.from_tensor_slices((files, targets)).shuffle(len(files), seed=epoch)
    dataset = dataset.map(read, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH, drop_remainder=True).enumerate()
    return dataset.map(augment, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def rate(dataset: tf.data.Dataset) -> float:
    batches = iter(dataset)
    next(batches)
    began = time.perf_counter()
    count = sum(len(targets) for _, targets in batches)
    return count / (time.perf_counter() - began)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        data = load_directory(folder, Preprocessing((SIZE, SIZE)), progress=False)
        files_only = ImageData(
            data.labels,
            data.preprocessing,
            data.targets,
            data.train_indices,
            data.validation_indices,
            files=data.files,
        )
        rates: dict[str, list[float]] = {"hand-written": [], "ImageData.train": []}
        for repeat in range(REPEATS):
            rates["hand-written"].append(rate(by_hand(files_only, repeat)))
            rates["ImageData.train"].append(rate(files_only.train(BATCH, AUGMENTATION, first_epoch=repeat)))
    medians = {name: statistics.median(values[1:]) for name, values in rates.items()}
    pairs = zip(rates["ImageData.train"][1:], rates["hand-written"][1:], strict=True)
    print(
        f"{SIZE}x{SIZE} JPEG files, batches of {BATCH}: hand-written {medians['hand-written']:.0f} images/s, "
        f"ImageData.train {medians['ImageData.train']:.0f} images/s, ratio "
        f"{statistics.median(ours / theirs for ours, theirs in pairs):.2f}"
    )


if __name__ == "__main__":
    main()
