"""Random changes to training images: cheap, vectorized over a batch, and a pure function of a seed."""

import dataclasses
import math

import tensorflow as tf

from keraslight.errors import InvalidArgumentError

_GRAY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as JPEG and Pillow have it
EDGES = ("reflect", "nearest", "constant")


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Light random changes to raw pixels, drawn separately for each image of a batch.

    Amounts are maxima: each draw is uniform between minus and plus the amount. 0 disables a change.

    Args:
        shift: Share of the height and of the width, in [0, 1).
        rotate_degrees: Rotation in degrees, in [0, 180].
        zoom: Share by which height and width grow or shrink together, in [0, 1).
        brightness: Share of the full range 255 that is added to all pixels, in [0, 1].
        contrast: Share by which the distance of all pixels from the image's mean gray grows or shrinks, in [0, 1].
        saturation: Share by which the distance of each pixel from its own gray grows or shrinks, in [0, 1]; only for
            images of three channels. Gray is 0.299 R + 0.587 G + 0.114 B, as in JPEG.
        flip: Whether to mirror half of the images left to right. Not for digits or text.
        edges: How to fill pixels from outside the image: `"reflect"` (photographs), `"nearest"` (repeats the border)
            or `"constant"` (black, for digits on black, where a repeated border would extend strokes to the edge).

    Raises:
        InvalidArgumentError: A value is out of range.
    """

    shift: float = 0.0
    rotate_degrees: float = 0.0
    zoom: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    flip: bool = False
    edges: str = "reflect"

    def __post_init__(self) -> None:
        for field, valid, interval in (
            ("shift", 0 <= self.shift < 1, "[0, 1)"),
            ("zoom", 0 <= self.zoom < 1, "[0, 1)"),
            ("rotate_degrees", 0 <= self.rotate_degrees <= 180, "[0, 180]"),
            ("brightness", 0 <= self.brightness <= 1, "[0, 1]"),
            ("contrast", 0 <= self.contrast <= 1, "[0, 1]"),
            ("saturation", 0 <= self.saturation <= 1, "[0, 1]"),
        ):
            if not valid:
                value = getattr(self, field)
                raise InvalidArgumentError(f"`{field}` must be in {interval}. Received: {field}={value}.")
        if self.edges not in EDGES:
            raise InvalidArgumentError(f"`edges` must be one of {EDGES}. Received: {self.edges!r}.")

    def __call__(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Changes a batch; runs in a TensorFlow graph.

        Args:
            images: float32 (B, H, W, C), pixels 0..255.
            seed: Integers of shape (2,). The same seed and shape give the same draws.

        Returns:
            float32 (B, H, W, C), pixels 0..255, not rounded.

        Raises:
            InvalidArgumentError: `saturation` is not 0, and the images don't have three channels.
        """
        if self.saturation and images.shape[-1] != 3:
            raise InvalidArgumentError(
                f"`saturation` must be 0 for images without three channels. Received: saturation={self.saturation}, "
                f"images of {images.shape[-1]} channels."
            )
        static_shape = images.shape
        draws = tf.random.stateless_uniform([tf.shape(images)[0], 6], seed, minval=-1.0, maxval=1.0)
        if self.shift or self.rotate_degrees or self.zoom or self.flip:
            images = self._warp(images, draws)
        if self.brightness:
            images += draws[:, 4, None, None, None] * (255.0 * self.brightness)
            images = tf.clip_by_value(images, 0.0, 255.0)
        if self.contrast or self.saturation:
            images = self._grade(images, seed)
        return tf.ensure_shape(images, static_shape)

    def _grade(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Changes contrast, then saturation, each clipped to 0..255 as Pillow does."""
        draws = tf.random.stateless_uniform(
            [tf.shape(images)[0], 1, 1, 1, 2], tf.convert_to_tensor(seed) + 1, minval=-1.0, maxval=1.0
        )
        if self.contrast:
            mean = tf.reduce_mean(_gray(images), axis=(1, 2), keepdims=True)
            images = _spread(images, mean, 1.0 + draws[..., 0] * self.contrast)
        if self.saturation:
            images = _spread(images, _gray(images), 1.0 + draws[..., 1] * self.saturation)
        return images

    def _warp(self, images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """Applies all four geometric changes in one resampling, so that images are blurred only once."""
        size = tf.shape(images)[1:3]
        height, width = tf.unstack(tf.cast(size, tf.float32))
        angle = draws[:, 0] * math.radians(self.rotate_degrees)
        shrink = 1.0 / (1.0 + draws[:, 1] * self.zoom)  # the matrix maps the output to the input
        mirror = tf.where(draws[:, 5] < 0, -1.0, 1.0) if self.flip else tf.ones_like(angle)
        cos, sin = tf.cos(angle) * shrink, tf.sin(angle) * shrink
        # Rotate about the center of the pixel grid: without the two offsets, the center is the upper left corner.
        middle_x, middle_y = (width - 1.0) / 2.0, (height - 1.0) / 2.0
        a, b, c, d = mirror * cos, -mirror * sin, sin, cos
        offset_x = middle_x - a * middle_x - b * middle_y + draws[:, 2] * self.shift * width
        offset_y = middle_y - c * middle_x - d * middle_y + draws[:, 3] * self.shift * height
        zeros = tf.zeros_like(a)
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=images,
            transforms=tf.stack([a, b, offset_x, c, d, offset_y, zeros, zeros], axis=1),
            output_shape=size,
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode=self.edges.upper(),
        )


def _gray(images: tf.Tensor) -> tf.Tensor:
    """(B, H, W, C) -> (B, H, W, 1)."""
    if images.shape[-1] != 3:
        return tf.reduce_mean(images, axis=-1, keepdims=True)
    return tf.reduce_sum(images * tf.constant(_GRAY), axis=-1, keepdims=True)


def _spread(images: tf.Tensor, middle: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Moves pixels away from `middle`, or towards it."""
    return tf.clip_by_value(middle + (images - middle) * factor, 0.0, 255.0)
