"""RandAugment for a batch at once, with draws of its own for each image, as a pure function of a seed.

Source: Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space",
https://arxiv.org/abs/1909.13719. Of the operations and their strengths there are several versions; these are timm's
"increasing" ones, in which a larger magnitude is always a larger change. Cutout is `Augmentation(erase=...)`.

Each layer sorts the images of a batch by the operation that they drew, and runs each operation on its images only: the
whole takes about as long as one operation on all images for each layer. Keras' layer computes all operations for all
images, and draws one for the whole batch.
"""

import math
from collections.abc import Callable

import tensorflow as tf

GRAY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as JPEG and Pillow have it
_WHITE = 255.0


def rand_augment(
    images: tf.Tensor, seed: tf.Tensor, *, layers: int, magnitude: float, probability: float, std: float, edges: str
) -> tf.Tensor:
    """Applies `layers` operations to each image, one after the other.

    Args:
        images: float32 (B, H, W, C), pixels 0..255.
        seed: Integers of shape (2,).
        layers: Operations per image.
        magnitude: Strength, 0..30; 10 is the largest of the paper's scale, and more goes beyond it.
        probability: Probability of each operation to be applied.
        std: Standard deviation of the strength.
        edges: Fill mode for pixels from outside the image, `"reflect"`, `"nearest"` or `"constant"`.
    """
    operations = [*(_warped(matrix, edges) for matrix in _WARPS), *_COLORS]
    count = tf.shape(images)[0]
    for layer in range(layers):
        here = tf.cast(tf.convert_to_tensor(seed), tf.int64) + tf.constant([0, 7919 * (layer + 1)], tf.int64)
        draws = tf.random.stateless_uniform([count, 3], here)
        noise = tf.random.stateless_normal([count], here + 1)
        strength = tf.clip_by_value(magnitude + std * noise, 0.0, 30.0) / 10.0
        sign = tf.where(draws[:, 1] < 0.5, -1.0, 1.0)
        chosen = tf.minimum(tf.cast(draws[:, 0] * len(operations), tf.int32), len(operations) - 1)
        chosen = tf.where(draws[:, 2] < probability, chosen, len(operations))  # the last one changes nothing
        images = _apart(images, chosen, strength, sign, operations)
    return images


_Operation = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]  # images (N, H, W, C), strength (N,), sign (N,)


def _apart(
    images: tf.Tensor, chosen: tf.Tensor, strength: tf.Tensor, sign: tf.Tensor, operations: list[_Operation]
) -> tf.Tensor:
    """Runs each operation on the images that drew it."""
    kinds = len(operations) + 1
    parts = tf.dynamic_partition(images, chosen, kinds)
    strengths, signs = (tf.dynamic_partition(values, chosen, kinds) for values in (strength, sign))
    places = tf.dynamic_partition(tf.range(tf.shape(images)[0]), chosen, kinds)
    changed = [operation(*given) for operation, *given in zip(operations, parts, strengths, signs, strict=False)]
    return tf.reshape(tf.dynamic_stitch(places, [*changed, parts[-1]]), tf.shape(images))


def _warped(matrix: Callable[[tf.Tensor], tuple[tf.Tensor, ...]], edges: str) -> _Operation:
    """A resampling with a matrix (a, b, shift in widths, c, d, shift in heights) about the center of the pixel grid."""

    def warp(images: tf.Tensor, strength: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
        size = tf.shape(images)[1:3]
        height, width = tf.unstack(tf.cast(size, tf.float32))
        a, b, right, c, d, down = (value + tf.zeros_like(strength) for value in matrix(sign * strength))
        x, y = (width - 1.0) / 2.0, (height - 1.0) / 2.0
        rows = [a, b, x - a * x - b * y + right * width, c, d, y - c * x - d * y + down * height]
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=images,
            transforms=tf.stack([*rows, tf.zeros_like(a), tf.zeros_like(a)], axis=1),
            output_shape=size,
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode=edges.upper(),
        )

    return warp


def _rotation(amount: tf.Tensor) -> tuple[tf.Tensor, ...]:
    angle = amount * math.radians(30.0)
    return tf.cos(angle), -tf.sin(angle), 0.0, tf.sin(angle), tf.cos(angle), 0.0


_WARPS = (
    _rotation,
    lambda amount: (1.0, 0.3 * amount, 0.0, 0.0, 1.0, 0.0),  # shears
    lambda amount: (1.0, 0.0, 0.0, 0.3 * amount, 1.0, 0.0),
    lambda amount: (1.0, 0.0, 0.45 * amount, 0.0, 1.0, 0.0),  # shifts
    lambda amount: (1.0, 0.0, 0.0, 0.0, 1.0, 0.45 * amount),
)


