"""Rewrites of a model for inference that need no data."""

import keras

from keraslight.errors import CompressionError
from keraslight.graph import build, read
from keraslight.rewrite import fused, halved, reparameterized


def fuse(model: keras.Model) -> keras.Model:
    """Rewrites a model for inference with fewer layers and the same outputs.

    - Dropout, drop path, noise and Keras' random layers for images are removed, unless they are called with
      `training=True`.
    - Parallel convolutions that are added become one (see `reparameterize`).
    - A batch norm, layer scale, Rescaling or Normalization, `y = s * x + t` per channel, goes into the linear layer
      before it (kernel times `s`, bias `s * bias + t`), or into all layers after it where those see no padding
      (`t` would be missing at the border). TensorFlow's graph optimizer never changes weights: at best it runs a batch
      norm in one operation with an ordinary convolution, not with a depthwise one.
    - Two linear 1x1 convolutions in a row, a convolution with a linear 1x1 after it, or two dense layers become one,
      where that does not cost more multiply-adds.
    - An element-wise activation goes into the layer before it.
    - A batch norm that only an activation reads, as throughout DenseNet and pre-activation ResNets, can't go into a
      layer after it, because `relu(s * x + t)` is not linear in `x`. Together they become a 1x1 depthwise convolution.

    Nothing is changed where it would change the result: where something else reads the tensor in between, on an axis
    other than the last, in layers that are used twice, and in subclasses of Keras' layers other than keraslight's,
    which may compute something else. A layer named `preprocessing` stays: it says how images are prepared, which
    exporting asks for.

    Args:
        model: A functional or sequential model. It is not changed.

    Returns:
        A new functional model for inference with the same inputs and outputs. A layer that others were folded into
        keeps its name; nested models are opened up.

    Raises:
        CompressionError: The model is subclassed, or a layer's configuration does not make it again.
    """
    return build(fused(read(model)))


def reparameterize(model: keras.Model) -> keras.Model:
    """Fuses every block of parallel branches, as RepVGG trains them, into one convolution with bias.

    A block is a sum of two or more branches of the same tensor: convolutions, each with or without a batch norm, and
    the tensor itself, with or without one. At inference all of them are linear, so that one kernel can replace them.
    Additions whose branches can't be fused stay as they are.

    Source: Ding et al., "RepVGG", https://arxiv.org/abs/2101.03697, section 3.3.

    Args:
        model: A functional or sequential model in its training form. It is not changed.

    Returns:
        A new functional model for inference with the same inputs and outputs. The convolution that replaces a block has
        the name of the block's largest one.

    Raises:
        CompressionError: The model is subclassed, has no such block, or a layer's configuration does not make it
            again.
    """
    graph = read(model)
    deployed = reparameterized(graph)
    if deployed is graph:
        raise CompressionError(
            "`model` must have a block of parallel convolutions that are added, as RepVGG's training form. "
            f"Received: {model.name!r}, which has none."
        )
    return build(deployed)


def half(model: keras.Model, dtype: str = "float16") -> keras.Model:
    """Copies a model into one that stores its weights and computes in 16 bits, for inference.

    For accelerators with half-precision units, and for files of half the size. A CPU without such units is slower
    with it; for phones `to_litert(quantization="float16")` halves the file and computes in float32.

    The model takes and returns float32 as before. Normalizations and a final softmax stay in float32.

    Args:
        model: A functional or sequential model. It is not changed.
        dtype: `"float16"` (11 bits of precision, up to 65,504) or `"bfloat16"` (8 bits, float32's range).

    Returns:
        A new functional model with the same layer names. Models nested in it are opened up.

    Raises:
        InvalidArgumentError: `dtype` is neither.
        CompressionError: A weight is too large for `dtype`, the model is subclassed, or a layer's configuration does
            not make it again.
    """
    return build(halved(read(model), dtype))
