"""What TensorFlow's graph optimizer does with batch norms, and what fusing adds to it."""

from collections import Counter

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from tensorflow.python.eager import context

from keraslight import compress
from keraslight.blocks.conv import conv_bn, depthwise_bn


def operations(model, folder):
    """How often each operation runs, as the optimizer leaves it, in a SavedModel that was loaded again."""
    spec = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)
    module = tf.Module()
    module.variables_ = [variable.value for variable in model.variables]
    module.infer = tf.function(lambda x: model(x, training=False), input_signature=[spec])
    tf.saved_model.save(module, str(folder))
    loaded = tf.saved_model.load(str(folder))
    context.context().enable_run_metadata()
    try:
        loaded.infer(np.zeros((1, *model.input_shape[1:]), "float32"))
        graphs = context.context().export_run_metadata().function_graphs
    finally:
        context.context().disable_run_metadata()
    nodes = [node for graph in graphs for node in graph.post_optimization_graph.node]
    return Counter(node.op for node in nodes)


def test_the_optimizer_leaves_batch_norms_behind_depthwise_convolutions(tmp_path):
    x = images = keras.Input((16, 16, 3))
    x = conv_bn(x, 8, 3, activation="relu6", name="stem")
    x = depthwise_bn(x, 3, activation="relu6", name="depthwise")
    x = conv_bn(x, 16, 1, name="project")
    model = keras.Model(images, layers.GlobalAveragePooling2D()(x))
    plain, fused = operations(model, tmp_path / "plain"), operations(compress.fuse(model), tmp_path / "fused")
    assert plain["_FusedConv2D"] == fused["_FusedConv2D"] == 2
    assert (plain["FusedBatchNormV3"], plain["Relu6"]) == (1, 1)
    assert (fused["FusedBatchNormV3"], fused["Relu6"], fused["_FusedDepthwiseConv2dNative"]) == (0, 0, 1)
