"""A model as a list of calls: the only code that walks a Keras model.

    calls.py    a `Graph`: its calls, and which of them make and read each tensor
    reader.py   `read` makes a `Graph` of a model
    run.py      `run` calls the layers on any tensors, `build` makes a new model
    kinds.py    one row per layer kind: what analysis, rewrites, compression and export need to know of a layer
    ends.py     what a model takes and gives: preprocessing and final activation
    weights.py  weights of copies

Rewrites take and return a `Graph` (`keraslight.rewrite`), so that a model is read once and built once.
"""

from keraslight import _faces
from keraslight.graph.calls import (
    Call as Call,
    Graph as Graph,
    Node as Node,
    Tensor as Tensor,
)
from keraslight.graph.ends import (
    Ends as Ends,
    final_activation as final_activation,
    is_quantization_aware as is_quantization_aware,
    own_preprocessing as own_preprocessing,
    read_ends as read_ends,
)
from keraslight.graph.pixels import takes_pixels as takes_pixels
from keraslight.graph.reader import UnreadableModelError as UnreadableModelError, read as read
from keraslight.graph.run import CallLayer as CallLayer, build as build, copy as copy, infer as infer, run as run
from keraslight.graph.weights import (
    check_finite as check_finite,
    copying as copying,
    fill_weights as fill_weights,
    flat_layers as flat_layers,
    is_clustered as is_clustered,
    learned_weights as learned_weights,
    set_weights as set_weights,
    stored_weights as stored_weights,
)

__all__ = _faces.public(globals())
