"""The whole path on scikit-learn's digits, from training to a served int8 model, with every answer compared."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import re
import select
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console

import keraslight
from keraslight import compress
from keraslight.cli._demo_report import confusion, draw_confusion, draw_images, report
from keraslight.errors import DisagreementError
from keraslight.export import save_servable, to_litert
from keraslight.training import (
    DIGITS_PREPROCESSING,
    DIGITS_RECIPE,
    ClassificationLoss,
    ImageData,
    load_digits,
    train,
)

MODEL = "mobilenet_v4_conv_small"
SPARSITY = 0.7
PRUNING_EPOCHS, QUANTIZATION_EPOCHS = 12, 3
TOLERANCE = 1e-4
"""Largest difference between two probabilities that count as the same answer."""

console = Console(width=None if sys.stdout.isatty() else 110)


@dataclasses.dataclass
class Stage:
    """One form of the model and all that is measured of it."""

    name: str
    model: Any
    sparsity: float
    servable: Path | None = None
    litert: Path | None = None
    accuracy: float = 0.0
    kilobytes: float = 0.0
    gzip_kilobytes: float = 0.0
    milliseconds: float = 0.0
    seconds: float = 0.0
    largest_difference: float = 0.0


def run_demo(to: str | Path, *, seed: int = 0, epochs: int | None = None) -> list[Stage]:
    """Runs the demo and prints its table; writes the table, pictures, files and servables to `to`.

    Args:
        to: A folder; what an earlier demo left there is replaced.
        seed: Of weights, order and augmentation. The split of the digits is always the same.
        epochs: Passes of the float training; None takes the digits recipe's.

    Raises:
        DisagreementError: a served answer differs from the model in this process, or the LiteRT files from it.
    """
    to = Path(to)
    for name in ("float", "savedmodels", "litert", "images"):
        shutil.rmtree(to / name, ignore_errors=True)
    to.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    data = load_digits(DIGITS_PREPROCESSING)
    pixels, targets = data.validation_arrays()
    console.rule("[bold]Train, prune, quantize")
    stages = list(_train_stages(data, to, seed, epochs))
    console.rule("[bold]Export and convert for Android")
    for stage in stages:
        _export(stage, to, data)
        _measure_file(stage, pixels, targets)
        console.print(f"{stage.name}: {stage.servable}, {stage.litert} ({stage.accuracy:.2%})")
    _measure_latency(stages, pixels[:1])
    console.rule("[bold]Serve and classify over gRPC")
    files = _write_images(data, to / "images")
    predictions = _serve_and_compare(stages, files, pixels, to)

    draw_confusion(confusion(targets, predictions), data.labels, to / "confusion_matrix.png")
    draw_images(files, targets, predictions, data.labels, to / "classified.png")
    report(stages, to, console, model=MODEL, images=len(files), seconds=time.monotonic() - started)
    return stages


def _train_stages(data: ImageData, to: Path, seed: int, epochs: int | None) -> Iterator[Stage]:
    recipe = DIGITS_RECIPE.replace(seed=seed)
    if epochs is not None:
        recipe = recipe.replace(epochs=epochs, warmup_epochs=min(recipe.warmup_epochs, epochs - 1))

    def batches(passes: int) -> Any:
        # Another seed than the float training's: fine-tuning sees the digits shifted and turned anew.
        return data.train(recipe.batch_size, recipe.augmentation, seed + 1, epochs=passes)

    began = time.monotonic()
    keras.utils.set_random_seed(seed)
    model = keraslight.create_model(
        MODEL, classes=len(data.labels), input_shape=data.image_shape, preprocessing=data.preprocessing
    )
    console.print(f"Training {MODEL} on {data.train_count} digits, {recipe.epochs} epochs")
    result = train(model, data, recipe, run_dir=to / "float", resume=False)
    console.print(f"Held-out accuracy {result.best_accuracy:.2%}")
    yield Stage("float", model, compress.sparsity(model).total, seconds=time.monotonic() - began)

    began = time.monotonic()
    console.print(f"Pruning {SPARSITY:.0%} of its weights, {PRUNING_EPOCHS} epochs")
    pruned = compress.prune(
        model,
        batches(PRUNING_EPOCHS),
        sparsity=SPARSITY,
        epochs=1,
        learning_rate=recipe.learning_rate / 2,
        loss=ClassificationLoss(recipe.label_smoothing),
        seed=seed,
        verbose=_verbose(),
    )
    yield Stage("pruned", pruned, compress.sparsity(pruned).total, seconds=time.monotonic() - began)

    began = time.monotonic()
    console.print(f"Quantization-aware training, {QUANTIZATION_EPOCHS} epochs; the graph is traced first")
    quantized = compress.train_quantized(pruned, batches(QUANTIZATION_EPOCHS), epochs=1, seed=seed, verbose=_verbose())
    weights = compress.quantized_weights_to_keras(quantized, pruned)
    yield Stage("int8", quantized, compress.sparsity(weights).total, seconds=time.monotonic() - began)


def _verbose() -> int:
    """Keras' progress bar on a terminal, one line an epoch in a log."""
    return 1 if console.is_terminal else 2


