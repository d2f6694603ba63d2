"""Does a request fit a signature? The order of the checks, the codes and the texts are TensorFlow Serving's.

One check is ours alone: shapes. TensorFlow Serving leaves them to the kernels, and there a tensor of the wrong rank
aborts the process (oneDNN's convolution), a wrong number of channels may be taken for a grouped convolution, and LiteRT
computes something from any of them.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import grpc
import numpy as np

from keraslight_serving.server.base.errors import StatusError, invalid
from keraslight_serving.wire import serving_pb2 as pb
from keraslight_serving.wire.dtypes import dtype_name
from keraslight_serving.wire.tensors import TensorError, dtype_enum, shape_text, to_array

# From this rank on a tensor is taken for images, and its shape has to be the declared one. Below it TensorFlow's own
# looseness is kept: its test suite sends [1] where [-1,1] is declared.
IMAGE_RANK = 3


def find_signature(signatures: Mapping[str, pb.SignatureDef], name: str) -> pb.SignatureDef:
    """Raises FAILED_PRECONDITION for an unknown name."""
    try:
        return signatures[name]
    except KeyError:
        raise StatusError(grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.') from None


def read_inputs(signature: pb.SignatureDef, tensors: Mapping[str, pb.TensorProto]) -> dict[str, np.ndarray]:
    """The arrays of a request by alias; inputs that are not sent come from the signature's defaults."""
    sent, declared, defaults = set(tensors), set(signature.inputs), signature.defaults
    if len(sent) > len(declared) or (len(sent) < len(declared) and not defaults):
        raise invalid(
            f"input size does not match signature: {len(sent)}!={len(declared)} "
            f"len({_set(sent)}) != len({_set(declared)}). "
            f"Sent extra: {_set(sent - declared)}. Missing but required: {_set(declared - sent)}."
        )
    arrays, used = {}, set()
    for alias in sorted(declared):
        if alias in sent:
            tensor = tensors[alias]
            used.add(alias)
        elif alias in defaults:
            tensor = defaults[alias]
        else:
            raise invalid(
                f"Signature input alias: {alias}(feed name: {signature.inputs[alias].name}) not found in request and "
                f"no default value provided. Inputs expected to be in the request {_set(sent)}, or default input "
                f"alias set: {','.join(sorted(defaults))}"
            )
        try:
            arrays[alias] = to_array(tensor)
        except TensorError:
            raise invalid(f"tensor parsing error: {alias}") from None
    if used != sent:
        raise invalid(
            f"Inputs contains invalid name. Used request inputs: {','.join(sorted(used))}, "
            f"request input: {','.join(sorted(sent))}"
        )
    return arrays


def choose_outputs(signature: pb.SignatureDef, output_filter: Iterable[str]) -> list[str]:
    """The aliases to answer with: those asked for, else all."""
    chosen: list[str] = []
    for alias in output_filter:
        if alias not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {alias} "
                f"Outputs expected to be in the set {_set(signature.outputs)}."
            )
        if alias in chosen:
            raise invalid(f"duplicate output tensor alias: {alias}")
        chosen.append(alias)
    return chosen or sorted(signature.outputs)


class Declared(NamedTuple):
    """What a signature says of an input. `shape`: -1 where a size is unknown; None: so is their number."""

    dtype: int
    shape: tuple[int, ...] | None


def declared_inputs(signature: pb.SignatureDef) -> dict[str, Declared]:
    """By alias, in their order."""
    return {
        alias: Declared(info.dtype, None if info.tensor_shape.unknown_rank else declared_shape(info))
        for alias, info in sorted(signature.inputs.items())
    }


def check_arrays(declared: Mapping[str, Declared], arrays: Mapping[str, np.ndarray], *, exact_rank: bool) -> None:
    """Refuses dtypes and shapes that the engines must never see.

    Args:
        declared: what `declared_inputs` has found.
        arrays: all inputs.
        exact_rank: hold inputs of every rank to their declared shape, not only images; but for a vector in place of a
            column, which TensorFlow Serving takes, as it takes all shapes, and which its own tests send.
    """
    for position, (alias, (dtype, _)) in enumerate(declared.items()):
        sent = dtype_enum(arrays[alias].dtype)
        if sent != dtype:
            raise invalid(f"Expects arg[{position}] to be {dtype_name(dtype)} but {dtype_name(sent)} is provided")
    for alias, (_, shape) in declared.items():
        if shape is not None:
            _check_shape(alias, shape, arrays[alias].shape, exact_rank)


def declared_shape(info: pb.TensorInfo) -> tuple[int, ...]:
    """-1 where a size is unknown."""
    return tuple(dim.size for dim in info.tensor_shape.dim)


def _check_shape(alias: str, declared: tuple[int, ...], shape: tuple[int, ...], exact_rank: bool) -> None:
    is_column = len(shape) == 1 and declared[1:] == (1,)
    if len(declared) >= IMAGE_RANK or (exact_rank and not is_column):
        if len(shape) != len(declared):
            raise invalid(
                f'Input "{alias}" must have {len(declared)} dimensions, {shape_text(declared)}. '
                f"Received: {len(shape)} dimensions, {shape_text(shape)}"
            )
        # The first dimension counts the images: a model made for one at a time takes any number.
        if any(size not in (-1, got) for size, got in zip(declared[1:], shape[1:], strict=True)):
            raise invalid(f'Input "{alias}" must have shape {shape_text(declared)}. Received: {shape_text(shape)}')
    if declared and 0 in shape:
        raise invalid(f'Input "{alias}" must not be empty. Received: shape {shape_text(shape)}')


def _set(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"
