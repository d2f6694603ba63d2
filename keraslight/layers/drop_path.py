"""Drop path (stochastic depth): leaves out a residual branch for some images of a training batch."""

from typing import Any

import keras

from keraslight.errors import InvalidArgumentError


@keras.saving.register_keras_serializable(package="keraslight")
class DropPath(keras.layers.Dropout):
    """(B, H, W, C) -> (B, H, W, C): during training, zeroes the whole branch of an image with probability `rate` and
    divides the others by `1 - rate`. Otherwise the identity.

    A dropout whose mask has one value per image, so the maths and the seeds are those of `keras.layers.Dropout`.
    Source: Huang et al., "Deep Networks with Stochastic Depth", https://arxiv.org/abs/1603.09382, equation 2.

    Args:
        rate: Probability of dropping the branch, in [0, 1).
        seed: Seed of the mask. None draws one.

    Raises:
        InvalidArgumentError: `rate` is out of range.
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        if not 0 <= rate < 1:
            raise InvalidArgumentError(f"`rate` must be in [0, 1). Received: rate={rate}.")
        kwargs.pop("noise_shape", None)  # Dropout's get_config writes it
        super().__init__(rate, noise_shape=(None, 1, 1, 1), seed=seed, **kwargs)
