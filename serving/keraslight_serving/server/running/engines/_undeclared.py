"""Signatures for .tflite files that declare none: those that were converted before the format had them.

Their graph has one set of inputs and outputs, with names. Some files describe it further, in metadata that TensorFlow's
`signature_def_util` wrote: a FlexBuffers map from the names of signatures to serialized SignatureDefs, whose tensors
are called as in TensorFlow, `x:0`. For all others TensorFlow Serving makes up one signature, whose aliases are the
names of the tensors, and so does this.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flatbuffers import flexbuffers

from keraslight_serving.wire import methods
from keraslight_serving.wire import serving_pb2 as pb

_METADATA = b"signature_defs_metadata"

Details = dict[str, dict[str, Any]]
"""What an interpreter tells of its tensors, by alias."""


def undeclared_signatures(
    content: bytes, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]
) -> dict[str, tuple[Details, Details]]:
    """The inputs and the outputs of each signature, by its name.

    Args:
        content: the file.
        inputs, outputs: the details of the tensors, from the interpreter.

    Raises:
        ValueError: the metadata can't be read, or names a tensor that the graph hasn't.
    """
    ends = (_by_name(inputs), _by_name(outputs))
    described = _described(content)
    if not described:
        return {methods.DEFAULT_SIGNATURE: ends}
    return {
        name: (_find(signature.inputs, ends[0]), _find(signature.outputs, ends[1]))
        for name, signature in described.items()
    }


def _by_name(tensors: Sequence[dict[str, Any]]) -> Details:
    """By their names as TensorFlow has them, but for the output's number where two differ in nothing else."""
    found: Details = {}
    for detail in tensors:
        name = detail["name"].partition(":")[0]
        found[detail["name"] if name in found else name] = detail
    return found


def _find(infos: Mapping[str, pb.TensorInfo], tensors: Details) -> Details:
    found: Details = {}
    for alias, info in infos.items():
        detail = tensors.get(info.name) or tensors.get(info.name.partition(":")[0])
        if detail is None:
            raise ValueError(f"Unknown tensor '{info.name}'.")
        found[alias] = detail
    return found


def _described(content: bytes) -> dict[str, pb.SignatureDef]:
    from ai_edge_litert.schema_py_generated import Model  # large, and of use for old files only

    model = Model.GetRootAs(content)
    for number in range(model.MetadataLength()):
        entry = model.Metadata(number)
        if entry.Name() != _METADATA:
            continue
        try:
            signatures = flexbuffers.GetRoot(bytearray(model.Buffers(entry.Buffer()).DataAsNumpy())).AsMap
            return {
                key.AsKey: pb.SignatureDef.FromString(value.AsStringBytes)
                for key, value in zip(signatures.Keys, signatures.Values, strict=True)
            }
        except Exception as error:
            raise ValueError(f"{_METADATA.decode()} must hold SignatureDefs. Received: {error}") from error
    return {}
