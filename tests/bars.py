"""Small images of bright bars, which small nets tell apart."""

import numpy as np

from keraslight.preprocessing import Preprocessing
from keraslight.training import ImageData

SMALL = Preprocessing(size=(12, 12), crop_mode="squash", interpolation="bilinear", mean=(0.5,), std=(0.5,))


def bars():
    """120 images of three classes, told apart by where the bright bar is, with noise."""
    random = np.random.default_rng(0)
    targets = np.arange(120) % 3
    pixels = random.integers(0, 120, (120, 12, 12, 1), dtype=np.uint8)
    for image, target in zip(pixels, targets, strict=True):
        image[4 * target : 4 * target + 3] += 100
    return ImageData.from_arrays(pixels, targets, ["top", "middle", "bottom"], SMALL)
