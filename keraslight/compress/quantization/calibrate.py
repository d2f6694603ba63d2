"""Post-training int8: a LiteRT file from a float model and a few images."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keraslight.compress.quantization import equalize as _equalize
from keraslight.compress.quantization.int8_layers import Int8Layers
from keraslight.graph import Graph, check_finite, read, takes_pixels, without_auxiliary
from keraslight.rewrite import float_inputs, fused, in_float32, joined_slices

RANGE_IMAGES = 128


def calibrate(
    model: keras.Model,
    data: Any,
    path: str | os.PathLike[str],
    *,
    skip: str | Sequence[str] = (),
    equalize: bool = True,
    correct_bias: bool = True,
    replace_relu6: bool = False,
    input_dtype: str = "float32",
    batch_size: int | None = 1,
    seed: int = 0,
) -> Path:
    """Writes an int8 .tflite file whose ranges come from images, without any training.

    The model is fused, equalized and its biases are corrected; then TFLite's converter runs 128 images through it and
    sets the range of every tensor. Of Nagel et al., https://arxiv.org/abs/1906.04721, that is equalization (section
    4.1) and empirical bias correction (4.2 and appendix D); high biases are not absorbed (4.1.3). If that costs too
    much accuracy, `calibrate_mixed` finds the layers that have to stay float, and `train_quantized` recovers it by
    training.

    Args:
        model: A trained functional or sequential Keras 3 image classifier. It is not changed.
        data: Images in any form that `prune` takes, with or without labels, which are not read.
        path: File to write.
        skip: Name patterns (`fnmatch`) of layers that stay float32. Layers that `fuse` folds into another one follow
            that layer; maximum pooling, padding and the like follow the layer before them.
        equalize, correct_bias: Whether to apply the functions of these names.
        replace_relu6: As in `equalize`.
        input_dtype, batch_size: As in `keraslight.export.to_litert`.
        seed: Seed of the choice of images from arrays.

    Returns:
        The path.

    Raises:
        InvalidArgumentError: An argument or the data can't be used, or a pattern of `skip` matches no layer.
        CompressionError: The model is subclassed, or a layer's configuration does not make it again.
        ExportError: The converter fails.
    """
    from keraslight.export.litert.convert import convert_graph

    model = in_float32(without_auxiliary(model))
    images = range_images(model, data, seed)
    prepared, pixels = prepare(model, images, equalize=equalize, correct_bias=correct_bias, replace_relu6=replace_relu6)
    if skip:
        layers = Int8Layers(prepared, images, batch_size, pixels)
        return layers.write(path, layers.matching(skip, "skip"), input_dtype=input_dtype)
    return convert_graph(
        prepared,
        path,
        pixels=pixels,
        quantization="int8",
        representative_data=images,
        input_dtype=input_dtype,
        batch_size=batch_size,
    )


def range_images(model: keras.Model, data: Any, seed: int) -> np.ndarray:
    """The images that set the ranges, float32 (N, H, W, C)."""
    return _equalize.first_images(model, data, RANGE_IMAGES, seed)


def prepare(
    model: keras.Model, images: np.ndarray, *, equalize: bool, correct_bias: bool, replace_relu6: bool
) -> tuple[Graph, bool]:
    """The graph that `calibrate` converts, with its arguments, and whether it takes raw pixels.

    `images` are `range_images`.
    """
    graph = read(model)
    check_finite(graph.layers())
    pixels = takes_pixels(graph, [images])
    graph = fused(float_inputs(graph))
    if equalize:
        graph = _equalize.equalized(graph, replace_relu6)
    if correct_bias:
        graph = _equalize.corrected(graph, images[: _equalize.IMAGES])
    return joined_slices(graph), pixels