def _export(stage: Stage, to: Path, data: ImageData) -> None:
    """Writes the stage as the next version of the servable, and as a file for Android (batch 1)."""
    quantization = "int8" if stage.name == "int8" else None
    stage.servable = save_servable(
        stage.model,
        to / "savedmodels" / "digits",
        labels=data.labels,
        quantization=quantization,
    )
    stage.litert = to_litert(stage.model, to / "litert" / f"digits_{stage.name}.tflite", quantization=quantization)


def _runner(file: Path, batch_size: int = 1) -> Callable[[np.ndarray], np.ndarray]:
    """A function (B, H, W, C) -> (B, classes) that runs a LiteRT file with one thread, image by image or in batches."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file), num_threads=1)
    index = interpreter.get_input_details()[0]["index"]
    if batch_size > 1:
        interpreter.resize_tensor_input(index, (batch_size, *interpreter.get_input_details()[0]["shape"][1:]))
    interpreter.allocate_tensors()
    outputs = interpreter.get_signature_runner("serving_default").get_output_details()
    output = outputs["probabilities"]["index"]  # a servable's file also gives the logits

    def run(images: np.ndarray) -> np.ndarray:
        answers = []
        for start in range(0, len(images), batch_size):
            interpreter.set_tensor(index, images[start : start + batch_size].astype(np.float32))
            interpreter.invoke()
            answers.append(interpreter.get_tensor(output))
        return np.concatenate(answers)

    return run


def _measure_file(stage: Stage, pixels: np.ndarray, targets: np.ndarray) -> None:
    content = stage.litert.read_bytes()
    stage.kilobytes = len(content) / 1000
    stage.gzip_kilobytes = len(gzip.compress(content, mtime=0)) / 1000
    answers = _runner(stage.litert)(pixels)
    stage.accuracy = float((answers.argmax(axis=1) == targets).mean())
    if stage.name != "int8":
        _compare(stage, "the LiteRT file", answers, stage.model.predict(pixels, verbose=0))


def _measure_latency(stages: list[Stage], image: np.ndarray, repeats: int = 60) -> None:
    """Median milliseconds for one image, the stages taking turns so that a noisy moment hits all of them."""
    runners = {stage.name: _runner(stage.litert) for stage in stages}
    times: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(repeats):
        for name, run in runners.items():
            began = time.perf_counter()
            run(image)
            times[name].append(time.perf_counter() - began)
    for stage in stages:
        stage.milliseconds = 1000 * statistics.median(times[stage.name])


def _write_images(data: ImageData, folder: Path) -> list[Path]:
    """The held-out digits as PNG files of their native 8x8 pixels."""
    from PIL import Image

    folder.mkdir(parents=True)
    files = []
    for index, digit in enumerate(data.originals):
        files.append(folder / f"{index:03d}.png")
        Image.fromarray(digit).save(files[-1])
    return files


def _compare(stage: Stage, what: str, answers: np.ndarray, wanted: np.ndarray) -> None:
    """Raises unless top-1 is the same for every image and the probabilities are within the tolerance."""
    difference = float(np.abs(answers - wanted).max())
    others = int((answers.argmax(axis=1) != wanted.argmax(axis=1)).sum())
    stage.largest_difference = max(stage.largest_difference, difference)
    if others or difference > TOLERANCE:
        raise DisagreementError(
            f"{stage.name}: {what} must give the answers of the model in this process. Received: another top-1 for "
            f"{others} of {len(answers)} images, probabilities up to {difference:.2g} apart (allowed: {TOLERANCE})."
        )


def _serve_and_compare(stages: list[Stage], files: list[Path], pixels: np.ndarray, to: Path) -> np.ndarray:
    """Publishes the versions one after the other to a running server; returns the last one's classes."""
    from keraslight_serving.client import ClassifierClient

    published = to / "savedmodels" / "published" / "digits"
    published.mkdir(parents=True)
    labels = [str(digit) for digit in range(10)]
    images = pixels.astype(np.float32)
    predictions = np.empty(0)
    for number, stage in enumerate(stages):
        _publish(stage.servable, published)
        if number == 0:
            context = contextlib.ExitStack()
            address = context.enter_context(_server(published, to / "server.log"))
            client = context.enter_context(ClassifierClient(address, model="digits"))
        _wait_for_version(client, int(stage.servable.name))
        padded = np.concatenate([images, images[: -len(images) % 32]])
        if stage.name == "int8":  # the file is the model: every signature computes in it
            in_process = _runner(stage.servable / "model.tflite", 32)(padded)[: len(images)]
        else:
            in_process = stage.model.predict(images, verbose=0)

        answers = np.concatenate(
            [client.predict({"images": padded[i : i + 32]})["probabilities"] for i in range(0, len(padded), 32)]
        )[: len(images)]
        _compare(stage, "signature serving_default", answers, in_process)

        ranked = client.classify(files, top_k=len(labels))
        answers = np.zeros_like(in_process)
        for row, classes in enumerate(ranked):
            for c in classes:
                answers[row, labels.index(c.label)] = c.score
        _compare(stage, "signature encoded", answers, in_process)
        predictions = answers.argmax(axis=1)

        _compare(stage, "signature classify", _classify_rpc(address, files, labels), in_process)
        console.print(
            f"{stage.name}: 3 signatures, {len(files)} digits, every answer as in this process "
            f"(largest difference {stage.largest_difference:.1g})"
        )
    context.close()
    return predictions


