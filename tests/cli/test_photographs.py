"""The documented examples with photographs: recipes by name, and `keraslight make` against a plain training."""

import json
import re

import keras
import numpy as np
import pytest

import keraslight
from examples import faces, textures
from keraslight.export import litert_runner
from keraslight.preprocessing import Preprocessing
from keraslight.training import Recipe, load_directory, load_test, train

pytestmark = pytest.mark.slow
MODEL, SIDE = "lenet5_modern", 64


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return textures.prepare(tmp_path_factory.mktemp("photographs") / "textures")


def commands(module):
    """The commands of an example's docstring, as lists of arguments."""
    return [line.split() for line in re.findall(r"^keraslight (.*)$", module.__doc__, re.MULTILINE)]


@pytest.mark.parametrize(("module", "least"), [(textures, 0.97), (faces, 0.95)], ids=["textures", "faces"])
def test_an_example_reaches_what_is_documented(run, module, least, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    training, evaluation, *_ = commands(module)
    module.prepare(training[training.index("--data") + 1])
    assert training[training.index("--recipe") + 1] == "few_photos"
    run(*training)
    found = json.loads(run(*evaluation, "--no-robustness", "--json"))
    print(f"{module.__name__}: {found['accuracy']:.4f} of {found['images']} test images")
    assert found["accuracy"] >= least


def test_make_beats_a_plain_training_by_three_points(run, tiles, mediapipe_classify, tmp_path):
    """Means of three seeds; plain is what `train` did with folders before it augmented them."""
    made, plain = [], []
    for seed in range(3):
        out = tmp_path / f"seed{seed}"
        options = ("--model", MODEL, "--size", SIDE, "--weights", "none", "--seed", seed, "--json")
        results = json.loads(run("make", tiles, "--to", out, *options))
        spec = Preprocessing.from_dict(json.loads((out / "preprocessing.json").read_text()))
        pixels, targets = load_test(tiles, spec).validation_arrays()
        answers = litert_runner(out / "model.tflite")(pixels).argmax(1)
        made.append(np.mean(answers == targets))
        assert results["accuracy"] == made[-1]
        best = [ranking[0][0] for ranking in mediapipe_classify(out / "model.tflite", pixels)]
        assert best == [results["labels"][answer] for answer in answers]

        keras.utils.set_random_seed(seed)
        data = load_directory(tiles, spec)
        net = keraslight.create_model(MODEL, classes=3, input_shape=(SIDE, SIDE, 3), preprocessing=spec)
        train(net, data, Recipe(seed=seed), run_dir=tmp_path / f"plain{seed}")
        plain.append(np.mean(net.predict(pixels.astype("float32"), verbose=0).argmax(1) == targets))
        print(f"seed {seed}: make {made[-1]:.4f} ({results['form']}), plain {plain[-1]:.4f}", flush=True)
    assert np.mean(made) >= np.mean(plain) + 0.03, (made, plain)
