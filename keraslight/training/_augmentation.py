"""Random changes to training images: cheap, vectorized over a batch, and a pure function of a seed."""

import dataclasses
import math

import tensorflow as tf

from keraslight.errors import InvalidArgumentError
from keraslight.training._rand_augment import gray, rand_augment, spread

EDGES = ("reflect", "nearest", "constant")


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random changes to raw pixels, drawn separately for each image of a batch.

    Amounts are maxima: each draw is uniform between minus and plus the amount. 0 disables a change. The order is crop
    and the other geometry, in one resampling; light and color; RandAugment; erasing.

    Args:
        shift: Share of the height and of the width, in [0, 1).
        rotate_degrees: Rotation in degrees, in [0, 180].
        zoom: Share by which height and width grow or shrink together, in [0, 1).
        brightness: Share of the full range 255 that is added to all pixels, in [0, 1].
        contrast: Share by which the distance of all pixels from the image's mean gray grows or shrinks, in [0, 1].
        saturation: Share by which the distance of each pixel from its own gray grows or shrinks, in [0, 1]; only for
            images of three channels. Gray is 0.299 R + 0.587 G + 0.114 B, as in JPEG.
        flip: Whether to mirror half of the images left to right. Not for digits or text.
        crop: Least and largest share of the area that a random crop keeps, in (0, 1], or None. Crops have an aspect
            ratio of 3/4 to 4/3 of the image's, and are enlarged to its size. Photographs take (0.08, 1.0); small
            objects and digits leave such crops, and take (0.5, 1.0) or more. Source: Szegedy et al.,
            https://arxiv.org/abs/1409.4842, section 6.
        rand_layers: Operations of RandAugment per image, at least 0: rotations, shears, shifts and changes of light and
            color. Source: Cubuk et al., https://arxiv.org/abs/1909.13719.
        rand_magnitude: Their strength, in [0, 30], on the paper's scale: 10 is a rotation of 30 degrees.
        rand_probability: Probability of each of them, in [0, 1].
        rand_std: Standard deviation of the strength, at least 0.
        erase: Share of images of which a rectangle is replaced by noise, in [0, 1]: 2% to 33% of the area, with an
            aspect ratio of 0.3 to 3.3. Source: Zhong et al., "Random Erasing Data Augmentation",
            https://arxiv.org/abs/1708.04896.
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
    crop: tuple[float, float] | None = None
    rand_layers: int = 0
    rand_magnitude: float = 9.0
    rand_probability: float = 1.0
    rand_std: float = 0.0
    erase: float = 0.0

    def __post_init__(self) -> None:
        for field, valid, interval in (
            ("shift", 0 <= self.shift < 1, "[0, 1)"),
            ("zoom", 0 <= self.zoom < 1, "[0, 1)"),
            ("rotate_degrees", 0 <= self.rotate_degrees <= 180, "[0, 180]"),
            ("brightness", 0 <= self.brightness <= 1, "[0, 1]"),
            ("contrast", 0 <= self.contrast <= 1, "[0, 1]"),
            ("saturation", 0 <= self.saturation <= 1, "[0, 1]"),
            ("rand_magnitude", 0 <= self.rand_magnitude <= 30, "[0, 30]"),
            ("rand_probability", 0 <= self.rand_probability <= 1, "[0, 1]"),
            ("erase", 0 <= self.erase <= 1, "[0, 1]"),
        ):
            if not valid:
                value = getattr(self, field)
                raise InvalidArgumentError(f"`{field}` must be in {interval}. Received: {field}={value}.")
        for field in ("rand_layers", "rand_std"):
            if not getattr(self, field) >= 0:
                raise InvalidArgumentError(f"`{field}` must be at least 0. Received: {field}={getattr(self, field)}.")
        if self.crop is not None:
            object.__setattr__(self, "crop", tuple(self.crop))  # a list, from JSON
            if len(self.crop) != 2 or not 0 < self.crop[0] <= self.crop[1] <= 1:
                raise InvalidArgumentError(
                    f"`crop` must be the least and the largest share of the area, in (0, 1]. Received: {self.crop}."
                )
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
        if self.shift or self.rotate_degrees or self.zoom or self.flip or self.crop:
            images = self._warp(images, draws, tf.convert_to_tensor(seed))
        if self.brightness:
            images += draws[:, 4, None, None, None] * (255.0 * self.brightness)
            images = tf.clip_by_value(images, 0.0, 255.0)
        if self.contrast or self.saturation:
            images = self._grade(images, seed)
        if self.rand_layers:
            images = rand_augment(
                images,
                seed,
                layers=self.rand_layers,
                magnitude=self.rand_magnitude,
                probability=self.rand_probability,
                std=self.rand_std,
                edges=self.edges,
            )
        if self.erase:
            images = self._erase(images, tf.convert_to_tensor(seed))
        return tf.ensure_shape(images, static_shape)

    def _grade(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Changes contrast, then saturation, each clipped to 0..255 as Pillow does."""
        draws = tf.random.stateless_uniform(
            [tf.shape(images)[0], 1, 1, 1, 2], tf.convert_to_tensor(seed) + 1, minval=-1.0, maxval=1.0
        )
        if self.contrast:
            mean = tf.reduce_mean(gray(images), axis=(1, 2), keepdims=True)
            images = spread(images, mean, 1.0 + draws[..., 0] * self.contrast)
        if self.saturation:
            images = spread(images, gray(images), 1.0 + draws[..., 1] * self.saturation)
        return images

    def _warp(self, images: tf.Tensor, draws: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Applies all geometric changes in one resampling, so that images are blurred only once."""
        size = tf.shape(images)[1:3]
        height, width = tf.unstack(tf.cast(size, tf.float32))
        angle = draws[:, 0] * math.radians(self.rotate_degrees)
        shrink = 1.0 / (1.0 + draws[:, 1] * self.zoom)  # the matrix maps the output to the input
        mirror = tf.where(draws[:, 5] < 0, -1.0, 1.0) if self.flip else tf.ones_like(angle)
        cos, sin = tf.cos(angle) * shrink, tf.sin(angle) * shrink
        # Rotate about the center of the pixel grid: without the two offsets, the center is the upper left corner.
        middle_x, middle_y = (width - 1.0) / 2.0, (height - 1.0) / 2.0
        a, b, c, d = mirror * cos, -mirror * sin, sin, cos
        left = top = tf.zeros_like(angle)
        if self.crop is not None:
            wide, high, left, top = _crop(self.crop, tf.shape(images)[0], seed + 2)
            a, b, c, d = a * wide, b * high, c * wide, d * high
        offset_x = middle_x - a * middle_x - b * middle_y + (draws[:, 2] * self.shift + left) * width
        offset_y = middle_y - c * middle_x - d * middle_y + (draws[:, 3] * self.shift + top) * height
        zeros = tf.zeros_like(a)
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=images,
            transforms=tf.stack([a, b, offset_x, c, d, offset_y, zeros, zeros], axis=1),
            output_shape=size,
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode=self.edges.upper(),
        )

    def _erase(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Replaces a rectangle of some images by noise."""
        shape = tf.shape(images)
        draws = tf.random.stateless_uniform([shape[0], 5], seed + 3)
        area = 0.02 + draws[:, 0] * (0.33 - 0.02)
        aspect = tf.exp((draws[:, 1] * 2.0 - 1.0) * math.log(3.3))

        def inside(length: tf.Tensor, share: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
            whole = tf.cast(length, tf.float32)
            cut = tf.clip_by_value(tf.round(share * whole), 1.0, whole)
            low = tf.floor(draw * (whole - cut + 1.0))
            places = tf.range(whole)[None]
            return (places >= low[:, None]) & (places < (low + cut)[:, None])

        rows = inside(shape[1], tf.sqrt(area * aspect), draws[:, 2])
        columns = inside(shape[2], tf.sqrt(area / aspect), draws[:, 3])
        erased = rows[:, :, None] & columns[:, None, :] & (draws[:, 4] < self.erase)[:, None, None]
        noise = tf.random.stateless_uniform(shape, seed + 4, maxval=255.0)
        return tf.where(erased[..., None], noise, images)


def _crop(area: tuple[float, float], count: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Draws crops: their width and height, and the place of their centers relative to the image's; all shares, (B,)."""
    draws = tf.random.stateless_uniform([count, 4], seed)
    share = area[0] + draws[:, 0] * (area[1] - area[0])
    aspect = tf.exp((draws[:, 1] * 2.0 - 1.0) * math.log(4.0 / 3.0))
    # Where the drawn form sticks out, it becomes narrower, and the area smaller, as in most implementations.
    wide, high = tf.minimum(tf.sqrt(share * aspect), 1.0), tf.minimum(tf.sqrt(share / aspect), 1.0)
    return wide, high, (draws[:, 2] - 0.5) * (1.0 - wide), (draws[:, 3] - 0.5) * (1.0 - high)
