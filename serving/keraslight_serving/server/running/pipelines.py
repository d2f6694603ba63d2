"""Signatures made of steps, so that what decodes in TensorFlow still computes in the fast engine.

A servable says in `assets.extra/keraslight.json` which of its signatures can be put together like this:

    "pipelines": {
      "serving_uint8": {"network": "serving_default"},
      "encoded":  {"decode": "decode", "network": "serving_default", "rank": "probabilities"},
      "classify": {"decode": "decode_examples", "network": "serving_default", "rank": "probabilities"}
    }

`network` is a signature with one float32 input, which model.tflite has. `decode` is a signature of the SavedModel that
takes the same inputs as the whole and gives that input; without it, the input itself is cast. `rank` is an output of
the network: sorted, best first, it gives `scores`, `indices` and, by the lines of `assets/labels.txt`, `classes`. The
other outputs are the network's. Other people's servables say nothing of the kind, and run as they are.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keraslight_serving.wire import serving_pb2 as pb

logger = logging.getLogger("keraslight_serving.server")

_RANKED = {"classes": pb.DT_STRING, "scores": pb.DT_FLOAT, "indices": pb.DT_INT32}
Signatures = Mapping[str, pb.SignatureDef]


@dataclass(frozen=True)
class Pipeline:
    """How one signature is put together.

    Attributes:
        network: the signature that the fast engine runs.
        input: the alias of its input.
        decode: the signature of the SavedModel that makes that input, under the alias `decoded`; None: none does.
        rank: the network's output that is ranked; None: there is no ranking.
        labels: bytes, by class; empty without a ranking.
    """

    network: str
    input: str
    decode: str | None
    decoded: str
    rank: str | None
    labels: np.ndarray

    def needed(self, outputs: Sequence[str]) -> list[str]:
        """The outputs of the network from which `outputs` can be made."""
        return sorted({self.rank if self.rank and alias in _RANKED else alias for alias in outputs})

    def finish(self, answers: Mapping[str, np.ndarray], outputs: Sequence[str]) -> dict[str, np.ndarray]:
        """The outputs, from those of the network."""
        found = dict(answers)
        if self.rank and not _RANKED.keys().isdisjoint(outputs):
            # Of equal scores the lower index comes first, as in tf.math.top_k.
            order = np.argsort(-answers[self.rank], axis=-1, kind="stable")
            found["indices"] = order.astype(np.int32)
            found["scores"] = np.take_along_axis(answers[self.rank], order, -1)
            if "classes" in outputs:
                found["classes"] = self.labels[order]
        return {alias: found[alias] for alias in outputs}


def read_pipelines(folder: Path, saved: Signatures, fast: Signatures) -> dict[str, Pipeline]:
    """The pipelines that a version declares and that fit its signatures; others are left out with a warning.

    Args:
        folder: the version.
        saved: the signatures of the SavedModel.
        fast: those that run in the fast engine.
    """
    file = folder / "assets.extra" / "keraslight.json"
    if not file.is_file():
        return {}
    try:
        declared = json.loads(file.read_bytes()).get("pipelines", {}).items()
    except (OSError, ValueError, AttributeError) as error:
        logger.warning("Can't read %s; its pipelines run in TensorFlow: %s", file, error)
        return {}
    found = {}
    for name, steps in declared:
        if name in fast or name not in saved:
            continue
        try:
            found[name] = _pipeline(folder, name, steps, saved, fast)
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s: pipeline %s is left out and runs in TensorFlow: %r", file, name, error)
    return found


def _pipeline(folder: Path, name: str, steps: Mapping[str, Any], saved: Signatures, fast: Signatures) -> Pipeline:
    whole, network = saved[name], fast[steps["network"]]
    ((alias, wanted),) = network.inputs.items()
    decode, rank, decoded, (given,) = steps.get("decode"), steps.get("rank"), "", whole.inputs.values()
    if decode is not None:
        if _types(saved[decode].inputs) != _types(whole.inputs):
            raise ValueError(f"`decode` must take the inputs of {name}. Received: {decode}")
        ((decoded, given),) = saved[decode].outputs.items()
    if wanted.dtype != pb.DT_FLOAT or given.dtype not in (pb.DT_FLOAT, pb.DT_UINT8):
        raise ValueError("`network` must take float32, and be given that or uint8")
    if _image(given) != _image(wanted):
        raise ValueError(f"`network` must take images of shape {_image(given)}. Received: {_image(wanted)}")
    labels = np.array([], object)
    offered = _types(network.outputs)
    if rank is not None:
        offered |= _RANKED
        # By line feeds only: a label may hold any other sign that str.splitlines takes for an end.
        labels = np.array((folder / "assets" / "labels.txt").read_bytes().split(b"\n")[:-1], object)
        scores = dict(network.outputs)[rank]  # a map of messages would make up what it does not have
        if scores.dtype != pb.DT_FLOAT or _image(scores) != [len(labels)]:
            raise ValueError(f"`rank` must be float32 scores of {len(labels)} classes. Received: {rank}")
    if not _types(whole.outputs).items() <= offered.items():
        raise ValueError(f"`network` and `rank` must give all outputs. Received: {sorted(offered)}")
    return Pipeline(steps["network"], alias, decode, decoded, rank, labels)


def _types(infos: Mapping[str, pb.TensorInfo]) -> dict[str, int]:
    return {alias: info.dtype for alias, info in infos.items()}


def _image(info: pb.TensorInfo) -> list[int]:
    """The shape behind the rows."""
    return [dim.size for dim in info.tensor_shape.dim[1:]]
