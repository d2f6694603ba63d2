"""Max pooling with the references' padding."""

from keras import KerasTensor, layers

from keraslight.blocks.conv import TORCH, ConvStyle


def max_pool(x: KerasTensor, kernel: int, *, stride: int, style: ConvStyle = TORCH, name: str) -> KerasTensor:
    """Max pooling that pads `kernel // 2` on both sides (PyTorch) or "same" (TensorFlow), as `style` says.

    PyTorch pads with minus infinity, this layer with zeros. The results are only equal for maps without negative
    values, such as after a ReLU.

    Args:
        x: (B, H, W, C), nowhere negative.
        kernel: Side of the window in pixels, odd.
        stride: Stride, at least 1.
        name: Name of the pooling. The padding appends `_pad`.

    Returns:
        (B, ceil(H / stride), ceil(W / stride), C).
    """
    padding = "same"
    if style.padding == "symmetric":
        x, padding = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x), "valid"
    return layers.MaxPooling2D(kernel, strides=stride, padding=padding, name=name)(x)


def max_pool_ceil(x: KerasTensor, kernel: int, *, stride: int = 2, name: str) -> KerasTensor:
    """Max pooling without padding whose last window may extend past the edge (Caffe's, and PyTorch's `ceil_mode`).

    Args:
        x: (B, H, W, C), nowhere negative. The sides may be unknown.
        kernel: Side of the window in pixels, at least `stride`.
        stride: Stride, at least 2.
        name: Name of the pooling. The padding appends `_pad`.

    Returns:
        (B, ceil((H - kernel) / stride) + 1, ceil((W - kernel) / stride) + 1, C).
    """
    # Rounding up equals rounding down a side that is `stride - 1` longer. Windows that don't need the rest ignore it.
    x = layers.ZeroPadding2D(((0, stride - 1), (0, stride - 1)), name=f"{name}_pad")(x)
    return layers.MaxPooling2D(kernel, strides=stride, padding="valid", name=name)(x)


def max_pool_signed(x: KerasTensor, kernel: int, *, stride: int, style: ConvStyle = TORCH, name: str) -> KerasTensor:
    """`max_pool` for maps with negative values: padding never wins.

    At stride 1, "same" pads both sides equally, with minus infinity. Every `stride`-th value of that is PyTorch's.

    Args:
        x: (B, H, W, C), of any sign.
        kernel: Side of the window in pixels, odd.
        stride: Stride, at least 1.
        name: Name of the pooling. If the padding is symmetric, the dense pooling before it appends `_dense`.

    Returns:
        (B, ceil(H / stride), ceil(W / stride), C).
    """
    if style.padding == "symmetric":
        x = layers.MaxPooling2D(kernel, strides=1, padding="same", name=f"{name}_dense")(x)
        return layers.MaxPooling2D(1, strides=stride, name=name)(x)
    return layers.MaxPooling2D(kernel, strides=stride, padding="same", name=name)(x)
