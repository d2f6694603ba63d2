"""The first training step of every kind of training is traced once."""

import keras
import numpy as np
import pytest
from keras.src.backend.tensorflow import trainer

from keraslight import compress
from keraslight.preprocessing import Preprocessing
from keraslight.training import Distillation, ImageData, Progressive, Recipe, train

IMAGES = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1)).astype("float32")
LABELS = np.arange(16) % 3


def small(units=3, activation="softmax"):
    images = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, name="conv")(images))
    return keras.Model(images, keras.layers.Dense(units, activation, name="logits")(x))


@pytest.fixture
def traces(monkeypatch):
    """Counts the calls of the training step, all of which are traces."""
    seen = []
    step = trainer.TensorFlowTrainer.train_step

    def counted(self, data):
        seen.append(self)
        return step(self, data)

    monkeypatch.setattr(trainer.TensorFlowTrainer, "train_step", counted)
    return seen


def rows(labels):
    return np.eye(3, dtype="float32")[labels]


@pytest.mark.parametrize(
    "run",
    [
        lambda: compress.prune(small(), (IMAGES, LABELS), epochs=1, verbose=0),
        lambda: compress.prune(small(), (IMAGES, rows(LABELS)), epochs=1, verbose=0),
        lambda: compress.prune(small(activation=None), (IMAGES, rows(LABELS)), epochs=1, task="regression", verbose=0),
        lambda: compress.prune(small(1, "sigmoid"), (IMAGES, LABELS % 2), epochs=1, verbose=0),
        lambda: compress.prune(
            small(),
            (IMAGES, LABELS),
            epochs=1,
            distillation=Distillation(small()),
            validation_data=(IMAGES, LABELS),
            verbose=0,
        ),
        lambda: compress.cluster(small(), (IMAGES, LABELS), clusters=4, epochs=1, verbose=0),
    ],
    ids=["classes", "rows", "regression", "binary", "distilled", "clustered"],
)
def test_fine_tuning(run, traces):
    run()
    assert len(traces) == 1


@pytest.mark.parametrize("distilled", [False, True])
def test_training(distilled, traces, tmp_path):
    data = ImageData.from_arrays(
        IMAGES.astype("uint8"), LABELS, ["a", "b", "c"], Preprocessing((8, 8), mean=(0.5,), std=(0.5,))
    )
    distillation = Distillation(small()) if distilled else None
    train(small(), data, Recipe(epochs=1, batch_size=4), run_dir=tmp_path, distillation=distillation, progress=False)
    assert len(traces) == 1


@pytest.mark.parametrize(("dropout", "count"), [((0.0, 0.0), 1), ((0.1, 0.3), 3)])
def test_stages_are_traced_once_unless_their_dropout_differs(dropout, count, traces, tmp_path):
    images = keras.Input((None, None, 1))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(images))
    net = keras.Model(images, keras.layers.Dense(3, "softmax")(keras.layers.Dropout(0.1)(x)))
    data = ImageData.from_arrays(
        IMAGES.astype("uint8"), LABELS, ["a", "b", "c"], Preprocessing((8, 8), mean=(0.5,), std=(0.5,))
    )
    stages = Progressive(stages=3, size=(4, 8), magnitude=(0, 0), dropout=dropout)
    train(net, data, Recipe(epochs=3, batch_size=4, progressive=stages), run_dir=tmp_path, progress=False)
    assert len(traces) == count
