"""Signatures of .tflite files that declare none because they are older than that part of the format.

Their graph has one set of named inputs and outputs. Some files describe it further, in metadata that TensorFlow's
`signature_def_util` wrote: a FlexBuffers map from signature names to serialized SignatureDefs, whose tensors have
TensorFlow names, `x:0`. For all other files TensorFlow Serving makes up one signature, whose aliases are the names of
the tensors, and so does this module.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flatbuffers import flexbuffers

from keraslight_serving.wire import methods, serving_pb2 as pb

_METADATA = b"signature_defs_metadata"

Details = dict[str, dict[str, Any]]  # an interpreter's description of tensors, by alias


def undeclared_signatures(
    content: bytes, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]
) -> dict[str, tuple[Details, Details]]:
    """Returns inputs and outputs of each signature, from a file's content and the interpreter's descriptions."""
    ends = (_by_name(inputs), _by_name(outputs))
    described = _described(content)
    if not described:
        return {methods.DEFAULT_SIGNATURE: ends}
    return {name: (_find(s.inputs, ends[0]), _find(s.outputs, ends[1])) for name, s in described.items()}


def _by_name(tensors: Sequence[dict[str, Any]]) -> Details:
    """By TensorFlow name, which keeps the number of the output only where two names differ in nothing else."""
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
    from ai_edge_litert.schema_py_generated import Model  # large, and only old files need it

    model = Model.GetRootAs(content)
    for number in range(model.MetadataLength()):
        entry = model.Metadata(number)
        if entry.Name() != _METADATA:
            continue
        try:
            found = flexbuffers.GetRoot(bytearray(model.Buffers(entry.Buffer()).DataAsNumpy())).AsMap
            pairs = zip(found.Keys, found.Values, strict=True)
            return {key.AsKey: pb.SignatureDef.FromString(value.AsStringBytes) for key, value in pairs}
        except Exception as error:
            raise ValueError(f"{_METADATA.decode()} must hold SignatureDefs. Received: {error}") from error
    return {}
