"""Signatures over serialized tf.Examples: what Classify, Regress and MultiInference check, run and return."""

from collections.abc import Sequence
from typing import NamedTuple

import grpc
import numpy as np
from numpy.typing import NDArray

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import StatusError, invalid
from keraslight_serving.server.base.spec import ModelSpec
from keraslight_serving.server.running.servable import Servable
from keraslight_serving.server.running.signatures import Outputs, Signature
from keraslight_serving.wire import methods, serving_pb2 as pb
from keraslight_serving.wire.dtypes import dtype_name
from keraslight_serving.wire.tensors import dtype_enum, shape_text

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


class Examples(NamedTuple):
    """Serialized tf.Examples, and one with the features that they share."""

    serialized: Sequence[bytes] = ()
    context: bytes | None = None

    def joined(self) -> NDArray[np.object_]:
        """Returns an array of shape (examples,). Protobuf merges the context with the example appended to it."""
        if not self.serialized:
            raise invalid("Input is empty.")
        return np.array([(self.context or b"") + example for example in self.serialized], object)


class Classes(NamedTuple):
    """Labels (bytes) and scores (float32), each of shape (examples, classes); empty or 0 if the model gives none."""

    labels: NDArray[np.object_]
    scores: NDArray[np.float32]


class Task(NamedTuple):
    """One signature of a MultiInference request, and the `method_name` to run it by."""

    spec: ModelSpec
    method: str


def classify(servable: Servable, name: str, examples: Examples, call: Call) -> Classes:
    """Runs a signature `inputs` -> `classes` (strings), `scores` (floats) or both, each (examples, classes)."""
    signature = _find(servable, name, CLASSIFY)
    aliases = [alias for alias in ("classes", "scores") if alias in signature.outputs]
    rows, outputs = _run(servable, name, examples, aliases, call)
    for alias, array in outputs.items():
        dtype = pb.DT_STRING if alias == "classes" else pb.DT_FLOAT
        if array.ndim != 2:
            raise invalid(f"Expected Tensor shape: [batch_size num_classes] but got {shape_text(array.shape)}")
        if dtype_enum(array.dtype) != dtype:
            raise invalid(f"Expected {alias} Tensor of {_enum_name(dtype)}. Got: {dtype_name(dtype_enum(array.dtype))}")
        if len(array) != rows:
            raise invalid(f"Expected {alias} output batch size of {rows}. Got: {len(array)}")
    widths = [array.shape[1] for array in outputs.values()]
    if len(set(widths)) > 1:
        raise invalid(f"Tensors class and score should match in dim_size(1). Got {widths[0]} vs. {widths[1]}")
    shape = (rows, widths[0])
    return Classes(
        outputs["classes"] if "classes" in outputs else np.full(shape, b"", object),
        outputs["scores"] if "scores" in outputs else np.zeros(shape, np.float32),
    )


def regress(servable: Servable, name: str, examples: Examples, call: Call) -> NDArray[np.float32]:
    """Runs a signature `inputs` -> `outputs`, floats of shape (examples,) or (examples, 1). Returns (examples,)."""
    _find(servable, name, REGRESS)
    rows, outputs = _run(servable, name, examples, ["outputs"], call)
    array = outputs["outputs"]
    if array.ndim != 1 and (array.ndim != 2 or array.shape[1] != 1):
        shape = shape_text(array.shape)
        raise invalid(f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {shape}")
    if len(array) != rows:
        raise invalid(f"Input batch size did not match output batch size: {rows} vs. {len(array)}")
    if array.dtype != np.float32:
        raise invalid(f"Expected output Tensor of DT_FLOAT.  Got: {_enum_name(dtype_enum(array.dtype))}")
    return array.ravel()


def check_tasks(tasks: Sequence[Task], servable: Servable) -> dict[str, str]:
    """Returns the `method_name` of each task by its signature. Raises UNIMPLEMENTED for another method."""
    found: dict[str, str] = {}
    for spec, method in tasks:
        if not spec.name:
            raise invalid("Found ModelSpec with an empty model name.")
        if spec.name != tasks[0].spec.name:
            raise invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        name = spec.signature or methods.DEFAULT_SIGNATURE
        if name in found:
            raise invalid(f"Duplicate evaluation of signature: {name}")
        signature = servable.signatures.get(name)
        if signature is None:
            raise invalid(f"Requested signature not found in model graph: {name}")
        if method not in (CLASSIFY, REGRESS):
            raise StatusError(grpc.StatusCode.UNIMPLEMENTED, f"Unsupported signature method_name: {method}")
        _check(signature, method)
        found[name] = method
    return found


def _find(servable: Servable, name: str, method: str) -> Signature:
    signature = servable.signatures.get(name)
    if signature is None:
        raise invalid(f"No signature was found with the name: {name}")
    _check(signature, method)
    return signature


def _check(signature: Signature, method: str) -> None:
    found = len(signature.outputs)
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if method == CLASSIFY and found not in (1, 2):
        raise invalid(f"Expected one or two output Tensors, found {found}")
    if method == REGRESS and found != 1:
        raise invalid(f"Expected one output Tensor, found {found}")
    if "inputs" not in signature.inputs:
        kind = "classification" if method == CLASSIFY else "regression"
        raise invalid(f"No {kind} inputs found in SignatureDef: {signature.definition}")
    if method == CLASSIFY and not {"classes", "scores"} & signature.outputs.keys():
        raise invalid(
            'Expected classification signature outputs to contain at least one of "classes" or "scores". '
            f"Signature was: {signature.definition}"
        )
    if method == REGRESS and "outputs" not in signature.outputs:
        raise invalid(f"No regression outputs found in SignatureDef: {signature.definition}")


def _run(servable: Servable, name: str, examples: Examples, aliases: Sequence[str], call: Call) -> tuple[int, Outputs]:
    """Returns the number of examples, and the outputs."""
    inputs = {"inputs": examples.joined()}
    servable.check(name, inputs)
    return len(examples.serialized), servable.run(name, inputs, aliases, call)


def _enum_name(enum: int) -> str:
    return f"DT_{dtype_name(enum).upper()}"
