"""Output stride: from some depth on, dilated convolutions instead of strides.

Source: Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", https://arxiv.org/abs/1706.05587,
section 3.1 and figure 3.
"""

from keraslight.errors import InvalidArgumentError

OUTPUT_STRIDES = (8, 16, 32)


class OutputStride:
    """Counts a network's stride, and turns strides beyond the output stride into dilations of the same factor.

    Args:
        output_stride: Stride of the last map, one of `OUTPUT_STRIDES`.
        total: Stride of the map at which counting starts, in pixels.

    Attributes:
        total: Stride of the current map, in pixels.
        dilation: Dilation of the convolutions at the current depth.

    Raises:
        InvalidArgumentError: The output stride is not one of these.
    """

    def __init__(self, output_stride: int, total: int) -> None:
        if output_stride not in OUTPUT_STRIDES:
            raise InvalidArgumentError(
                f"`output_stride` must be one of {OUTPUT_STRIDES}. Received: output_stride={output_stride!r}."
            )
        self.limit, self.total, self.dilation = output_stride, total, 1

    def step(self, stride: int) -> int:
        """Goes a layer of that stride deeper and returns the stride that it really gets."""
        if self.total * stride <= self.limit:
            self.total *= stride
            return stride
        self.dilation *= stride
        return 1
