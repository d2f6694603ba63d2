"""A net that exports in a moment, and MediaPipe Tasks, which lives in an environment of its own."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keraslight.layers import ImageNormalization
from keraslight.preprocessing import Preprocessing

SCRIPT = Path(__file__).parent / "mediapipe_classify.py"
PYTHON = Path(sys.prefix, "mediapipe", "bin", "python")
SPEC = Preprocessing((8, 12), interpolation="bilinear")


@pytest.fixture(scope="session")
def mediapipe_classify(tmp_path_factory):
    """A function (file, uint8 images (N, H, W, 3)) -> the best five [label, score] of each image, best first."""

    def classify(file, images):
        if not PYTHON.exists():
            pytest.fail(f"MediaPipe is missing: {PYTHON}. `make test` sets it up.")
        archive = tmp_path_factory.mktemp("images") / "images.npz"
        np.savez(archive, images=images)
        done = subprocess.run([PYTHON, SCRIPT, file, archive], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(answers) == len(images)
        return answers

    return classify


@pytest.fixture(scope="session")
def build_net():
    """A function that builds raw pixels (8, 12, 3) -> 3 classes; the same weights for the same seed."""

    def build(seed=0, preprocessing=SPEC, activation="softmax"):
        keras.utils.set_random_seed(seed)
        images = keras.Input((*preprocessing.size, preprocessing.channels), name="images")
        x = ImageNormalization(preprocessing)(images)
        x = keras.layers.Conv2D(4, 3, use_bias=False, name="conv")(x)
        x = keras.layers.BatchNormalization(name="norm")(x)
        x = keras.layers.ReLU(name="relu")(x)
        x = keras.layers.Dropout(0.2, name="dropout")(keras.layers.GlobalAveragePooling2D(name="pool")(x))
        model = keras.Model(images, keras.layers.Dense(3, activation=activation, name="classifier")(x), name="net")
        rng = np.random.default_rng(seed)
        for name in ("moving_mean", "moving_variance"):
            variable = getattr(model.get_layer("norm"), name)
            variable.assign(rng.uniform(0.2, 1, variable.shape))
        return model

    return build
