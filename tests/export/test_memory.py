"""Conversions must not leave a notebook with gigabytes that nothing uses, however many they are."""

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

MANY = """
import gc, pathlib, sys, keras, numpy as np
from keraslight.export import to_litert, to_onnx
def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20
images = np.random.default_rng(0).normal(size=(8, 16, 16, 3)).astype("float32")
def convert(number):
    model = keras.Sequential([
        keras.Input((16, 16, 3)),
        keras.layers.Conv2D(8, 3, padding="same", use_bias=False),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(4, activation="softmax"),
    ])
    if number % 3 == 0:
        to_litert(model, sys.argv[1])
    elif number % 3 == 1:
        to_litert(model, sys.argv[1], quantization="int8", representative_data=images)
    else:
        to_onnx(model, sys.argv[1])
first, rest = int(sys.argv[2]), int(sys.argv[3])
for number in range(first):
    convert(number)
gc.collect()
gc.freeze()  # collecting what the libraries have made takes as long as a conversion
before = resident()
for number in range(rest):
    convert(number)
print(before, resident())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="2026-11: malloc_trim is glibc's, and /proc is Linux's")
def test_the_converters_memory_is_given_back(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "model.tflite"], capture_output=True, text=True, check=True
    )
    before, after = map(float, done.stdout.split()[-2:])
    assert after - before < 250, f"{before:.0f} MB before, {after:.0f} MB after a conversion of 45 MB of weights"


@pytest.mark.skipif(sys.platform != "linux", reason="2026-11: malloc_trim is glibc's, and /proc is Linux's")
@pytest.mark.parametrize(
    ("first", "rest", "growth"),  # growth in MiB: 0.1 for each conversion
    [pytest.param(9, 24, 2.4, id="24"), pytest.param(20, 1000, 100, id="1000", marks=pytest.mark.slow)],
)
def test_memory_is_flat_over_many_conversions(first, rest, growth, tmp_path):
    command = [sys.executable, "-c", MANY, tmp_path / "model", str(first), str(rest)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, after = map(float, done.stdout.split()[-2:])
    assert after - before < growth, f"{before:.1f} MB before, {after:.1f} MB after {rest} conversions"