def gray(images: tf.Tensor) -> tf.Tensor:
    """(B, H, W, C) -> (B, H, W, 1): of three channels as JPEG weighs them, otherwise their mean."""
    if images.shape[-1] != 3:
        return tf.reduce_mean(images, axis=-1, keepdims=True)
    return tf.reduce_sum(images * tf.constant(GRAY), axis=-1, keepdims=True)


def spread(images: tf.Tensor, middle: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Moves pixels away from `middle`, or towards it; clips to 0..255 as Pillow does."""
    return tf.clip_by_value(middle + (images - middle) * factor, 0.0, _WHITE)


def _each(values: tf.Tensor) -> tf.Tensor:
    """(N,) -> (N, 1, 1, 1)."""
    return values[:, None, None, None]


def _factor(strength: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    return _each(tf.maximum(1.0 + 0.9 * sign * strength, 0.0))


def _color(images: tf.Tensor, strength: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    return spread(images, gray(images), _factor(strength, sign))


def _contrast(images: tf.Tensor, strength: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    return spread(images, tf.reduce_mean(gray(images), axis=(1, 2), keepdims=True), _factor(strength, sign))


def _brightness(images: tf.Tensor, strength: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    return spread(images, tf.zeros(()), _factor(strength, sign))


def _sharpness(images: tf.Tensor, strength: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    """Away from, or towards, Pillow's SMOOTH filter; the border keeps its pixels."""
    # As sums: TensorFlow 2.21's depthwise convolution gives no images the size of its input.
    inner = images[:, 1:-1, 1:-1]
    rows = images[:, :-2] + images[:, 1:-1] + images[:, 2:]
    smooth = (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4.0 * inner) / 13.0
    smooth = images + tf.pad(smooth - inner, [[0, 0], [1, 1], [1, 1], [0, 0]])
    return spread(images, smooth, _factor(strength, sign))


def _invert(images: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
    return _WHITE - images


def _posterize(images: tf.Tensor, strength: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    bits = tf.clip_by_value(4.0 - tf.floor(4.0 * strength), 1.0, 8.0)
    step = _each(2.0 ** (8.0 - bits))
    return tf.floor(images / step) * step


def _solarize(images: tf.Tensor, strength: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    return tf.where(images < _each(256.0 - 256.0 * tf.minimum(strength, 1.0)), images, _WHITE - images)


def _solarize_add(images: tf.Tensor, strength: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    more = tf.minimum(images + _each(110.0 * strength), _WHITE)
    return tf.where(images < 128.0, more, images)


def _auto_contrast(images: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
    """Stretches each channel to 0..255; a channel of one value stays."""
    low, high = (reduce(images, axis=(1, 2), keepdims=True) for reduce in (tf.reduce_min, tf.reduce_max))
    return tf.where(high > low, (images - low) * _WHITE / tf.maximum(high - low, 1e-3), images)


def _equalize(images: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
    """Gives each channel a flat histogram of its 256 levels, with Pillow's rounding."""
    shape = tf.shape(images)
    planes = tf.reshape(tf.transpose(tf.cast(tf.round(images), tf.int32), (0, 3, 1, 2)), [shape[0] * shape[3], -1])
    count = tf.shape(planes)[0]
    numbered = planes + 256 * tf.range(count)[:, None]
    histogram = tf.reshape(tf.math.bincount(tf.reshape(numbered, [-1]), minlength=256 * count), [count, 256])
    last = tf.reduce_max(tf.where(histogram > 0, tf.range(256), -1), axis=1)
    total, brightest = tf.reduce_sum(histogram, axis=1), tf.gather(histogram, tf.maximum(last, 0), batch_dims=1)
    step = (total - brightest) // 255
    before = tf.cumsum(histogram, axis=1, exclusive=True)
    table = tf.minimum((step[:, None] // 2 + before) // tf.maximum(step, 1)[:, None], 255)
    table = tf.where(step[:, None] > 0, table, tf.range(256))
    found = tf.cast(tf.gather(table, planes, batch_dims=1), tf.float32)
    return tf.transpose(tf.reshape(found, [shape[0], shape[3], shape[1], shape[2]]), (0, 2, 3, 1))


_COLORS: tuple[_Operation, ...] = (
    _auto_contrast,
    _equalize,
    _invert,
    _posterize,
    _solarize,
    _solarize_add,
    _color,
    _contrast,
    _brightness,
    _sharpness,
)
