"""Grouped convolution that is fast on a CPU, and a strided 1x1 convolution that does not crash there."""

import os
import platform

import keras


@keras.saving.register_keras_serializable(package="keraslight")
class GroupedConv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` for `groups` above 1: the same arguments, weights and values, in a fraction of the time.

    On the TensorFlow backend stock Keras compiles every grouped convolution with XLA, since TensorFlow had no kernel
    for it on a CPU. oneDNN has one by now: 14x14x512 in 32 groups trains 340 times faster, and the SavedModel has no
    XLA functions inside, which other runtimes refuse. Where oneDNN is off or absent, each group is convolved on its
    own. Other backends and channels-first maps run what Keras runs.

    With one group it is for a strided 1x1 convolution of fewer than 16 channels, such as a branch of RepVGG's stem:
    oneDNN's gradient of that kernel writes outside its memory where the last row or column is not used (TensorFlow
    2.21; `tf.nn.convolution` of 96x96x3, stride 2, ends the process). Here the unused pixels are left out before.

    (B, H, W, C) -> (B, H', W', filters), with a kernel of (kh, kw, C / groups, filters). `groups` divides both
    C and `filters`.
    """

    def convolution_op(self, inputs, kernel):
        if keras.backend.backend() != "tensorflow" or self.data_format != "channels_last":
            return super().convolution_op(inputs, kernel)
        import tensorflow as tf

        inputs, kernel = tf.convert_to_tensor(inputs), tf.convert_to_tensor(kernel)
        strides = self.strides
        if self.kernel_size == (1, 1) and max(strides) > 1:
            inputs, strides = inputs[:, :: strides[0], :: strides[1]], 1
        settings = {"strides": strides, "padding": self.padding.upper(), "dilations": self.dilation_rate}
        if self.groups == 1 or _has_grouped_kernel(tf):
            return tf.nn.convolution(inputs, kernel, **settings)
        parts = zip(tf.split(inputs, self.groups, axis=-1), tf.split(kernel, self.groups, axis=-1), strict=True)
        return tf.concat([tf.nn.convolution(x, k, **settings) for x, k in parts], axis=-1)


def _has_grouped_kernel(tf) -> bool:
    """Whether TensorFlow convolves groups, gradients included, where this process runs."""
    if tf.config.list_logical_devices("GPU"):
        return True  # cuDNN
    off = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1").lower() in ("0", "false")
    return platform.machine() in ("x86_64", "AMD64") and not off
