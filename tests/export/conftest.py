"""MediaPipe Tasks, which lives in an environment of its own, as a fixture."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parent / "mediapipe_classify.py"
PYTHON = Path(sys.prefix, "mediapipe", "bin", "python")


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
