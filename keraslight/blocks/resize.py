"""Resizing of maps as PyTorch's `interpolate` does it with `align_corners=False`: centers at half coordinates."""

from keras import KerasTensor, layers

from keraslight.layers import ResizeLike


def resize_like(x: KerasTensor, like: KerasTensor, *, interpolation: str = "bilinear", name: str) -> KerasTensor:
    """Resizes a map to the height and width of another one, without antialiasing.

    It is a `keras.layers.Resizing` if the other map's size is fixed, and a `ResizeLike` otherwise.

    Args:
        x: (B, H, W, C).
        like: (B, H', W', ...), of which only the size counts.
        interpolation: `"bilinear"` or `"nearest"`.
        name: Name of the layer.

    Returns:
        (B, H', W', C).
    """
    if None in like.shape[1:3]:
        return ResizeLike(interpolation, name=name)([x, like])
    return layers.Resizing(*like.shape[1:3], interpolation=interpolation, name=name)(x)


def upsample(x: KerasTensor, factor: int, *, interpolation: str = "bilinear", name: str) -> KerasTensor:
    """Enlarges both sides of a map by a whole factor.

    With fixed sizes it is a `keras.layers.Resizing`, which converters turn into one operator; Keras'
    `UpSampling2D` becomes a reshape and a tile if it repeats pixels.

    Args:
        x: (B, H, W, C).
        factor: Ratio of the sides, at least 1.
        interpolation: `"bilinear"` or `"nearest"`.
        name: Name of the layer.

    Returns:
        (B, factor * H, factor * W, C).
    """
    if None in x.shape[1:3]:
        return layers.UpSampling2D(factor, interpolation=interpolation, name=name)(x)
    height, width = (factor * side for side in x.shape[1:3])
    return layers.Resizing(height, width, interpolation=interpolation, name=name)(x)
