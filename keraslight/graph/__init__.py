"""A model as a list of calls: the only code that walks a Keras model.

    calls.py    a `Graph`: its calls, and which of them make and read each tensor
    reader.py   `read` makes a `Graph` of a model
    run.py      `run` calls the layers on any tensors, `build` makes a new model
    modes.py    training that leaves in inference mode what the model calls with `training=False`
    kinds.py    one row per layer kind: what analysis, rewrites, compression and export need to know of a layer
    names.py    names of layers in TensorFlow's graphs
    ends.py     what a model takes and gives: preprocessing, final activation and task
    weights.py  weights of copies

Rewrites take and return a `Graph` (`keraslight.rewrite`), so that a model is read once and built once.
"""

from keraslight import _doors, _faces

_doors.require("keraslight.graph", "models", "numpy", "keras")

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
    remember_task as remember_task,
    remembered_task as remembered_task,
    without_auxiliary as without_auxiliary,
)
from keraslight.graph.modes import (
    ModeKeepingModel as ModeKeepingModel,
    Settling as Settling,
    following_batch_norms as following_batch_norms,
    keeping_modes as keeping_modes,
    settle as settle,
)
from keraslight.graph.names import (
    any_names as any_names,
    compilable as compilable,
    graph_name as graph_name,
    with_graph_names as with_graph_names,
)
from keraslight.graph.pixels import takes_pixels as takes_pixels
from keraslight.graph.reader import (
    UnreadableModelError as UnreadableModelError,
    check_ends as check_ends,
    read as read,
)
from keraslight.graph.run import (
    CallLayer as CallLayer,
    build as build,
    copy as copy,
    infer as infer,
    of_size as of_size,
    run as run,
)
from keraslight.graph.weights import (
    check_finite as check_finite,
    copying as copying,
    fill_weights as fill_weights,
    flat_layers as flat_layers,
    is_clustered as is_clustered,
    is_frozen as is_frozen,
    learned_weights as learned_weights,
    owned_weights as owned_weights,
    set_weights as set_weights,
)

__all__ = _faces.public(globals())
