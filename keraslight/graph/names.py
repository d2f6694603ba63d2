"""Names of layers for TensorFlow's graphs, which allow fewer characters than Keras and other frameworks do."""

import contextlib
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keraslight.graph.calls import Graph
from keraslight.graph.weights import flat_layers

_ALLOWED = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.>-]*", re.ASCII)


def graph_name(name: str) -> str:
    """The name of a layer or model in TensorFlow's graphs: its own, or one that tells it from all others.

    TensorFlow raises for a name such as `"conv 1"`, and at the outside of a graph also for `"_conv"`. Other characters
    become `_`, and a checksum of the whole name follows, so that `"conv 1"` and `"conv:1"` stay apart.
    """
    if _ALLOWED.fullmatch(name):
        return name
    letters = re.sub(r"[^A-Za-z0-9_.>-]", "_", name)
    return f"{letters.lstrip('_->')[:64] or 'layer'}-{zlib.crc32(name.encode(errors='surrogatepass')):08x}"


def with_graph_names(graph: Graph) -> tuple[Graph, dict[str, str]]:
    """A graph whose layers have names that TensorFlow's graphs allow, and these names -> the layers' own.

    The graph is the same one if there is nothing to rename.
    """
    own = {graph_name(call.name): call.name for call in graph.calls}
    if all(new == old for new, old in own.items()) and graph.name == graph_name(graph.name):
        return graph, own
    copy = graph.copy()
    copy.name = graph_name(graph.name)
    for node in copy.uses():
        node.rename(graph_name(node.name))
    return copy, own


@contextlib.contextmanager
def any_names() -> Iterator[None]:
    """Lets layers of any name be called while TensorFlow traces a graph, in which they have their `graph_name`."""
    import tensorflow as tf

    if tf.executing_eagerly():
        yield
        return
    graph = tf.compat.v1.get_default_graph()
    scope = graph.name_scope

    def name_scope(name: str | None) -> contextlib.AbstractContextManager[str]:
        return scope(name and "/".join(part and graph_name(part) for part in name.split("/")))

    graph.name_scope = name_scope
    try:
        yield
    finally:
        graph.name_scope = scope


@contextlib.contextmanager
def compilable(model: keras.Model) -> Iterator[None]:
    """Lets `fit`, `evaluate` and `predict` run in graphs on TensorFlow, whatever the layers of a model are called."""
    named = all(graph_name(layer.name) == layer.name for layer in flat_layers(model))
    if named or keras.backend.backend() != "tensorflow":
        yield
        return

    def tolerant(step: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **keywords: Any) -> Any:
            with any_names():
                return step(*arguments, **keywords)

        return run

    steps = [name for name in ("train_step", "test_step", "predict_step") if name not in vars(model)]
    for name in steps:
        setattr(model, name, tolerant(getattr(model, name)))
    try:
        yield
    finally:
        for name in steps:
            delattr(model, name)
