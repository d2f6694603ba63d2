"""How fast a training is, how long it waits for its data, and that it doesn't grow."""

import gc
import time

import keras
import numpy as np
import psutil
import pytest
import tensorflow as tf

from keraslight.layers import ImageNormalization
from keraslight.training import Augmentation, Recipe, train
from keraslight.training._progress import Throughput
from keraslight.training.run_folder import RunFolder


def slow(seconds, count=4):
    """A data set of `count` batches, each of which takes so long."""

    def wait(number):
        time.sleep(seconds)
        return number

    batches = tf.data.Dataset.range(count).map(lambda number: tf.numpy_function(wait, [number], tf.int64))
    return batches.map(lambda number: (tf.ensure_shape(number, ()), {"weights": number + 1}))


def measured(batches, pause):
    """The share that was waited in an epoch of 40 images which took the batches with a pause, and the batches."""
    throughput = Throughput(40)
    taken, waited = [], 0.0
    iterator = iter(throughput.timed(batches))
    throughput.on_epoch_begin(0)
    began = asked = time.perf_counter()
    for number, parts in iterator:
        waited += time.perf_counter() - asked
        taken.append((int(number), int(parts["weights"])))
        time.sleep(pause)
        asked = time.perf_counter()
    seconds = time.perf_counter() - began
    throughput.on_test_begin()
    assert throughput.images_per_second == pytest.approx(40 / seconds, rel=0.1)
    assert throughput.waiting == pytest.approx(waited / seconds, abs=0.1)
    return throughput.waiting, taken


def test_the_time_spent_waiting_for_data_is_told():
    always, taken = measured(slow(0.1), 0.0)
    assert taken == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert always > 0.8
    ahead, _ = measured(slow(0.1).prefetch(2), 0.25)  # only the first batch is waited for
    assert ahead < 0.5


def test_a_run_records_both(build, data, recipe, tmp_path):
    result = train(build(), data, recipe.replace(epochs=2), run_dir=tmp_path, progress=False)
    for row in result.history:
        assert row["images_per_second"] >= 96 / row["seconds"]
        assert 0 <= row["waiting"] <= 1
    assert "waiting" in str(result).splitlines()[0]
    header = (tmp_path / "history.csv").read_text().splitlines()[0]
    assert header.endswith("seconds,images_per_second,waiting")


def test_a_history_of_fewer_columns_is_continued(tmp_path):
    RunFolder(tmp_path).save_history([{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0, "waiting": 0.5}])
    assert (tmp_path / "history.csv").read_text() == "epoch,loss,waiting\n1,2.0,\n2,1.0,0.5\n"


def test_only_the_first_steps_of_each_epoch(data):
    augmentation = Augmentation(shift=0.1)
    whole = list(data.train(16, augmentation, 3, first_epoch=1, epochs=2))
    some = list(data.train(16, augmentation, 3, first_epoch=1, epochs=2, most_steps=2))
    steps = data.steps_per_epoch(16)
    assert len(data.train(16, most_steps=99)) == steps
    for (images, targets), (expected, labels) in zip(some, [*whole[:2], *whole[steps : steps + 2]], strict=True):
        np.testing.assert_array_equal(images, expected)
        np.testing.assert_array_equal(targets, labels)


class Memory(keras.callbacks.Callback):
    """Notes the memory of the process after each epoch, in MB, and the Python objects."""

    def __init__(self):
        super().__init__()
        self.megabytes, self.objects = [], []

    def on_epoch_end(self, epoch, logs=None):
        gc.collect()
        self.megabytes.append(psutil.Process().memory_info().rss / 1e6)
        self.objects.append(len(gc.get_objects()))


def growth(small, data, epochs, folder):
    """MB and objects per epoch from the middle of a training that settles its batch norms, averages and augments."""
    keras.utils.set_random_seed(0)
    images = keras.Input((12, 12, 1))
    x = keras.layers.Conv2D(8, 3, use_bias=False)(ImageNormalization(small)(images))
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.99)(x))
    model = keras.Model(images, keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(x)))
    memory = Memory()
    recipe = Recipe(
        epochs=epochs, batch_size=32, ema=0.9, mixup=0.2, augmentation=Augmentation(shift=0.05, crop=(0.5, 1.0))
    )
    train(model, data, recipe, run_dir=folder, callbacks=[memory], progress=False)
    half = epochs // 2
    print(memory.megabytes[half], memory.megabytes[-1])
    return [np.polyfit(range(half), each[-half:], 1)[0] for each in (memory.megabytes, memory.objects)]


def test_a_training_does_not_grow(small, data, tmp_path):
    _, objects = growth(small, data, 8, tmp_path)
    assert objects < 300  # a pipeline traced again in each epoch leaves thousands


@pytest.mark.slow
def test_memory_is_flat_over_many_epochs(small, data, tmp_path):
    megabytes, objects = growth(small, data, 100, tmp_path)
    assert megabytes < 0.1
    assert objects < 100
