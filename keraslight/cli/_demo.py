"""The demo: from training to a served int8 model on scikit-learn's digits, with all predictions compared."""

import contextlib
import importlib
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keraslight_serving.client import ClassifierClient
from numpy.typing import NDArray
from rich.rule import Rule

import keraslight
from keraslight import compress
from keraslight._tasks import read_head
from keraslight.cli._common import console
from keraslight.cli._demo_report import Stage, confusion, draw_confusion, draw_images, report
from keraslight.cli._forms import Form, measure, probabilities
from keraslight.errors import DisagreementError
from keraslight.export import save_servable, to_litert
from keraslight.training import DIGITS_PREPROCESSING, DIGITS_RECIPE, ClassificationLoss, ImageData, load_digits, train

MODEL = "mobilenet_v4_conv_small"
SPARSITY = 0.7
PRUNING_EPOCHS, QUANTIZATION_EPOCHS = 12, 3
BATCH = 32  # images per request
TOLERANCE = 1e-4  # largest difference between two probabilities that count as equal


def run_demo(to: str | Path, *, seed: int = 0, epochs: int | None = None, search: bool = False) -> dict[str, Any]:
    """Runs the demo and prints its table; writes the table, figures, files and servables to a folder.

    Returns what it writes to results.json.

    The output of an earlier demo is replaced. The split of the digits doesn't depend on `seed`. Without `epochs`, the
    float training takes those of the digits recipe, and pruning `PRUNING_EPOCHS`. With `search`, the network is found
    by a short search and then narrowed, where `MODEL` is taken otherwise. Raises `DisagreementError` if a served
    prediction differs from the model in this process, or from its LiteRT file.
    """
    if search:
        importlib.import_module("keraslight.search")  # a missing extra is named before anything is removed
    to = Path(to)
    for name in ("float", "search", "narrowed", "savedmodels", "litert", "images"):
        shutil.rmtree(to / name, ignore_errors=True)
    to.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    data = load_digits(DIGITS_PREPROCESSING)
    pixels, targets = data.validation_arrays()
    images = pixels.astype(np.float32)
    _heading("Search, narrow, prune, quantize" if search else "Train, prune, quantize")
    trained = list(_train(data, to, seed, epochs, search))
    _heading("Export and convert for Android")
    stages = [_export(to, data, *each) for each in trained]
    measure([stage.form for stage in stages], images, targets, read_head(stages[0].model))
    for stage in stages:
        if stage.name != "int8":
            answers = probabilities(stage.form.file, images)
            _compare(stage, "the LiteRT file", answers, stage.model.predict(images, verbose=0))
        console.print(f"{stage.name}: {stage.servable}, {stage.form.file} ({stage.form.accuracy:.2%})")
    _heading("Serve and classify over gRPC")
    files = _write_images(data, to / "images")
    predictions = _serve_and_compare(stages, files, images, to)

    draw_confusion(confusion(targets, predictions), data.labels, to / "confusion_matrix.png")
    draw_images(files, targets, predictions, data.labels, to / "classified.png")
    name = "Found network" if search else MODEL
    return report(stages, to, model=name, images=len(files), seconds=time.monotonic() - started)


def _heading(text: str) -> None:
    # In a file or a pipe the console is wide, so that no table is cut.
    console.print(Rule(f"[bold]{text}"), width=min(console.width, 80))


def _train(
    data: ImageData, to: Path, seed: int, epochs: int | None, search: bool
) -> Iterator[tuple[str, Any, float, float]]:
    """Yields the name, model, share of zeros and duration of each stage."""
    recipe = DIGITS_RECIPE.replace(seed=seed)
    if epochs is not None:
        recipe = recipe.replace(epochs=epochs, warmup_epochs=min(recipe.warmup, epochs - 1))

    def batches(passes: int) -> tf.data.Dataset:
        # Not the seed of the float training: fine-tuning sees the digits shifted and rotated differently.
        return data.train(recipe.batch_size, recipe.augmentation, seed + 1, epochs=passes)

    verbose = 1 if console.is_terminal else 2  # Keras' progress bar on a terminal, one line per epoch in a log
    began = time.monotonic()
    if search:
        from keraslight.cli import _demo_search

        model = _demo_search.find_net(data, recipe, to / "search", MODEL)
        yield "float", model, compress.sparsity(model).total, time.monotonic() - began
        began = time.monotonic()
        model = _demo_search.narrow(model, data, recipe, to / "narrowed")
        yield "narrowed", model, compress.sparsity(model).total, time.monotonic() - began
    else:
        keras.utils.set_random_seed(seed)
        model = keraslight.create_model(
            MODEL, classes=len(data.labels), input_shape=data.image_shape, preprocessing=data.preprocessing
        )
        console.print(f"Training {MODEL} on {data.train_count} digits, {recipe.epochs} epochs")
        result = train(model, data, recipe, run_dir=to / "float", resume=False)
        console.print(f"Held-out accuracy {result.best_accuracy:.2%}")
        yield "float", model, compress.sparsity(model).total, time.monotonic() - began

    began = time.monotonic()
    pruning = PRUNING_EPOCHS if epochs is None else epochs
    console.print(f"Pruning {SPARSITY:.0%} of its weights, {pruning} epochs")
    pruned = compress.prune(
        model,
        batches(pruning),
        sparsity=SPARSITY,
        epochs=1,
        learning_rate=recipe.learning_rate / 2,
        loss=ClassificationLoss(recipe.label_smoothing),
        seed=seed,
        verbose=verbose,
    )
    yield "pruned", pruned, compress.sparsity(pruned).total, time.monotonic() - began

    began = time.monotonic()
    console.print(f"Quantization-aware training, {QUANTIZATION_EPOCHS} epochs; the graph is traced first")
    quantized = compress.train_quantized(pruned, batches(QUANTIZATION_EPOCHS), epochs=1, seed=seed, verbose=verbose)
    weights = compress.quantized_weights_to_keras(quantized, pruned)
    yield "int8", quantized, compress.sparsity(weights).total, time.monotonic() - began


