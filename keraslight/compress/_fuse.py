"""Makes a model's inference graph smaller without changing what it computes."""

from __future__ import annotations

import keras

from keraslight.compress import _graph, _reparameterize
from keraslight.compress._rewriter import Rewriter


def opened(model: keras.Model) -> keras.Model:
    """A functional copy with the same weights, in which nested models are replaced by their layers.

    Raises:
        CompressionError: the model is subclassed, or a layer's configuration does not make it again.
    """
    return Rewriter(_graph.read(model)).model(model.name)


def fuse(model: keras.Model) -> keras.Model:
    """Rewrites a model for inference with fewer layers and the same outputs.

    - Dropout, drop path, noise and Keras' random layers for images go; the first three not where they are called with
      `training=True`.
    - Parallel convolutions that are added become one (see `reparameterize`).
    - A batch norm, layer scale, Rescaling or Normalization, `y = s * x + t` a channel, goes into the linear layer
      before it (kernel times `s`, bias `s * bias + t`), or into all layers after it where those see no padding
      (`t` would be missing at the border). TensorFlow's graph optimizer never changes weights: at best it runs a batch
      norm in one operation with an ordinary convolution, not with a depthwise one.
    - Two linear 1x1 convolutions in a row, a convolution with a linear 1x1 after it, or two dense layers become one,
      where that does not cost more multiply-adds.
    - An activation that works element by element goes into the layer before it.
    - A batch norm that only an activation reads, as all through DenseNet and pre-activation ResNets, can go into no
      layer after it, because `relu(s * x + t)` is not linear in `x`. Together they become a 1x1 depthwise convolution.

    All of it is left undone where it would change the result: where something else reads the tensor between, on
    another axis than the last, in layers that are used twice, and in subclasses of Keras' layers other than
    keraslight's, which may compute something else. A layer named `preprocessing` stays: it carries how images are
    prepared, which exporting asks for.

    Args:
        model: A functional or sequential model. It is not changed.

    Returns:
        A new functional model for inference with the same inputs and outputs. What a layer took in keeps the name of
        that layer; models nested in it are opened up.

    Raises:
        CompressionError: the model is subclassed, or a layer's configuration does not make it again.
    """
    if _reparameterize.has_blocks(model):
        model = _reparameterize.reparameterize(model)
    rewriter = Rewriter(_graph.read(model))
    rewriter.drop_training_only()
    rewriter.fold_backward()
    rewriter.fold_forward()
    rewriter.merge_linear()
    rewriter.join_activations()
    rewriter.fold_activations()
    return rewriter.model(model.name)
