"""Signatures made of steps, so that a request decoded in TensorFlow still computes in the fast engine.

A servable declares in `assets.extra/keraslight.json` which of its signatures can be run in steps:

    "pipelines": {
      "serving_uint8": {"network": "serving_default"},
      "encoded":  {"decode": "decode", "network": "serving_default", "rank": "probabilities"},
      "classify": {"decode": "decode_examples", "network": "serving_default", "rank": "probabilities"}
    }

`network` is a signature of model.tflite with one float32 input. `decode` is a signature of the SavedModel that takes
the inputs of the whole and returns the network's input; without it, the input itself is cast. `rank` is an output of
the network: sorted, best first, it gives `scores`, `indices` and, by the lines of `assets/labels.txt`, `classes`. With
`thresholds`, a list of one number per class, it gives these in the same order. The other outputs are the network's.
Servables from other sources declare no pipelines and run as they are.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keraslight_serving.server.running.signatures import Arrays, Declared, Outputs, Signature
from keraslight_serving.wire import serving_pb2 as pb

logger = logging.getLogger("keraslight_serving.server")

_RANKED = {"classes": pb.DT_STRING, "scores": pb.DT_FLOAT, "indices": pb.DT_INT32}
_THRESHOLDS = "thresholds"


@dataclass(frozen=True)
class Pipeline:
    """The steps of one signature."""

    network: str  # signature that the fast engine runs
    input: str  # alias of its input
    decode: str | None  # signature of the SavedModel that returns that input; None to cast the input of the whole
    decoded: str  # alias under which `decode` returns it
    rank: str | None  # output of the network that is ranked; None for no ranking
    labels: NDArray[np.object_]  # names of the classes as bytes; empty without a ranking
    thresholds: NDArray[np.float32] | None = None  # of the classes' scores

    def needed(self, outputs: Sequence[str]) -> list[str]:
        """Returns the outputs of the network that `outputs` are made from."""
        ranked = self._ranked()
        return sorted({self.rank if self.rank and alias in ranked else alias for alias in outputs})

    def finish(self, answers: Arrays, outputs: Sequence[str]) -> Outputs:
        """Returns `outputs`, made from the network's."""
        found = dict(answers)
        if self.rank and not self._ranked().isdisjoint(outputs):
            # Equal scores are ranked by index, as in tf.math.top_k.
            order = np.argsort(-answers[self.rank], axis=-1, kind="stable")
            found["indices"] = order.astype(np.int32)
            found["scores"] = np.take_along_axis(answers[self.rank], order, -1)
            if "classes" in outputs:
                found["classes"] = self.labels[order]
            if self.thresholds is not None:
                found[_THRESHOLDS] = self.thresholds[order]
        return {alias: found[alias] for alias in outputs}

    def _ranked(self) -> set[str]:
        """The outputs that the ranking makes."""
        return {*_RANKED, *([] if self.thresholds is None else [_THRESHOLDS])}


def read_pipelines(folder: Path, saved: Mapping[str, Signature], fast: Mapping[str, Signature]) -> dict[str, Pipeline]:
    """Returns the pipelines that the folder declares and that fit its signatures. Others are skipped with a warning."""
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


def _pipeline(
    folder: Path, name: str, steps: Mapping[str, Any], saved: Mapping[str, Signature], fast: Mapping[str, Signature]
) -> Pipeline:
    whole, network = saved[name], fast[steps["network"]]
    ((alias, wanted),) = network.inputs.items()
    decode, rank, decoded, (given,) = steps.get("decode"), steps.get("rank"), "", whole.inputs.values()
    if decode is not None:
        if _types(saved[decode].inputs) != _types(whole.inputs):
            raise ValueError(f"`decode` must take the inputs of {name}. Received: {decode}")
        ((decoded, given),) = saved[decode].outputs.items()
    if wanted.dtype != pb.DT_FLOAT or given.dtype not in (pb.DT_FLOAT, pb.DT_UINT8):
        raise ValueError("`network` must take float32, from float32 or uint8")
    if _image(given) != _image(wanted):
        raise ValueError(f"`network` must take images of shape {_image(given)}. Received: {_image(wanted)}")
    labels, thresholds = np.array([], object), None
    offered = _types(network.outputs)
    if rank is not None:
        offered |= _RANKED
        # Only at line feeds: a label may contain the other characters at which str.splitlines splits.
        labels = np.array((folder / "assets" / "labels.txt").read_bytes().split(b"\n")[:-1], object)
        scores = network.outputs[rank]
        if scores.dtype != pb.DT_FLOAT or _image(scores) != [len(labels)]:
            raise ValueError(f"`rank` must be float32 scores of {len(labels)} classes. Received: {rank}")
        if (given_thresholds := steps.get(_THRESHOLDS)) is not None:
            thresholds = np.asarray(given_thresholds, np.float32)
            if thresholds.shape != labels.shape:
                raise ValueError(f"`thresholds` must be {len(labels)} numbers. Received: {given_thresholds}")
            offered[_THRESHOLDS] = pb.DT_FLOAT
    if not _types(whole.outputs).items() <= offered.items():
        raise ValueError(f"`network` and `rank` must give all outputs. Received: {sorted(offered)}")
    return Pipeline(steps["network"], alias, decode, decoded, rank, labels, thresholds)


def _types(declared: Mapping[str, Declared]) -> dict[str, int]:
    return {alias: dtype for alias, (dtype, _) in declared.items()}


def _image(declared: Declared) -> list[int]:
    """The sizes after the rows."""
    return list((declared.shape or ())[1:])
