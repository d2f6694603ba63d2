"""A conversion must not leave a notebook with gigabytes that nothing uses."""

import subprocess
import sys

import pytest

PROGRAM = """
import pathlib, sys, keraslight
from keraslight.export import to_litert
def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20
model = keraslight.create_model("resnet18", classes=10, input_shape=(64, 64, 3))
before = resident()
to_litert(model, sys.argv[1])
print(before, resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="2026-11: malloc_trim is glibc's, and /proc is Linux's")
def test_the_converters_memory_is_given_back(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "model.tflite"], capture_output=True, text=True, check=True
    )
    before, after = map(float, done.stdout.split()[-2:])
    assert after - before < 250, f"{before:.0f} MB before, {after:.0f} MB after a conversion of 45 MB of weights"
