"""`keraslight litert` and `keraslight onnx`: models as single files for phones and other runtimes."""

from __future__ import annotations

import enum
import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

console = Console()

_SAMPLES = 128  # as many as `to_litert` uses

Model = Annotated[
    str,
    typer.Argument(help="A run folder of `keraslight train`, a .keras file, or a model's name.", metavar="MODEL"),
]
Weights = Annotated[str | None, typer.Option(help='For a name: "imagenet" or a weights file. [default: random]')]
Size = Annotated[int | None, typer.Option(help="For a name: side of the image in pixels. [default: the model's]")]

Labels = Annotated[
    Path | None,
    typer.Option(
        help="The classes' names, one a line. [default: the run's, or ImageNet's for 1,000 classes]",
        exists=True,
        dir_okay=False,
        show_default=False,
    ),
]


class Quantization(enum.StrEnum):
    """What the numbers of a LiteRT file are."""

    float32 = "float32"
    float16 = "float16"
    dynamic = "dynamic"
    int8 = "int8"

    @property
    def argument(self) -> str | None:
        """What `to_litert` takes."""
        return None if self is Quantization.float32 else self.value


class Dtype(enum.StrEnum):
    """What a LiteRT file takes or gives."""

    float32 = "float32"
    uint8 = "uint8"
    int8 = "int8"


def litert(
    model: Model,
    to: Annotated[Path | None, typer.Option(help="The .tflite file to write.")] = None,
    quantization: Annotated[Quantization, typer.Option(help="Numbers of the file.")] = Quantization.float32,
    data: Annotated[
        str | None,
        typer.Option(
            help='"digits" or a folder: its training images set the ranges of int8, its held-out ones measure the file.'
        ),
    ] = None,
    samples: Annotated[
        list[Path] | None,
        typer.Option(
            help="An image file, or a folder of them, that sets the ranges of int8 instead; repeatable.",
            show_default=False,
        ),
    ] = None,
    input_dtype: Annotated[Dtype, typer.Option(help="What the file takes; uint8 and int8 need int8.")] = Dtype.float32,
    output_dtype: Annotated[Dtype, typer.Option(help="What the file gives; uint8 and int8 need int8.")] = Dtype.float32,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Write no file that loses more accuracy than this on the held-out images, 0..1.", min=0, max=1
        ),
    ] = None,
    xnnpack: Annotated[
        bool,
        typer.Option(
            help="Write what XNNPACK, which runs files on CPUs, has no kernels for as other operators; "
            "--no-xnnpack is for GPU delegates, which take the plain ones."
        ),
    ] = True,
    weights: Weights = None,
    size: Size = None,
    labels: Labels = None,
    report: Annotated[
        bool, typer.Option("--report", help="Show operators, what accelerators can't take, memory and latency.")
    ] = False,
    threads: Annotated[
        int | None, typer.Option(help="For the report: latency with 1..N threads. [default: all]", min=1)
    ] = None,
) -> None:
    """Convert a model to a LiteRT file for Android, labels inside; or report on a .tflite file that is there.

    keraslight litert runs/digits --to digits.tflite --quantization int8 --data digits --max-drop 0.01 --report
    keraslight litert mobilenet_v2_100 --weights imagenet --to m.tflite --quantization int8 --samples photos/
    keraslight litert digits.tflite --report
    """
    from keraslight.errors import InvalidArgumentError
    from keraslight.export import litert_parity, to_litert

    if model.endswith(".tflite"):
        if to is not None:
            raise InvalidArgumentError(
                "A .tflite file can't be converted; leave out --to. Received: --to with a .tflite."
            )
        if not Path(model).is_file():
            raise InvalidArgumentError(f"A report needs a .tflite file. Received: {model}, which is no file.")
        _print_report(Path(model), threads)
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
    net, labels, spec, _ = load_source(model, weights, size, labels)
    images = None if data is None else _images(data, spec)
    representative = None
    if samples:
        representative = _samples(samples, spec)
    elif quantization is Quantization.int8:
        representative = images.train(32)

    def verify(file: Path) -> None:
        if images is not None:
            pictures, which = images.validation(32), ""
            if labels is not None and list(images.labels) != list(labels):
                pictures = pictures.map(lambda pixels, _: pixels)  # other classes than the model's say nothing
        elif samples:
            pictures, which = representative, ", on the images that set the ranges"
        else:
            pictures, which = _noise(net), ", on random pixels"
        parity = litert_parity(net, file, pictures)
        parity.require(max_drop=max_drop)
        console.print(f"Against the model, {parity}{which}.")

    written = to_litert(
        net,
        to,
        quantization=quantization.argument,
        representative_data=representative,
        input_dtype=input_dtype.value,
        output_dtype=output_dtype.value,
        labels=labels,
        xnnpack=xnnpack,
        verify=verify,
    )
    console.print(f"Wrote {written}, {written.stat().st_size / 1e6:.2f} MB.")
    if report:
        _print_report(written, threads)


