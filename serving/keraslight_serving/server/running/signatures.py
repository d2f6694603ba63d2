"""Signatures as plain data, and whether a request fits one.

Order, codes and texts of the checks are TensorFlow Serving's; only the check of shapes is ours. TensorFlow Serving
leaves shapes to the kernels. There a tensor of the wrong rank aborts the process (oneDNN's convolution), a wrong number
of channels may pass as a grouped convolution, and LiteRT computes something from any of them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc
from numpy.typing import NDArray

from keraslight_serving.server.base.errors import StatusError, invalid
from keraslight_serving.wire import serving_pb2 as pb
from keraslight_serving.wire.dtypes import dtype_name
from keraslight_serving.wire.tensors import dtype_enum, shape_text

Arrays = Mapping[str, NDArray[Any]]  # tensors by alias
Outputs = dict[str, NDArray[Any]]  # the same, as engines return them

# From this rank on, a tensor is taken for images and must have the declared shape. Below it, TensorFlow's tolerance is
# kept: its test suite sends [1] where [-1,1] is declared.
IMAGE_RANK = 3


class Declared(NamedTuple):
    """A declared tensor: its DataType, and its shape with -1 for unknown sizes (None if the rank is unknown)."""

    dtype: int
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Signature:
    """What a SignatureDef declares, its inputs and outputs by alias in alphabetical order."""

    definition: pb.SignatureDef
    inputs: Mapping[str, Declared]
    outputs: Mapping[str, Declared]

    @classmethod
    def of(cls, definition: pb.SignatureDef) -> "Signature":
        return cls(definition, _declared(definition.inputs), _declared(definition.outputs))


class UnknownSignature(StatusError):
    """FAILED_PRECONDITION: the version has no signature of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')


def choose_outputs(signature: Signature, output_filter: Iterable[str]) -> list[str]:
    """Returns the aliases of the requested outputs (default: all); INVALID_ARGUMENT for unknown or repeated ones."""
    chosen: list[str] = []
    for alias in output_filter:
        if alias not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {alias} "
                f"Outputs expected to be in the set {set_text(signature.outputs)}."
            )
        if alias in chosen:
            raise invalid(f"duplicate output tensor alias: {alias}")
        chosen.append(alias)
    return chosen or list(signature.outputs)


def check_arrays(signature: Signature, arrays: Arrays, *, exact_rank: bool) -> None:
    """Rejects dtypes and shapes that must never reach an engine, with INVALID_ARGUMENT.

    `exact_rank`: whether inputs of every rank, not only images, must have their declared shape. A vector in place of a
    column still passes, as in TensorFlow Serving, whose own tests send one.
    """
    for position, (alias, (dtype, _)) in enumerate(signature.inputs.items()):
        sent = dtype_enum(arrays[alias].dtype)
        if sent != dtype:
            raise invalid(f"Expects arg[{position}] to be {dtype_name(dtype)} but {dtype_name(sent)} is provided")
    for alias, (_, shape) in signature.inputs.items():
        if shape is not None:
            _check_shape(alias, shape, arrays[alias].shape, exact_rank)


def set_text(names: Iterable[str]) -> str:
    """`{a,b}`, as TensorFlow prints sets of names."""
    return "{" + ",".join(sorted(names)) + "}"


def _declared(infos: Mapping[str, pb.TensorInfo]) -> dict[str, Declared]:
    found = {}
    for alias, info in sorted(infos.items()):
        shape = info.tensor_shape
        found[alias] = Declared(info.dtype, None if shape.unknown_rank else tuple(dim.size for dim in shape.dim))
    return found


def _check_shape(alias: str, declared: tuple[int, ...], shape: tuple[int, ...], exact_rank: bool) -> None:
    is_column = len(shape) == 1 and declared[1:] == (1,)
    if len(declared) >= IMAGE_RANK or (exact_rank and not is_column):
        if len(shape) != len(declared):
            raise invalid(
                f'Input "{alias}" must have {len(declared)} dimensions, {shape_text(declared)}. '
                f"Received: {len(shape)} dimensions, {shape_text(shape)}"
            )
        # The first dimension counts the images: a model exported for one at a time takes any number.
        if any(size not in (-1, got) for size, got in zip(declared[1:], shape[1:], strict=True)):
            raise invalid(f'Input "{alias}" must have shape {shape_text(declared)}. Received: {shape_text(shape)}')
    if declared and 0 in shape:
        raise invalid(f'Input "{alias}" must not be empty. Received: shape {shape_text(shape)}')
