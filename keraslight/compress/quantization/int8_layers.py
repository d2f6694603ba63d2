"""Maps the operators of a calibrated model to its layers, so that layers can stay float by name."""

import os
import re
from collections.abc import Collection
from pathlib import Path

import keras
import numpy as np

from keraslight.compress._patterns import chosen
from keraslight.graph import Graph, graph_name


class Int8Layers:
    """The layers of a model, each to be int8 or float in a .tflite file.

    Args:
        graph: A fused graph with one input and one output, so that each layer is one operator or a few.
        images: (N, H, W, C) images from which the ranges are taken, as the model takes them.
        batch_size: Batch size of the files; None leaves it open.
        pixels: As of `CalibratedModel`.

    Attributes:
        names: The layers that int8 makes a difference to, in the model's order.
    """

    def __init__(
        self, graph: Graph, images: np.ndarray, batch_size: int | None = 1, pixels: bool | None = None
    ) -> None:
        from keraslight.export.litert.selective import MOVES, CalibratedModel

        (output,) = keras.tree.flatten(graph.outputs)
        self.kinds = {call.name: call.node.kind.__name__ for call in graph.calls}
        self._in_file = {graph_name(name): name for name in self.kinds}
        self._last = next(call.name for call in graph.calls if output in call.outputs)
        self._calibrated = CalibratedModel(graph, images, batch_size, pixels)
        self._owners = {operator.name: self._owners_of(operator.name) for operator in self._calibrated.operators}
        silent = (*self._calibrated.always_float, *(o.name for o in self._calibrated.operators if o.kind in MOVES))
        changed = {self._owners[o.name][-1] for o in self._calibrated.operators if o.name not in silent}
        self.names = tuple(name for name in self.kinds if name in changed)

    def matching(self, patterns: str | Collection[str], argument: str) -> set[str]:
        """The layers with an operator of their own that match name patterns (`fnmatch`), given as `argument`.

        Raises:
            InvalidArgumentError: A pattern matches none.
        """
        owners = {owner for owners in self._owners.values() for owner in owners}
        names = [name for name in self.kinds if name in owners]
        rule = f"Each pattern of `{argument}` must match a layer that is left once the model is fused"
        return set(chosen(names, patterns, rule, names))

    def write(self, path: str | os.PathLike[str], floats: Collection[str], **dtypes: str) -> Path:
        """Writes a file with these layers in float and the others in int8; `dtypes` as `CalibratedModel.write`."""
        operators = [name for name, owners in self._owners.items() if not set(owners).isdisjoint(floats)]
        return self._calibrated.write(path, operators, **dtypes)

    def write_alone(self, path: str | os.PathLike[str], layer: str) -> Path:
        """Writes a file with one layer in int8 and the others in float."""
        return self._calibrated.write(path, [name for name, owners in self._owners.items() if owners[-1] != layer])

    def _owners_of(self, operator: str) -> tuple[str, ...]:
        """The layers that an operator computes, the one that it is counted for last.

        Its name is `net_1/conv_1/Relu;net_1/conv_1/convolution`: what it was fused from, the last step first. In a
        path Keras gives every layer's name a number. A ReLU is fused into the layer before it; further parts may be
        constants, which the converter shares between layers, and say nothing.
        """
        parts = operator.split(";")
        first, *others = (self._layer_of(part) for part in parts)
        if first is None:
            return (self._last,)  # the file's output has the signature's name
        if others and others[0] not in (None, first) and parts[0].rsplit("/", 1)[-1].startswith("Relu"):
            return (first, others[0])
        return (first,)

    def _layer_of(self, path: str) -> str | None:
        for segment in path.split("/")[1:]:  # the first is the model's name
            for name in (re.sub(r"_\d+$", "", segment), segment):
                if name in self._in_file:
                    return self._in_file[name]
        return None