def _publish(version: Path, folder: Path) -> None:
    """Copies a version where the server looks, under a hidden name first: it must never see half a version."""
    hidden = folder / f".{version.name}"
    shutil.copytree(version, hidden)
    hidden.rename(folder / version.name)


def _classify_rpc(address: str, files: list[Path], labels: list[str]) -> np.ndarray:
    """The Classify call through TensorFlow Serving's own stubs: (N, classes) scores."""
    import grpc
    from tensorflow_serving.apis import classification_pb2, prediction_service_pb2_grpc

    request = classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = "digits", "classify"
    for file in files:
        example = request.input.example_list.examples.add()
        example.features.feature["image/encoded"].bytes_list.value.append(file.read_bytes())
    with grpc.insecure_channel(address) as channel:
        response = prediction_service_pb2_grpc.PredictionServiceStub(channel).Classify(request, timeout=60)
    answers = np.zeros((len(files), len(labels)), np.float32)
    for row, classifications in enumerate(response.result.classifications):
        for c in classifications.classes:
            answers[row, labels.index(c.label)] = c.score
    return answers


@contextlib.contextmanager
def _server(base_path: Path, log: Path) -> Iterator[str]:
    """A model server in a process of its own on a free loopback port; gives its address."""
    flags = {"port": 0, "model_name": "digits", "model_base_path": base_path, "file_system_poll_wait_seconds": 0.2}
    command = [sys.executable, "-m", "keraslight_serving.server", *(f"--{name}={flags[name]}" for name in flags)]
    command.append("--load_saved_model")  # the first classification should not wait for TensorFlow's import
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            ready = select.select([process.stdout], [], [], 120)[0]
            line = process.stdout.readline() if ready else ""
            address = re.search(r"listening on (\S+:\d+)", line)
            if address is None:
                raise DisagreementError(
                    f"The server must start within 120 s. Its log: {log}\n{log.read_text()[-2000:]}"
                )
            console.print(f"Serving {base_path} on {address[1]}")
            yield address[1]
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
    if process.returncode != 0:
        raise DisagreementError(f"The server must end with exit code 0. Received: {process.returncode}; log: {log}.")


def _wait_for_version(client: Any, version: int, timeout: float = 60) -> None:
    end = time.monotonic() + timeout
    while not any(v.version == version and v.state == "AVAILABLE" for v in client.status()):
        if time.monotonic() > end:
            raise DisagreementError(f"The server must serve version {version} within {timeout} s.")
        time.sleep(0.1)
