"""ONNX files for ONNX Runtime, OpenVINO, TensorRT and others."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keraslight._files import write_file
from keraslight.errors import DisagreementError, InvalidArgumentError, MissingDependencyError
from keraslight.export._frozen import Network, check_convertible, convertible, frozen_function, refusals
from keraslight.export._memory import return_free_memory

OPSETS = (13, 18)
"""Lowest and highest operator set that tf2onnx 1.17 writes."""


def to_onnx(
    model: Any,
    path: str | os.PathLike[str],
    *,
    opset: int = 17,
    check_images: np.ndarray | None = None,
    tolerance: float = 1e-4,
) -> Path:
    """Converts a model to an ONNX file: `images` -> `probabilities` (of a `regression` `outputs`), float32, open batch.

    Images are (B, H, W, C): ONNX Runtime transposes them where its kernels need it.

    Args:
        model: A Keras 3 model with one input (B, H, W, C) and one output.
        path: The file to write. It is replaced in one step; its folder is created.
        opset: ONNX operator set, 13 to 18.
        check_images: float32 (N, H, W, C), as the model takes them. If given, ONNX Runtime runs the file on them before
            it replaces `path`, and the outputs must be the model's.
        tolerance: Largest difference of an output that counts as equal, above 0.

    Returns:
        The path.

    Raises:
        InvalidArgumentError: An argument is out of range, or the model is subclassed or not built.
        ExportError: The model has several inputs or outputs, an open image size or NaN weights, or the converter does
            not support it.
        DisagreementError: ONNX Runtime's outputs differ by more than `tolerance`. An older file at `path` is kept.
        MissingDependencyError: TensorFlow, tf2onnx, or for `check_images` onnxruntime, is not installed.
    """
    if not OPSETS[0] <= opset <= OPSETS[1]:
        raise InvalidArgumentError(f"`opset` must be in {OPSETS[0]}..{OPSETS[1]}. Received: opset={opset}.")
    if not tolerance > 0:
        raise InvalidArgumentError(f"`tolerance` must be above 0. Received: tolerance={tolerance}.")
    try:
        import onnx  # noqa: F401
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"Conversion to ONNX needs tf2onnx: pip install 'keraslight[onnx]'. Received: {error}."
        ) from error
    model = convertible(model)
    content = _converted(model, opset)
    return_free_memory()

    def verify(written: Path) -> None:
        if check_images is None:
            return
        images = np.asarray(check_images, np.float32)
        wanted, found = np.asarray(model(images, training=False)), onnx_runner(written)(images)
        difference = float(np.abs(wanted - found).max())
        if not difference <= tolerance:  # a NaN is a disagreement
            raise DisagreementError(
                f"ONNX Runtime must give the model's outputs within {tolerance}. Received: a difference of "
                f"{difference:.3g} on {len(images)} images."
            )

    return write_file(Path(path), content, verify)


def _converted(model: Any, opset: int) -> bytes:
    """The converter's file. A function of its own, so that all it needs is free when it returns."""
    import onnx
    import tf2onnx

    network = Network.of_model(model)
    check_convertible(network)
    with refusals(model.name), _quiet("tf2onnx"):
        serve = frozen_function(network, None, loops=True)
        file, _ = tf2onnx.convert.from_function(
            serve, input_signature=serve.input_signature, opset=opset, custom_op_handlers=_handlers()
        )
        onnx.checker.check_model(file)  # tf2onnx only logs operators that it does not know, and writes them unchanged
    content: bytes = file.SerializeToString()
    return content


def onnx_runner(path: str | os.PathLike[str]) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function that runs an ONNX file with one input and one output with ONNX Runtime on the CPU.

    Returns:
        A function of float32 images (B, H, W, C) that returns the outputs, (B, ...).

    Raises:
        MissingDependencyError: Onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            f"Running an ONNX file needs onnxruntime: pip install 'keraslight[onnx]'. Received: {error}."
        ) from error
    session = onnxruntime.InferenceSession(str(Path(path)), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Silences a logger: tf2onnx logs each optimization that it tries in vain, with its traceback."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _handlers() -> dict[str, tuple[Callable[..., None], list[Any]]]:
    """What tf2onnx does not know, or does wrong: TensorFlow's operator -> how it is written."""
    handlers = {"Erfc": _erfc, "Expm1": _expm1, "Conv3D": _conv3d, "Add": _add, "AddV2": _add}
    return {name: (handler, []) for name, handler in handlers.items()}


def _erfc(graph: Any, node: Any, *_: Any) -> None:
    """Writes TensorFlow's Erfc, which exact GELU uses and tf2onnx does not know, as 1 - Erf."""
    shapes, dtypes = node.output_shapes, node.output_dtypes
    graph.remove_node(node.name)
    erf = graph.make_node("Erf", list(node.input), shapes=shapes, dtypes=dtypes)
    one = graph.make_const(f"{node.name}_one", np.ones((), np.float32))
    graph.make_node(
        "Sub", [one.output[0], erf.output[0]], name=node.name, outputs=list(node.output), shapes=shapes, dtypes=dtypes
    )


def _expm1(graph: Any, node: Any, *_: Any) -> None:
    """Writes TensorFlow's Expm1, as in celu, as Exp - 1."""
    shapes, dtypes = node.output_shapes, node.output_dtypes
    graph.remove_node(node.name)
    exp = graph.make_node("Exp", list(node.input), shapes=shapes, dtypes=dtypes)
    one = graph.make_const(f"{node.name}_one", np.ones((), np.float32))
    graph.make_node(
        "Sub", [exp.output[0], one.output[0]], name=node.name, outputs=list(node.output), shapes=shapes, dtypes=dtypes
    )


def _conv3d(graph: Any, node: Any, *_: Any) -> None:
    """Writes Conv3D with its groups, which tf2onnx leaves at 1."""
    from tf2onnx.onnx_opset.nn import ConvOp

    axis = -1 if node.get_attr_value("data_format", b"NDHWC").decode() == "NDHWC" else 1
    groups = graph.get_shape(node.input[0])[axis] // graph.get_shape(node.input[1])[-2]
    ConvOp.any_version(graph.opset, graph, node)
    node.set_attr("group", groups)


def _add(graph: Any, node: Any, *_: Any) -> None:
    """Writes an addition of a number as one of a vector of one: tf2onnx's optimizer of transpositions stops at it."""
    node.type = "Add"
    for place, source in enumerate(list(node.inputs)):
        other = graph.get_shape(node.input[1 - place])
        if source.is_const() and source.get_tensor_value(as_list=False).ndim == 0 and other:
            one = graph.make_const(f"{node.name}_number_{place}", source.get_tensor_value(as_list=False)[None])
            graph.replace_input(node, node.input[place], one.output[0], place)
