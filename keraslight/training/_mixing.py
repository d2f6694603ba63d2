"""MixUp and CutMix: images of a batch and their targets, mixed in pairs, as a pure function of a seed."""

import dataclasses

import tensorflow as tf

from keraslight.errors import InvalidArgumentError


@dataclasses.dataclass(frozen=True)
class Mixing:
    """Mixes each image of a batch, and its target, with another one of the batch.

    MixUp (Zhang et al., https://arxiv.org/abs/1710.09412) blends two images, `lam * a + (1 - lam) * b`; CutMix (Yun et
    al., https://arxiv.org/abs/1905.04899) replaces a box of one image, whose area is `1 - lam`, by that of the other.
    `lam` is drawn from Beta(alpha, alpha) for each image. The targets are mixed as the pixels are. A box that reaches
    over the edge is cut off there, and `lam` is then the share of pixels that stay.

    Args:
        mixup: `alpha` of MixUp, at least 0; 0 for none.
        cutmix: `alpha` of CutMix, at least 0; 0 for none. With both, half of the images get each.
        probability: Share of images that are mixed at all, in [0, 1].

    Raises:
        InvalidArgumentError: A value is out of range.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0

    def __post_init__(self) -> None:
        for field, value in (("mixup", self.mixup), ("cutmix", self.cutmix)):
            if not value >= 0:
                raise InvalidArgumentError(f"`{field}` must be at least 0. Received: {field}={value}.")
        if not 0 <= self.probability <= 1:
            raise InvalidArgumentError(f"`probability` must be in [0, 1]. Received: probability={self.probability}.")

    @property
    def active(self) -> bool:
        """Whether anything is mixed."""
        return bool((self.mixup or self.cutmix) and self.probability)

    def __call__(self, images: tf.Tensor, targets: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Mixes a batch; runs in a TensorFlow graph.

        Args:
            images: float32 (B, H, W, C).
            targets: float32 (B, K), such as one-hot classes.
            seed: Integers of shape (2,). The same seed and shape give the same draws.

        Returns:
            float32 (B, H, W, C) and float32 (B, K).
        """
        if not self.active:
            return images, targets
        seed = tf.cast(tf.convert_to_tensor(seed), tf.int64)
        count = tf.shape(images)[0]
        partner = tf.random.experimental.stateless_shuffle(tf.range(count), seed=seed)
        draws = tf.random.stateless_uniform([count, 4], seed + 1)
        others = tf.gather(images, partner)
        mixed = draws[:, 0] < self.probability
        cut = draws[:, 1] < (0.5 if self.mixup else 1.0) if self.cutmix else tf.zeros_like(mixed)
        share = tf.ones([count])
        if self.mixup:
            lam = tf.where(mixed & ~cut, _beta(self.mixup, count, seed + 2), 1.0)
            share, images = lam, _blend(images, others, lam[:, None, None, None])
        if self.cutmix:
            lam = tf.where(mixed & cut, _beta(self.cutmix, count, seed + 3), 1.0)
            kept = _outside_box(tf.shape(images)[1:3], lam, draws[:, 2:])
            images = tf.where(kept[..., None], images, others)
            share *= tf.reduce_mean(tf.cast(kept, tf.float32), axis=(1, 2))
        return images, _blend(targets, tf.gather(targets, partner), share[:, None])


def _blend(ours: tf.Tensor, others: tf.Tensor, lam: tf.Tensor) -> tf.Tensor:
    return ours * lam + others * (1.0 - lam)


def _beta(alpha: float, count: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draws from Beta(alpha, alpha), float32 (count,), as two gammas do; in 64 bits, since small alphas underflow."""
    gammas = tf.random.stateless_gamma([count, 2], seed, alpha=tf.constant(alpha, tf.float64), dtype=tf.float64)
    return tf.cast(gammas[:, 0] / tf.reduce_sum(gammas, axis=1), tf.float32)


def _outside_box(size: tf.Tensor, lam: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Whether a pixel stays, (B, H, W): outside a box of the image's shape around a pixel, of the area 1 - lam."""

    def side(length: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
        whole = tf.cast(length, tf.float32)
        cut, middle = tf.floor(tf.sqrt(1.0 - lam) * whole), tf.floor(draw * whole)
        low = middle - tf.floor(cut / 2.0)
        places = tf.range(whole)[None]
        return (places >= low[:, None]) & (places < (low + cut)[:, None])

    rows, columns = side(size[0], draws[:, 0]), side(size[1], draws[:, 1])
    return ~(rows[:, :, None] & columns[:, None, :])