def onnx(
    model: Model,
    to: Annotated[Path, typer.Option(help="The .onnx file to write.")],
    opset: Annotated[int, typer.Option(help="ONNX operator set, 13..18.")] = 17,
    weights: Weights = None,
    size: Size = None,
    seed: Annotated[int, typer.Option(help="Seed of the images that the file is checked with.")] = 0,
) -> None:
    """Convert a model to an ONNX file, and compare ONNX Runtime's answers with the model's before it is kept."""
    from keraslight.export import to_onnx

    net = load_source(model, weights, size, None).model
    written = to_onnx(net, to, opset=opset, check_images=_noise(net, seed))
    console.print(f"Wrote {written}, {written.stat().st_size / 1e6:.2f} MB. ONNX Runtime gives the model's answers.")


class Source(NamedTuple):
    """What a command converts: a model that takes raw pixels, and what is known of it.

    Attributes:
        model: A `keras.Model`.
        labels: Its classes' names, or None.
        preprocessing: How images are resized, cropped and normalized for it, or None.
        metrics: What its training measured.
    """

    model: Any
    labels: list[str] | None
    preprocessing: Any
    metrics: dict[str, float]


def load_source(source: str, weights: str | None, size: int | None, labels: Path | None) -> Source:
    """The model of a run folder, a .keras file or a name; `labels`, one a line, replace those that are known.

    Raises:
        InvalidArgumentError: weights or a size for a model that has its own.
    """
    import keraslight
    from keraslight.errors import InvalidArgumentError
    from keraslight.graph.ends import own_preprocessing
    from keraslight.labels import imagenet_labels
    from keraslight.preprocessing import Preprocessing
    from keraslight.training import load_run

    is_name = not Path(source).is_dir() and not source.endswith(".keras")
    if not is_name and (weights is not None or size is not None):
        raise InvalidArgumentError(
            "`--weights` and `--size` are for a model's name. "
            f"Received: --weights {weights}, --size {size} with {source}."
        )
    given = None if labels is None else labels.read_text(encoding="utf-8").splitlines()
    if Path(source).is_dir():
        net, details = load_run(source)
        spec = Preprocessing.from_dict(details["preprocessing"])
        return Source(net, given or details["labels"], spec, details.get("metrics") or {})
    if not is_name:
        net = keraslight.load_model(source)
        return Source(net, given, own_preprocessing(net), {})
    info = keraslight.model_info(source)
    side = size or info.input_size
    spec = info.preprocessing and info.preprocessing.replace(size=(side, side))
    net = keraslight.create_model(
        source, weights=weights, input_shape=(side, side, spec.channels if spec else 3), preprocessing=spec or False
    )
    known = list(imagenet_labels())
    return Source(net, given or (known if net.output_shape[-1] == len(known) else None), spec, {})


def _images(data: str, spec: Any) -> Any:
    from keraslight.training import load_digits, load_directory

    _require_preprocessing(spec, "--data")
    return load_digits(spec) if data == "digits" else load_directory(data, spec)


def _samples(paths: list[Path], spec: Any) -> Any:
    from keraslight.training import load_images

    _require_preprocessing(spec, "--samples")
    return load_images(paths, spec, limit=_SAMPLES)


def _require_preprocessing(spec: Any, option: str) -> None:
    from keraslight.errors import InvalidArgumentError

    if spec is None:
        raise InvalidArgumentError(
            f"{option} needs a model that says how images are prepared. Received: one that does not."
        )


def _noise(net: Any, seed: int = 0) -> Any:
    """Two images of random pixels, as the model takes them."""
    import numpy as np

    return np.random.default_rng(seed).integers(0, 256, (2, *net.inputs[0].shape[1:])).astype("float32")


def _print_report(file: Path, threads: int | None) -> None:
    from keraslight.export import litert_latency, litert_report

    report = litert_report(file)
    console.print(f"{file}: {report.size:,} bytes, tensor arena {report.arena:,} bytes")
    for name, (inputs, outputs) in report.signatures.items():
        console.print(f"signature {name}: {', '.join(inputs)} -> {', '.join(outputs)}")
    if report.metadata is not None:
        console.print(f"metadata: {report.metadata.description} {len(report.metadata.labels)} labels")

    floats = Counter(operator.kind for operator in report.float_operators)
    left = {name: Counter(operator.kind for operator in report.left_to_cpu(name)) for name in ("GPU", "NNAPI")}
    table = Table("operator", "count", "in float", "not on GPU", "not on NNAPI")
    for kind, count in sorted(Counter(operator.kind for operator in report.operators).items()):
        table.add_row(
            kind, *(str(n) if n else "" for n in (count, floats[kind], left["GPU"][kind], left["NNAPI"][kind]))
        )
    console.print(table)

    most = threads or os.cpu_count() or 1
    times = litert_latency(file, range(1, most + 1))
    table = Table("threads", "milliseconds here", "against one")
    for count, milliseconds in times.items():
        table.add_row(str(count), f"{milliseconds:.2f}", f"{milliseconds / times[1]:.2f}")
    console.print(table)
