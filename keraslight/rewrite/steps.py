"""A graph that is being rewritten: makers and readers of each tensor, kept up to date while calls change."""

import math
from collections.abc import Iterator

import keras
import numpy as np

from keraslight.graph import Call, Graph, Node, Tensor
from keraslight.graph.kinds import exact_kind


class Step:
    """A call of a layer, and what rewrites ask of its kernel.

    Attributes:
        call: The call, whose node may be changed.
        alone: Whether the layer is called once.
    """

    def __init__(self, call: Call, alone: bool) -> None:
        self.call, self.alone = call, alone
        self.kernel_kind = exact_kind(call.node.kind).kernel

    @property
    def node(self) -> Node:
        """The layer."""
        return self.call.node

    @property
    def has_kernel(self) -> bool:
        """Whether it is one of Keras' layers with a kernel, free to be changed."""
        if self.kernel_kind is None or not self.alone or len(self.call.inputs) != 1:
            return False
        config, kernels = self.node.config, 2 if self.kernel_kind == "separable" else 1
        return (
            config.get("data_format", "channels_last") == "channels_last"
            and len(self.node.weights) == kernels + config["use_bias"]  # a low-rank or quantized one has more
        )

    @property
    def trainable(self) -> bool:
        """Whether it is not frozen."""
        return bool(self.node.config.get("trainable", True))

    @property
    def linear(self) -> bool:
        """Whether it has no activation."""
        return self.node.config["activation"] == "linear"

    @property
    def pointwise(self) -> bool:
        """Whether each output pixel comes from one input pixel and all its channels."""
        if self.kernel_kind != "convolution":
            return self.kernel_kind == "dense"
        config = self.node.config
        return {*config["kernel_size"], *config["strides"], config["groups"]} == {1}

    @property
    def unpadded(self) -> bool:
        """Whether it reads no padding."""
        if self.kernel_kind not in ("convolution", "depthwise"):
            return self.kernel_kind == "dense"
        return self.node.config["padding"] == "valid" or set(self.node.config["kernel_size"]) == {1}

    @property
    def kernel(self) -> np.ndarray:
        """The kernel that makes the output channels, in float64."""
        return np.asarray(self.node.weights[-2 if self.node.config["use_bias"] else -1], np.float64)

    @property
    def bias(self) -> np.ndarray:
        """The bias, float64 (F,), or () where there is none."""
        return np.asarray(self.node.weights[-1] if self.node.config["use_bias"] else 0.0, np.float64)

    def set_kernel(self, kernel: np.ndarray, bias: np.ndarray) -> None:
        """Replaces the last kernel, and the bias by one that is broadcast to the output channels."""
        kept = self.node.weights[: len(self.node.weights) - 1 - self.node.config["use_bias"]]
        if self.kernel_kind == "depthwise":
            channels = math.prod(kernel.shape[-2:])
        else:
            channels = kernel.shape[-2 if self.kernel_kind == "transposed" else -1]
        self.node.change(config={"use_bias": True}, weights=[*kept, kernel, np.broadcast_to(bias, channels)])

    def scale_outputs(self, scale: np.ndarray, shift: np.ndarray) -> None:
        """Makes a linear layer give `scale * y + shift` where it gave `y`."""
        kernel, channels = self.kernel, scale
        if self.kernel_kind == "depthwise":
            # (..., channels, multiplier), whose output channel is channel * multiplier + m.
            channels = np.broadcast_to(scale, math.prod(kernel.shape[-2:])).reshape(kernel.shape[-2:])
        elif self.kernel_kind == "transposed":  # (..., out, in)
            channels = np.broadcast_to(scale, kernel.shape[-2])[:, None]
        self.set_kernel(kernel * channels, self.bias * scale + shift)

    def scale_inputs(self, scale: np.ndarray, shift: np.ndarray) -> None:
        """Makes a layer read `x` where it read `scale * x + shift`."""
        kernel = self.kernel
        if self.kernel_kind == "depthwise":
            inputs = np.arange(kernel.shape[-2])[:, None]
        else:
            inside, outputs = kernel.shape[-2:]
            groups = self.node.config.get("groups", 1)
            # Output channel o reads the channels of its group.
            inputs = np.arange(inside)[:, None] + np.arange(outputs) // (outputs // groups) * inside
        count = int(inputs.max()) + 1
        scale, shift = (np.broadcast_to(np.asarray(value, np.float64), count)[inputs] for value in (scale, shift))
        added = (kernel * shift).sum(axis=tuple(range(kernel.ndim - 2)))
        added = added.reshape(-1) if self.kernel_kind == "depthwise" else added.sum(axis=0)
        self.set_kernel(kernel * scale, self.bias + added)


class Steps:
    """The calls of a copy of a graph, in order.

    Attributes:
        graph: The copy, which the methods change.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph.copy()
        uses = self.graph.uses()
        self._steps = {id(call): Step(call, uses[call.node] == 1) for call in self.graph.calls}
        self._makers = self.graph.makers()
        self._readers = self.graph.readers()

    def __iter__(self) -> Iterator[Step]:
        # Of a copy, so that steps may be removed meanwhile.
        return iter([self._steps[id(call)] for call in self.graph.calls])

    def maker(self, tensor: Tensor) -> Step | None:
        """The step that makes a tensor; None for an input."""
        call = self._makers.get(tensor)
        return None if call is None else self._steps[id(call)]

    def readers(self, step: Step) -> list[Step | None]:
        """The steps that read the first output; None stands for the model's output."""
        calls = self._readers.get(step.call.outputs[0], [])
        return [None if call is None else self._steps[id(call)] for call in calls]

    def before(self, step: Step) -> Step | None:
        """The layer with a kernel that feeds only this call and is linear."""
        if len(step.call.inputs) != 1 or step.call.in_training:
            return None
        maker = self.maker(step.call.inputs[0])
        alone = maker is not None and self._readers[step.call.inputs[0]] == [step.call]
        return maker if maker is not None and alone and maker.has_kernel and maker.linear else None

    def absorb(self, maker: Step, step: Step) -> None:
        """Removes a call that `maker` took in: `maker` makes its output instead of its input."""
        del self._readers[maker.call.outputs[0]]
        maker.call.outputs = step.call.outputs
        self._makers[step.call.outputs[0]] = maker.call
        self.graph.calls.remove(step.call)

    def remove(self, step: Step) -> None:
        """Removes a call of one input and one output: what read its output reads its input."""
        (before,), after = step.call.inputs, step.call.outputs[0]

        def moved(leaf: object) -> object:
            return before if leaf == after else leaf

        readers = self._readers.pop(after, [])
        for reader in readers:
            if reader is None:
                self.graph.outputs = keras.tree.map_structure(moved, self.graph.outputs)
            else:
                reader.args = keras.tree.map_structure(moved, reader.args)
                reader.kwargs = keras.tree.map_structure(moved, reader.kwargs)
        self._readers[before] = [reader for reader in self._readers[before] if reader is not step.call] + readers
        self.graph.calls.remove(step.call)