def _export(to: Path, data: ImageData, name: str, model: Any, sparsity: float, seconds: float) -> Stage:
    """Writes a model as the next version of the servable, and as a file for Android (batch size 1)."""
    quantization = "int8" if name == "int8" else None
    servable = save_servable(model, to / "savedmodels" / "digits", labels=data.labels, quantization=quantization)
    file = to_litert(model, to / "litert" / f"digits_{name}.tflite", quantization=quantization)
    return Stage(name, model, sparsity, seconds, servable, Form(name, file))


def _write_images(data: ImageData, folder: Path) -> list[Path]:
    """Writes the held-out digits as PNG files at their original size, 8x8 pixels."""
    from PIL import Image

    folder.mkdir(parents=True)
    originals = data.originals if data.originals is not None else ()
    files = [folder / f"{index:03d}.png" for index in range(len(originals))]
    for digit, file in zip(originals, files, strict=True):
        Image.fromarray(digit).save(file)
    return files


def _compare(stage: Stage, what: str, answers: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """Raises unless all top-1 classes are equal and the probabilities are within the tolerance."""
    difference = float(np.abs(answers - expected).max())
    others = int((answers.argmax(axis=1) != expected.argmax(axis=1)).sum())
    stage.largest_difference = max(stage.largest_difference, difference)
    if others or difference > TOLERANCE:
        raise DisagreementError(
            f"{stage.name}: {what} must give the predictions of the model in this process. Received: another top-1 for "
            f"{others} of {len(answers)} images, probabilities up to {difference:.2g} apart (allowed: {TOLERANCE})."
        )


def _serve_and_compare(
    stages: list[Stage], files: list[Path], images: NDArray[np.float32], to: Path
) -> NDArray[np.int64]:
    """Publishes one version after another to a running server; returns the classes predicted by the last one."""
    published = to / "savedmodels" / "published" / "digits"
    published.mkdir(parents=True)
    labels = [str(digit) for digit in range(10)]
    padded = np.concatenate([images, images[: -len(images) % BATCH]])
    predictions = np.empty(0, np.int64)
    _publish(stages[0].servable, published)
    with _server(published, to / "server.log") as address, ClassifierClient(address, model="digits") as client:
        for stage in stages:
            if stage is not stages[0]:
                _publish(stage.servable, published)
            _wait_for_version(client, int(stage.servable.name))
            if stage.name == "int8":  # every signature computes in the file
                in_process = probabilities(stage.servable / "model.tflite", padded, BATCH)[: len(images)]
            else:
                in_process = stage.model.predict(images, verbose=0)

            batches = (padded[start : start + BATCH] for start in range(0, len(padded), BATCH))
            answers = np.concatenate([client.predict({"images": batch})["probabilities"] for batch in batches])
            _compare(stage, "signature serving_default", answers[: len(images)], in_process)

            answers = np.zeros_like(in_process)
            for row, answer in enumerate(client.stream(files, top_k=len(labels))):
                for c in answer.ranking:
                    answers[row, labels.index(c.label)] = c.score
            _compare(stage, "signature encoded", answers, in_process)
            predictions = answers.argmax(axis=1)

            _compare(stage, "signature classify", _classify_rpc(address, files, labels), in_process)
            console.print(
                f"{stage.name}: 3 signatures, {len(files)} digits, every answer as in this process "
                f"(largest difference {stage.largest_difference:.1g})"
            )
    return predictions


def _publish(version: Path, folder: Path) -> None:
    """Copies a version to the server's folder, first under a hidden name: the server must never see half a version."""
    hidden = folder / f".{version.name}"
    shutil.copytree(version, hidden)
    hidden.rename(folder / version.name)


def _classify_rpc(address: str, files: list[Path], labels: list[str]) -> NDArray[np.float32]:
    """Calls Classify through TensorFlow Serving's own stubs; returns scores (N, classes)."""
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
    """Runs a model server in its own process on a free loopback port; yields its address."""
    flags = {"port": 0, "model_name": "digits", "model_base_path": base_path, "file_system_poll_wait_seconds": 0.2}
    command = [sys.executable, "-m", "keraslight_serving.server", *(f"--{name}={flags[name]}" for name in flags)]
    command.append("--load_saved_model")  # the first classification should not wait for TensorFlow's import
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            output = process.stdout
            ready = output is not None and select.select([output], [], [], 120)[0]
            address = re.search(r"listening on (\S+:\d+)", output.readline() if output and ready else "")
            if address is None:
                end = log.read_text()[-2000:]
                raise DisagreementError(f"The server must start within 120 s. Its log: {log}\n{end}")
            console.print(f"Serving {base_path} on {address[1]}")
            yield address[1]
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
    if process.returncode != 0:
        raise DisagreementError(f"The server must exit with code 0. Received: {process.returncode}; log: {log}.")


def _wait_for_version(client: ClassifierClient, version: int, timeout: float = 60) -> None:
    end = time.monotonic() + timeout
    while not any(v.version == version and v.state == "AVAILABLE" for v in client.status()):
        if time.monotonic() > end:
            raise DisagreementError(f"The server must serve version {version} within {timeout} s.")
        time.sleep(0.1)
