"""Losses of segmenters, on every Keras backend. They take logits (B, H, W, K) and labels int (B, H, W)."""

from typing import Any

from keras import ops

from keraslight.errors import InvalidArgumentError

Array = Any
"""A NumPy array or a backend's tensor."""

IGNORE = 255
"""Label of pixels that don't count."""


def cross_entropy(logits: Array, labels: Array, *, ignore: int = IGNORE) -> Array:
    """Returns the mean cross entropy of the pixels that count, a scalar; 0 if none does.

    Args:
        logits: (B, H, W, K).
        labels: int (B, H, W), 0..K-1.
        ignore: Label of pixels that don't count.
    """
    entropy, valid = _entropies(logits, labels, ignore)
    return ops.sum(entropy) / ops.maximum(ops.sum(valid), 1.0)


def ohem_cross_entropy(
    logits: Array, labels: Array, *, threshold: float = 0.7, least: float = 1 / 16, ignore: int = IGNORE
) -> Array:
    """Returns the mean cross entropy of the hard pixels, a scalar: online hard example mining.

    Hard pixels are those whose true class has a probability below the threshold, or the hardest ones if these are too
    few. Sources: Shrivastava et al., "Training Region-based Object Detectors with Online Hard Example Mining", CVPR
    2016, https://arxiv.org/abs/1604.03540; per pixel and with this minimum as in https://github.com/CoinCheung/BiSeNet.

    Args:
        logits: (B, H, W, K).
        labels: int (B, H, W), 0..K-1.
        threshold: Probability of the true class below which a pixel is hard, in (0, 1].
        least: Share of the pixels that count, 0 to 1, that is hard in any case.
        ignore: Label of pixels that don't count.

    Raises:
        InvalidArgumentError: `threshold` or `least` is out of range.
    """
    if not 0 < threshold <= 1 or not 0 <= least <= 1:
        raise InvalidArgumentError(
            f"`threshold` must be in (0, 1] and `least` in 0..1. Received: threshold={threshold}, least={least}."
        )
    entropy, valid = _entropies(logits, labels, ignore)
    entropy = ops.reshape(entropy, (-1,))
    bound = -ops.log(ops.cast(threshold, entropy.dtype))
    above = ops.cast(entropy > bound, entropy.dtype)
    count, fewest = ops.sum(above), ops.floor(ops.sum(valid) * least)

    def by_threshold() -> Array:
        return ops.sum(entropy * above) / ops.maximum(count, 1.0)

    def by_number() -> Array:
        hardest = -ops.sort(-entropy)
        taken = ops.cast(ops.arange(hardest.shape[0] or ops.shape(hardest)[0]), entropy.dtype) < fewest
        return ops.sum(ops.where(taken, hardest, 0.0)) / ops.maximum(fewest, 1.0)

    return ops.cond(count >= fewest, by_threshold, by_number)


def dice(logits: Array, labels: Array, *, smooth: float = 1.0, ignore: int = IGNORE) -> Array:
    """Returns 1 minus the mean Dice coefficient of the classes, a scalar from 0 to 1.

    A class' coefficient is twice its shared area over the sum of both areas, with probabilities as areas, over all
    images of the batch. Source: Milletari et al., "V-Net", https://arxiv.org/abs/1606.04797, section 3, without the
    squares, and with `smooth` added.

    Args:
        logits: (B, H, W, K).
        labels: int (B, H, W), 0..K-1.
        smooth: Pixels added to numerator and denominator, above 0, so that an absent class has a coefficient.
        ignore: Label of pixels that don't count.

    Raises:
        InvalidArgumentError: `smooth` is not above 0.
    """
    if smooth <= 0:
        raise InvalidArgumentError(f"`smooth` must be above 0. Received: smooth={smooth}.")
    logits = ops.convert_to_tensor(logits)
    valid = ops.cast(ops.not_equal(labels, ignore), logits.dtype)[..., None]
    truth = ops.one_hot(ops.where(ops.equal(labels, ignore), -1, labels), logits.shape[-1], dtype=logits.dtype)
    shares = ops.softmax(logits, axis=-1) * valid
    axes = (0, 1, 2)
    shared, areas = ops.sum(shares * truth, axis=axes), ops.sum(shares + truth, axis=axes)
    return 1 - ops.mean((2 * shared + smooth) / (areas + smooth))


def _entropies(logits: Array, labels: Array, ignore: int) -> tuple[Array, Array]:
    """Cross entropy of each pixel, 0 where it doesn't count, and 1 where it does; both (B, H, W)."""
    logits = ops.convert_to_tensor(logits)
    valid = ops.not_equal(labels, ignore)
    entropy = ops.sparse_categorical_crossentropy(ops.where(valid, labels, 0), logits, from_logits=True)
    return ops.where(valid, entropy, 0.0), ops.cast(valid, entropy.dtype)
