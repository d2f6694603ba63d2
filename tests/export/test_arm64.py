"""Files on emulated ARM64 kernels give the answers that they give here."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keraslight import compress
from keraslight.errors import ExportError, InvalidArgumentError, MissingDependencyError
from keraslight.export import arm64_problem, install_arm64, litert_runner, run_on_arm64, to_litert
from keraslight.export.litert.arm64 import _install
from tests.compress import digit_models

SAMPLE = ("AlexNet", "LeNet5", "ResNet")  # `make test-all` runs the others
IMAGES = 100

emulated = pytest.mark.skipif(bool(arm64_problem()), reason=arm64_problem())


def small():
    keras.utils.set_random_seed(0)
    images = keras.Input((12, 12, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="stem")(images)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, keras.layers.Dense(3, activation="softmax")(x), name="net")


@emulated
def test_outputs_instructions_and_functions(tmp_path):
    model = small()
    file = to_litert(model, tmp_path / "net.tflite")
    images = np.random.default_rng(0).normal(size=(5, 12, 12, 3)).astype("float32")
    run = run_on_arm64(file, images)
    np.testing.assert_allclose(run.outputs, model.predict(images, verbose=0), atol=1e-6)
    assert run.outputs.shape == (5, 3)
    # 5 * 5 * 8 * 27 multiply-adds in vectors of four, with loads and the rest around.
    assert 5_400 / 4 < run.instructions < 40_000
    assert sum(run.functions.values()) == run.instructions
    assert any(name.startswith("xnn_f32_") for name in run.functions)
    assert run.outside == ()
    assert run.sparse == 0
    assert "million instructions" in str(run)
    assert "outside XNNPACK: nothing" in str(run)
    assert run_on_arm64(file, images[:1]).instructions == pytest.approx(run.instructions, rel=0.02)  # of one run each


@emulated
def test_a_larger_batch_takes_more_instructions(tmp_path):
    images = np.zeros((8, 12, 12, 3), "float32")
    one, eight = (
        run_on_arm64(to_litert(small(), tmp_path / f"{size}.tflite", batch_size=size), images) for size in (1, 8)
    )
    np.testing.assert_allclose(one.outputs, eight.outputs, atol=1e-6)
    assert 2 * one.instructions < eight.instructions


@emulated
def test_operators_outside_xnnpack_are_named(tmp_path):
    images = keras.Input((8, 8, 3))
    x = keras.ops.flip(keras.layers.Conv2D(4, 1)(images), axis=1)
    model = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))
    run = run_on_arm64(to_litert(model, tmp_path / "net.tflite"), np.ones((1, 8, 8, 3), "float32"))
    assert [operator.kind for operator in run.outside] == ["REVERSE_V2"]
    assert "outside XNNPACK: 1 REVERSE_V2" in str(run)


@emulated
def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(InvalidArgumentError, match="`images` must hold at least one image. Received: none"):
        run_on_arm64(tmp_path / "none.tflite", np.zeros((0, 8, 8, 3), "float32"))
    with pytest.raises(InvalidArgumentError, match="must be a .tflite file"):
        run_on_arm64(tmp_path / "none.tflite", np.zeros((1, 8, 8, 3), "float32"))


def check_parity(family: str, folder: Path, images: np.ndarray, model: keras.Model) -> None:
    """Float files give the same probabilities, int8 files the same classes."""
    labelled, _ = digit_models.digits(model.input_shape[1])
    for form in ("float32", "float16"):
        file = to_litert(model, folder / f"{form}.tflite", quantization=None if form == "float32" else form)
        difference = np.abs(run_on_arm64(file, images).outputs - litert_runner(file)(images)).max()
        assert difference <= 1e-4, (family, form, difference)
    file = compress.calibrate(model, labelled, folder / "int8.tflite")
    run = run_on_arm64(file, images)
    same = (run.outputs.argmax(-1) == litert_runner(file)(images).argmax(-1)).mean()
    assert same >= 0.99, (family, same)


@emulated
@pytest.mark.parametrize(
    "family",
    [family if family in SAMPLE else pytest.param(family, marks=pytest.mark.slow) for family in digit_models.RECIPES],
)
def test_every_family_answers_as_here(family, tmp_path, request):
    model = digit_models.trained(family, request.config.cache.mkdir("digit_models"))
    images = digit_models.digits(model.input_shape[1])[1][0][:IMAGES]
    check_parity(family, tmp_path, images, model)


@pytest.mark.parametrize(
    ("platform", "machine", "tools", "message"),
    [
        ("darwin", "arm64", True, "needs Linux on x86-64; this is darwin on arm64"),
        ("linux", "aarch64", True, "needs Linux on x86-64; this is linux on aarch64"),
        ("linux", "x86_64", False, "needs Debian's apt-get, dpkg, cc, nm, which are missing"),
        ("linux", "x86_64", True, "is not installed; run `keraslight install-arm64`"),
    ],
)
def test_what_is_missing_is_named(platform, machine, tools, message, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(_install.platform, "machine", lambda: machine)
    monkeypatch.setattr(_install.shutil, "which", lambda name: name if tools else None)
    assert message in arm64_problem()
    with pytest.raises(MissingDependencyError, match="Running on ARM64 kernels needs an emulator. Received: "):
        run_on_arm64(tmp_path / "net.tflite", np.zeros((1, 8, 8, 3), "float32"))
    if "install-arm64" not in message:
        with pytest.raises(MissingDependencyError, match=message.replace("-", ".")):
            install_arm64()


def test_a_failed_download_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(_install, "_obstacle", lambda: "")
    failed = subprocess.CompletedProcess([], 100, "", "E: Unable to locate package qemu-user\n")
    monkeypatch.setattr(_install.subprocess, "run", lambda *_, **__: failed)
    steps = []
    with pytest.raises(ExportError, match="ended with 100: E: Unable to locate package qemu-user"):
        install_arm64(steps.append)
    assert steps == ["QEMU and its libraries (Debian's qemu-user)"]
    assert list(tmp_path.iterdir()) == []
    assert "install-arm64" in arm64_problem()
