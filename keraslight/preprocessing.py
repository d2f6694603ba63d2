"""The preprocessing of images for a model, shared by training, export, Android metadata and clients.

It has two parts. The *geometry* (decoding, resizing, cropping) turns an image into integer pixels 0..255 in the model's
size; training and the servables' string signatures share `decode`. The *normalization* is a layer in the model's graph
(`keraslight.layers.ImageNormalization`), so that models take raw pixels and clients never normalize.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from keraslight.errors import InvalidArgumentError

if TYPE_CHECKING:
    import tensorflow as tf

LAYER_NAME = "preprocessing"
"""Name of the normalization layer in a model's graph."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "lanczos3", "area")
CROP_MODES = ("center", "squash")


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How an image is decoded, resized, cropped and normalized.

    Args:
        size: Height and width of the model's input, in pixels, each at least 1.
        crop_pct: Share of the resized image that the crop keeps, in (0, 1]. The image is resized to cover
            `size / crop_pct`, then cropped to its center (as in timm and torchvision).
        crop_mode: `"center"` keeps the aspect ratio and crops; `"squash"` resizes both sides to `size`.
        interpolation: One of `INTERPOLATIONS`.
        mean: Mean per channel, for pixels scaled to 0..1. Its length is the number of channels (1, 3 or 4).
        std: Standard deviation per channel, for pixels scaled to 0..1.
        per_image: Whether each image is normalized by its own mean and standard deviation over all pixels and channels,
            `(x - mean) / max(std, 1 / sqrt(H * W * C))`, so that darker, brighter and flatter images look alike. `mean`
            and `std` then only give the number of channels.
        antialias: Whether downsampling averages over all pixels, as in Pillow. Without, it interpolates between the
            nearest ones, as PyTorch's and OpenCV's functions do.

    Raises:
        InvalidArgumentError: A value is out of range.
    """

    size: tuple[int, int]
    crop_pct: float = 1.0
    crop_mode: str = "center"
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    per_image: bool = False
    antialias: bool = True

    def __post_init__(self) -> None:
        for field in ("size", "mean", "std"):  # JSON has lists; a frozen value must be hashable
            object.__setattr__(self, field, tuple(getattr(self, field)))
        if len(self.size) != 2 or min(self.size) < 1:
            raise InvalidArgumentError(f"`size` must be (height, width), each at least 1. Received: size={self.size}.")
        if not 0 < self.crop_pct <= 1:
            raise InvalidArgumentError(f"`crop_pct` must be in (0, 1]. Received: crop_pct={self.crop_pct}.")
        if self.crop_mode not in CROP_MODES:
            raise InvalidArgumentError(f"`crop_mode` must be one of {CROP_MODES}. Received: {self.crop_mode!r}.")
        if self.interpolation not in INTERPOLATIONS:
            raise InvalidArgumentError(
                f"`interpolation` must be one of {INTERPOLATIONS}. Received: {self.interpolation!r}."
            )
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3, 4):
            raise InvalidArgumentError(
                "`mean` and `std` must both have 1, 3 or 4 values, one per channel. "
                f"Received: mean={self.mean}, std={self.std}."
            )
        for switch in ("per_image", "antialias"):
            if not isinstance(getattr(self, switch), bool):
                raise InvalidArgumentError(
                    f"`{switch}` must be True or False. Received: {switch}={getattr(self, switch)!r}."
                )
        if min(self.std) <= 0:
            raise InvalidArgumentError(f"`std` must be positive. Received: std={self.std}.")

    @property
    def channels(self) -> int:
        """Number of image channels: 1 (grayscale), 3 (RGB) or 4 (RGBA)."""
        return len(self.mean)

    def replace(self, **changes: Any) -> Preprocessing:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def with_channels(self, channels: int) -> Preprocessing:
        """A copy for another number of channels, with the average of the channels' values."""
        if channels == self.channels:
            return self
        return self.replace(
            mean=(sum(self.mean) / self.channels,) * channels, std=(sum(self.std) / self.channels,) * channels
        )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serializable dict, as read by `from_dict`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocessing:
        """Restores a value from `to_dict`."""
        return cls(**values)

    def decode(self, image_bytes: tf.Tensor) -> tf.Tensor:
        """Decodes an image to the model's raw input; runs in a TensorFlow graph.

        Args:
            image_bytes: Scalar string: a JPEG, PNG, WebP, BMP or GIF file (first frame), which is rotated according to
                its EXIF orientation. `docs/images.md` has the kinds of each format.

        Returns:
            float32 (H, W, C), integers 0..255, in the size of this spec.
        """
        from keraslight._image_files import decode

        return self.fit(decode(image_bytes, self.channels))

    def fit(self, image: tf.Tensor, *, rounded: bool = True) -> tf.Tensor:
        """Resizes and crops pixels (h, w, C), 0..255, to float32 (H, W, C), integers 0..255.

        Because of the rounding, images sent as uint8 equal images decoded in the graph. Without it, values lie between
        the integers, as those of networks that resize in their own code.
        """
        import tensorflow as tf

        height, width = self.size
        if self.crop_mode == "squash":
            resized = self._resize(image, tf.constant([height, width]))
        else:
            shape = tf.cast(tf.shape(image)[:2], tf.float32)
            covered = tf.floor(tf.constant([height, width], tf.float32) / self.crop_pct)
            target = tf.cast(tf.round(shape * tf.reduce_max(covered / shape)), tf.int32)
            resized = self._resize(image, tf.maximum(target, [height, width]))
            top, left = tf.unstack((tf.shape(resized)[:2] - [height, width]) // 2)
            resized = resized[top : top + height, left : left + width]
        resized.set_shape((height, width, self.channels))
        resized = tf.round(resized) if rounded else resized
        return tf.clip_by_value(resized, 0.0, 255.0)  # bicubic overshoots

    def _resize(self, image: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        def resized() -> tf.Tensor:
            return tf.cast(
                tf.image.resize(image, size, method=self.interpolation, antialias=self.antialias), tf.float32
            )

        # Resampling an image that has this size would give the same values, but take longer than decoding it.
        same = tf.reduce_all(tf.shape(image)[:2] == size)
        return tf.cond(same, lambda: tf.cast(image, tf.float32), resized)
