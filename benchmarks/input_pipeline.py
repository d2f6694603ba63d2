"""Compares `ImageData.train`, which decodes files in each epoch, with a hand-written tf.data pipeline.

Both read the same 224x224 JPEG files in shuffled order, decode them, and augment batches with the same operations. The
hand-written pipeline knows that the files are upright RGB images of the right size; `ImageData.train` finds that out
for each file. Some epochs of one alternate with those of the other. Medians of images per second over all repeats,
without the first batch; the ratios are the medians of each pair's, of wall time and, in parentheses, of the process's
CPU time over all threads. Target: at least 0.9 of the hand-written pipeline's rate.
"""

import dataclasses
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
EPOCHS = int(os.environ.get("EPOCHS", "4"))
REPEATS = int(os.environ.get("REPEATS", "7"))
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

    dataset = tf.data.Dataset.from_tensor_slices((files, targets)).shuffle(len(files), seed=epoch).repeat(EPOCHS)
    dataset = dataset.map(read, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH, drop_remainder=True).enumerate()
    return dataset.map(augment, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def rates(dataset: tf.data.Dataset) -> tuple[float, float]:
    """Images per second of wall time and of CPU time."""
    batches = iter(dataset)
    next(batches)
    began = time.perf_counter(), time.process_time()
    count = sum(len(targets) for _, targets in batches)
    return count / (time.perf_counter() - began[0]), count / (time.process_time() - began[1])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        data = load_directory(folder, Preprocessing((SIZE, SIZE)), progress=False)
        data = dataclasses.replace(data, pixels=None)  # as if they needed more memory
        hand, ours = [], []
        for repeat in range(REPEATS):
            hand.append(rates(by_hand(data, repeat)))
            ours.append(rates(data.train(BATCH, AUGMENTATION, first_epoch=repeat, epochs=EPOCHS)))
    wall, cpu = (statistics.median(a[i] / b[i] for a, b in zip(ours, hand, strict=True)) for i in (0, 1))
    print(
        f"{SIZE}x{SIZE} JPEG files, batches of {BATCH}: "
        f"hand-written {statistics.median(r for r, _ in hand):.0f} images/s, "
        f"ImageData.train {statistics.median(r for r, _ in ours):.0f} images/s, ratio {wall:.2f} ({cpu:.2f})"
    )


if __name__ == "__main__":
    main()
