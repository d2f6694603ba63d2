"""A model as a list of calls: the only code that walks a Keras model.

    calls.py    `read` makes a `Graph` of a model: its calls, and which of them make and read each tensor
    run.py      `run` calls the layers on any tensors, `build` makes a new model
    kinds.py    one row per layer kind: what analysis, rewrites, compression and export need to know of a layer
    ends.py     what a model takes and gives: preprocessing and final activation
    weights.py  weights of copies

Rewrites take and return a `Graph` (`keraslight.rewrite`), so that a model is read once and built once.
"""

from keraslight.graph.calls import Call, Graph, Node, Tensor, UnreadableModelError, read
from keraslight.graph.ends import Ends, final_activation, is_quantization_aware, own_preprocessing, read_ends
from keraslight.graph.run import CallLayer, build, infer, run
from keraslight.graph.weights import (
    copy,
    copying,
    fill_weights,
    flat_layers,
    is_clustered,
    learned_weights,
    set_weights,
    stored_weights,
)

__all__ = [
    "Call",
    "CallLayer",
    "Ends",
    "Graph",
    "Node",
    "Tensor",
    "UnreadableModelError",
    "build",
    "copy",
    "copying",
    "fill_weights",
    "final_activation",
    "flat_layers",
    "infer",
    "is_clustered",
    "is_quantization_aware",
    "learned_weights",
    "own_preprocessing",
    "read",
    "read_ends",
    "run",
    "set_weights",
    "stored_weights",
]
