"""`keraslight litert` and `keraslight onnx`: models as single files for phones and other runtimes."""

from __future__ import annotations

import dataclasses
import enum
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from keraslight.cli import _common
from keraslight.cli._common import (
    Json,
    Labels,
    Source,
    SourceSize,
    SourceWeights,
    Task,
    console,
    print_json,
    table,
)
from keraslight.errors import InvalidArgumentError

if TYPE_CHECKING:
    import keras
    import numpy as np
    from numpy.typing import NDArray

_SAMPLES = 128  # as many as `to_litert` uses

Quantization = enum.StrEnum("Quantization", ["float32", "float16", "dynamic", "int8"])
Dtype = enum.StrEnum("Dtype", ["float32", "uint8", "int8"])
Processor = enum.StrEnum("Processor", ["arm64"])


def litert(
    model: Source,
    to: Annotated[Path | None, Option(help=".tflite file to write.")] = None,
    quantization: Annotated[
        Quantization, Option(help="Number format of the weights and, for int8, the activations.")
    ] = Quantization.float32,
    data: Annotated[
        str | None,
        Option(
            help='"digits", or a folder with one subfolder per class: training images calibrate int8, held-out images '
            "measure the accuracy."
        ),
    ] = None,
    samples: Annotated[
        list[Path] | None,
        Option(help="Image file or folder of image files to calibrate int8 with, instead of --data; repeatable."),
    ] = None,
    input_dtype: Annotated[
        Dtype, Option(help="Type of the input; uint8 and int8 require --quantization int8.")
    ] = Dtype.float32,
    output_dtype: Annotated[
        Dtype, Option(help="Type of the output; uint8 and int8 require --quantization int8.")
    ] = Dtype.float32,
    max_drop: Annotated[
        float | None,
        Option(
            help="Largest acceptable loss of accuracy on the held-out images; above it, no file is written.",
            min=0,
            max=1,
        ),
    ] = None,
    xnnpack: Annotated[
        bool,
        Option(
            help="Replace operators that XNNPACK doesn't support, for fast inference on CPUs. Use --no-xnnpack for GPU "
            "delegates, which support the original operators."
        ),
    ] = True,
    weights: SourceWeights = None,
    size: SourceSize = None,
    labels: Labels = None,
    task: Task = None,
    preprocessing: _common.Given = None,
    report: Annotated[
        bool, Option("--report", help="Report operators, GPU and NNAPI support, sparse kernels, memory and latency.")
    ] = False,
    on: Annotated[
        Processor | None,
        Option(
            help="For --report: also run the file on a phone's kernels, under emulation, and compare. Needs "
            "`keraslight install-arm64` once."
        ),
    ] = None,
    threads: Annotated[
        int | None,
        Option(help="For --report: largest number of threads to time.", min=1, show_default="number of CPUs"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Convert a model to a LiteRT file for Android, including its labels.

    MODEL can also be a .tflite file to report on.

    Examples:

      keraslight litert runs/net --to net.tflite
      keraslight litert runs/net --to net.tflite --quantization int8 --data digits
      keraslight litert resnet18 --weights imagenet --to resnet18.tflite
      keraslight litert net.keras --preprocessing unit --to net.tflite --quantization int8 --data photos/
      keraslight litert net.tflite --report
      keraslight litert net.tflite --report --on arm64
    """
    if on is not None:
        _check_arm64(report=report or model.endswith(".tflite"))
    if as_json and not report:
        raise InvalidArgumentError("`--json` must come with `--report`. Received: --json alone.")
    if model.endswith(".tflite"):
        if to is not None:
            raise InvalidArgumentError(
                "A .tflite file can't be converted; leave out --to. Received: --to with a .tflite."
            )
        if not Path(model).is_file():
            raise InvalidArgumentError(f"A report needs a .tflite file. Received: {model}, which is not a file.")
        _print_report(Path(model), threads, as_json, on)
        return
    if threads is not None and not report:
        raise InvalidArgumentError(f"`--threads` must come with `--report`. Received: --threads {threads} alone.")
    if to is None:
        raise InvalidArgumentError("A conversion needs the file to write. Received: no --to.")
    if samples and quantization is not Quantization.int8:
        raise InvalidArgumentError(
            f"--samples set the ranges of int8. Received: --samples with --quantization {quantization.value}."
        )
    if data is None and (max_drop is not None or (quantization is Quantization.int8 and not samples)):
        raise InvalidArgumentError(
            "int8 needs images that set its ranges (--data or --samples), and --max-drop images to measure on. "
            "Received: no --data."
        )
    net, names, spec, _, thresholds = _common.load_source(model, weights, size, labels, preprocessing=preprocessing)

    from keraslight import training
    from keraslight.export import litert_parity, to_litert

    what = None if task is None else task.value
    images = None if data is None else _common.load_images(data, spec)
    representative: Any = None
    if samples:
        representative = training.load_images(samples, _common.known_preprocessing(spec, "--samples"), limit=_SAMPLES)
    elif images is not None and quantization is Quantization.int8:
        representative = images.train(32)

    def verify(file: Path) -> None:
        compared: Any = representative
        which = ", on the images that set the ranges"
        if images is not None:
            compared, which = images.validation(32), ""
            if names is not None and list(images.labels) != names:
                compared = compared.map(lambda pixels, _: pixels)  # accuracy requires the model's classes
        elif not samples:
            compared, which = _noise(net), ", on random pixels"
        parity = litert_parity(net, file, compared, task=what)
        parity.require(max_drop=max_drop)
        console.print(f"Against the model, {parity}{which}.")

    written = to_litert(
        net,
        to,
        quantization=None if quantization is Quantization.float32 else quantization.value,
        representative_data=representative,
        input_dtype=input_dtype.value,
        output_dtype=output_dtype.value,
        labels=names,
        task=what,
        thresholds=thresholds if what in (None, "multi-label") else None,
        xnnpack=xnnpack,
        verify=verify,
    )
    console.print(f"Wrote {written}, {written.stat().st_size / 1e6:.2f} MB.")
    if report:
        _print_report(written, threads, as_json, on)


def onnx(
    model: Source,
    to: Annotated[Path, Option(help=".onnx file to write.")],
    opset: Annotated[int, Option(help="ONNX operator set, 13 to 18.")] = 17,
    weights: SourceWeights = None,
    size: SourceSize = None,
    seed: Annotated[int, Option(help="Random seed for the images that verify the file.")] = 0,
) -> None:
    """Convert a model to an ONNX file.

    The file is only kept if ONNX Runtime reproduces the model's predictions.
    """
    net = _common.load_source(model, weights, size).model

    from keraslight.export import to_onnx

    written = to_onnx(net, to, opset=opset, check_images=_noise(net, seed))
    console.print(f"Wrote {written}, {written.stat().st_size / 1e6:.2f} MB. ONNX Runtime gives the model's answers.")


def _noise(net: keras.Model, seed: int = 0) -> NDArray[np.float32]:
    """Two images of random pixels, of the model's input shape."""
    import numpy as np

    return np.random.default_rng(seed).integers(0, 256, (2, *net.inputs[0].shape[1:])).astype("float32")


def install_arm64() -> None:
    """Install a phone's processor under emulation, for `keraslight litert --report --on arm64`.

    Downloads 60 MB (QEMU, and ARM64 builds of Python and LiteRT) into this Python environment, where they take 240 MB.
    Needs Debian or Ubuntu on x86-64 with a C compiler, but no rights.
    """
    from keraslight import export

    folder = export.install_arm64(lambda step: console.print(f"{step} ...", soft_wrap=True))
    console.print(f"Installed {folder}.", soft_wrap=True)


def _check_arm64(*, report: bool) -> None:
    from keraslight.errors import MissingDependencyError
    from keraslight.export import arm64_problem

    if not report:
        raise InvalidArgumentError("`--on` must come with `--report`. Received: --on alone.")
    if problem := arm64_problem():
        raise MissingDependencyError(f"Running on ARM64 kernels needs an emulator. Received: {problem}.")


def _on_arm64(file: Path) -> dict[str, Any]:
    """What a phone's kernels do with random pixels, and how far their answers are from this machine's."""
    import numpy as np

    from keraslight.export import litert_runner, run_on_arm64
    from keraslight.export.litert import input_shape

    batch, *sides = input_shape(file)
    pixels = np.random.default_rng(0).integers(0, 256, (max(batch, 1), *sides)).astype("float32")
    run = run_on_arm64(file, pixels)
    return {
        "instructions": run.instructions,
        "sparse_instructions": run.sparse,
        "emulated_milliseconds": run.milliseconds,
        "largest_difference": float(np.abs(run.outputs - litert_runner(file)(pixels)).max()),
        "outside_xnnpack": dict(Counter(operator.kind for operator in run.outside)),
    }


def _print_report(file: Path, threads: int | None, as_json: bool, on: Processor | None) -> None:
    from keraslight.export import litert_latency, litert_report

    report = litert_report(file)
    most = threads or os.cpu_count() or 1
    times = litert_latency(file, range(1, most + 1))
    if as_json:
        operators = [
            dataclasses.asdict(operator)
            | {f"on_{name.lower()}": not operator.problem(name) for name in ("GPU", "NNAPI")}
            for operator in report.operators
        ]
        sizes = {"file": str(file), "bytes": report.size, "arena_bytes": report.arena}
        labels = None if report.metadata is None else list(report.metadata.labels)
        summary = {"signatures": report.signatures, "labels": labels, "milliseconds": times}
        emulated = {} if on is None else {on.value: _on_arm64(file)}
        sparse = dataclasses.asdict(report.sparse)
        print_json({**sizes, **summary, "sparse_on_arm": sparse, **emulated, "operators": operators})
        return
    console.print(f"{file}: {report.size:,} bytes, tensor arena {report.arena:,} bytes")
    for name, (inputs, outputs) in report.signatures.items():
        console.print(f"signature {name}: {', '.join(inputs)} -> {', '.join(outputs)}")
    if report.metadata is not None:
        console.print(f"metadata: {report.metadata.description} {len(report.metadata.labels)} labels")

    floats = Counter(operator.kind for operator in report.float_operators)
    left = {name: Counter(operator.kind for operator in report.left_to_cpu(name)) for name in ("GPU", "NNAPI")}
    operations = table("operator", "count", "in float", "not on GPU", "not on NNAPI")
    for kind, count in sorted(Counter(operator.kind for operator in report.operators).items()):
        numbers = (count, floats[kind], left["GPU"][kind], left["NNAPI"][kind])
        operations.add_row(kind, *(str(number or "") for number in numbers))
    console.print(operations)

    speeds = table("threads", "milliseconds here", "against one")
    for count, milliseconds in times.items():
        speeds.add_row(str(count), f"{milliseconds:.2f}", f"{milliseconds / times[1]:.2f}")
    console.print(speeds)

    console.print(str(report.sparse))
    if on is not None:
        found = _on_arm64(file)
        phone = table("on emulated ARM64 kernels", "")
        phone.add_row("million instructions", f"{found['instructions'] / 1e6:.2f}")
        phone.add_row("of these in sparse kernels", f"{found['sparse_instructions'] / found['instructions']:.0%}")
        phone.add_row("milliseconds of emulation", f"{found['emulated_milliseconds']:.0f}")
        phone.add_row("largest difference from here", f"{found['largest_difference']:.2g}")
        outside = ", ".join(f"{count} {kind}" for kind, count in sorted(found["outside_xnnpack"].items()))
        phone.add_row("operators outside XNNPACK", outside or "none")
        console.print(phone)
