"""Mobile MQA: attention whose heads share one key and one value, with spatially reduced keys and values.

Source: Qin et al., "MobileNetV4", ECCV 2024, https://arxiv.org/abs/2404.10518, section 4.
"""

from keras import KerasTensor, layers

from keraslight.blocks.conv import TORCH, ConvStyle, batch_norm, depthwise_bn
from keraslight.blocks.residual import add_residual, scale_branch
from keraslight.errors import InvalidArgumentError


def mobile_mqa(
    x: KerasTensor,
    *,
    heads: int,
    key_dim: int,
    kv_stride: int = 1,
    layer_scale: float | None = None,
    drop_path: float = 0.0,
    style: ConvStyle = TORCH,
    name: str,
) -> KerasTensor:
    """`x + scale * out(softmax(q k^T / sqrt(key_dim)) v)`, where q has `heads` heads and k and v have one.

    Since all heads share k and v, the heads are treated as additional query positions: the attention takes two plain
    batched matrix products, and no head is ever transposed.

    Args:
        x: (B, H, W, C), H and W known.
        heads: Number of query heads.
        key_dim: Channels of a head, of the key and of the value.
        kv_stride: Stride of a depthwise 3x3 convolution before key and value. 1 omits it.
        layer_scale: Initial value of the layer scale. None for none.
        drop_path: Probability of dropping the branch, in [0, 1).

    Returns:
        (B, H, W, C).

    Raises:
        InvalidArgumentError: H or W is unknown.
    """
    height, width, channels = x.shape[1:]
    if height is None or width is None:
        raise InvalidArgumentError(
            f"Mobile MQA needs a fixed image size, because its maps are reshaped. Received: input shape {x.shape}."
        )
    inputs = x
    x = batch_norm(x, style=style, name=f"{name}_norm")

    query = layers.Conv2D(heads * key_dim, 1, use_bias=False, name=f"{name}_query")(x)
    query = layers.Reshape((height * width * heads, key_dim), name=f"{name}_query_rows")(query)
    key = _shared_head(x, key_dim, kv_stride, style, name=f"{name}_key")
    value = _shared_head(x, key_dim, kv_stride, style, name=f"{name}_value")

    scores = layers.Dot(axes=(2, 2), name=f"{name}_scores")([query, key])  # (B, H*W*heads, h*w)
    scores = layers.Rescaling(key_dim**-0.5, name=f"{name}_temperature")(scores)
    attention = layers.Softmax(name=f"{name}_attention")(scores)
    x = layers.Dot(axes=(2, 1), name=f"{name}_context")([attention, value])  # (B, H*W*heads, key_dim)
    x = layers.Reshape((height, width, heads * key_dim), name=f"{name}_merge")(x)

    x = layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_output")(x)
    x = scale_branch(x, layer_scale, name=name)
    return add_residual(inputs, x, drop_path=drop_path, name=name)


def _shared_head(x: KerasTensor, key_dim: int, stride: int, style: ConvStyle, *, name: str) -> KerasTensor:
    """(B, H, W, C) -> (B, h * w, key_dim): the key or value that all heads share."""
    if stride > 1:
        x = depthwise_bn(x, 3, stride=stride, style=style, name=f"{name}_down")
    x = layers.Conv2D(key_dim, 1, use_bias=False, name=name)(x)
    return layers.Reshape((x.shape[1] * x.shape[2], key_dim), name=f"{name}_rows")(x)
