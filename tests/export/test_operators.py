"""The operators of a .tflite file: which layers they come from, what runs as one, and other widths."""

import keras
import numpy as np
import pytest
from keras import layers

import keraslight
from keraslight import _litert_files, compress
from keraslight.analysis import count_macs
from keraslight.errors import ExportError, InvalidArgumentError
from keraslight.export import to_litert
from keraslight.export.litert._widths import Form, Operator, rewidened
from keraslight.export.litert.operators import (
    OperatorGraph,
    _unshared,
    model_operators,
    pointwise_graph,
    read_operators,
)


def conv_bn(x, filters, kernel, name, **options):
    x = layers.Conv2D(filters, kernel, padding="same", use_bias=False, name=name, **options)(x)
    return layers.BatchNormalization(name=f"{name}_bn")(x)


@pytest.fixture(scope="module")
def model():
    """A block with padding and squeeze-and-excitation, a sum, a concatenation, and a map that is flattened."""
    keras.utils.set_random_seed(0)
    images = keras.Input((16, 16, 3))
    stem = layers.ReLU(name="stem_act")(conv_bn(images, 8, 3, "stem", strides=2))
    x = layers.ReLU(name="expand_act")(conv_bn(stem, 16, 1, "expand"))
    x = layers.ZeroPadding2D(1, name="pad")(x)
    x = layers.DepthwiseConv2D(3, strides=2, name="depthwise")(x)
    gate = layers.GlobalAveragePooling2D(keepdims=True, name="mean")(x)
    gate = layers.Conv2D(4, 1, activation="relu", name="reduce")(gate)
    gate = layers.Conv2D(16, 1, activation="sigmoid", name="gate")(gate)
    x = conv_bn(layers.Multiply(name="scale")([x, gate]), 8, 1, "project")
    x = layers.Add(name="add")([conv_bn(stem, 8, 3, "down", strides=2), x])
    x = layers.Concatenate(name="join")([x, conv_bn(stem, 12, 3, "branch", strides=2)])
    x = layers.Flatten(name="flat")(layers.AveragePooling2D(2, name="pool")(x))
    net = keras.Model(images, layers.Dense(5, activation="softmax", name="top")(x), name="tiny")
    rng = np.random.default_rng(0)
    for weight in net.trainable_weights:
        weight.assign(rng.uniform(0.1, 0.5, weight.shape))
    return net


@pytest.fixture(scope="module")
def operators(model):
    return model_operators(model)


def kinds_of(graph):
    return [operator.kind for operator in graph.operators]


def keys(graph):
    """Sorted: the converter's order of independent branches depends on names."""
    return sorted(part.key for part in graph.cut())


def test_operators_know_their_layers_and_costs(model, operators):
    made = {layer: operator.kind for operator in operators.operators for layer in operator.layers}
    assert [made[name] for name in ("stem", "stem_act", "expand", "depthwise", "add", "top")] == [
        *("CONV_2D", "CONV_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "FULLY_CONNECTED")
    ]
    assert operators.macs == count_macs(model)
    kernels = 3 * 3 * 3 * 8 + 8 * 16 + 3 * 3 * 16 + 2 * 16 * 4 + 16 * 8 + 3 * 3 * 8 * (8 + 12) + 4 * 20 * 5
    biases = 8 + 16 + 16 + 4 + 16 + 8 + 8 + 12 + 5
    assert operators.parameters == kernels + biases


def test_padding_is_cut_out_with_its_convolution(operators):
    parts = operators.cut()
    (padded,) = (part for part in parts if "depthwise" in part.layers)
    assert padded.name == "PAD + DEPTHWISE_CONV_2D"
    assert padded.key == (
        "PAD(float32[1,8,8,16], int32[4,2]=0,0,1,1,1,1,0,0) -> float32[1,10,10,16] + "
        "DEPTHWISE_CONV_2D(float32[1,10,10,16], *float32[1,3,3,16], *float32[16]) -> float32[1,4,4,16] "
        "{depthMultiplier=1, dilationHFactor=1, dilationWFactor=1, fusedActivationFunction=NONE, padding=VALID, "
        "strideH=2, strideW=2}"
    )
    assert sum(len(part.operators) for part in parts) == len(operators.operators)


def test_parts_are_files_that_run_alone(operators):
    for part in operators.cut():
        interpreter = _litert_files.content_interpreter(part.content(copies=2), part.name, 1)
        interpreter.invoke()
        shapes = [tuple(entry["shape"]) for entry in interpreter.get_output_details()]
        assert shapes == 2 * [part.forms[index].shape for index in part.outputs]
        read = [tuple(entry["shape"]) for entry in interpreter.get_input_details()]
        assert read == [part.forms[index].shape for index in part.inputs]


def test_operators_of_a_file_are_those_of_its_model(model, operators, tmp_path):
    file = to_litert(model, tmp_path / "model.tflite")
    assert keys(read_operators(file)) == keys(operators)
    (tmp_path / "cut.tflite").write_bytes(file.read_bytes()[:400])
    with pytest.raises(ExportError, match="must be complete"):
        read_operators(tmp_path / "cut.tflite")


WIDTHS = {"stem": 5, "expand": 11, "reduce": 3, "down": 6, "branch": 7}


def units(model):
    """The widths by the names of the groups."""
    groups = compress.channel_groups(model)
    return {group.name: WIDTHS[layer] for group in groups for layer in group.layers if layer in WIDTHS}


def test_widths_give_the_operators_of_the_shrunk_model(model, operators):
    widths = compress.layer_widths(model, units(model))
    assert widths == WIDTHS | {"project": 6, "gate": 11}
    changed = operators.with_widths(widths)
    assert keys(changed) == keys(model_operators(compress.shrink(model, units(model))))
    assert keys(operators.with_widths({})) == keys(operators)


def test_int8_files_of_other_widths_run(model):
    graph = model_operators(model, int8=True)
    assert graph.macs == count_macs(model) + 2 * 2 * 20 * 4  # of the pooling, which is a depthwise convolution here
    changed = graph.with_widths(compress.layer_widths(model, units(model)))
    assert "int8[1,8,8,5]" in changed.key
    interpreter = _litert_files.content_interpreter(changed.content(), "changed", 1)
    interpreter.invoke()
    for part in changed.cut():
        _litert_files.content_interpreter(part.content(), part.name, 1).invoke()


@pytest.mark.parametrize(
    ("widths", "text"),
    [
        ({"stem_bn2": 4}, "must name layers that make the channels .* Received: 'stem_bn2'"),
        ({"depthwise": 4}, "Received: 'depthwise'"),
        ({"expand": 0}, "at least 1. Received: expand=0"),
        ({"expand": 2.5}, "at least 1. Received: expand=2.5"),
        ({"expand": True}, "Received: expand=True"),
        ({"down": 5}, r"must have the same width. Received: \[5, 8\] channels at ADD in 'add'"),
    ],
)
def test_impossible_widths(operators, widths, text):
    with pytest.raises(InvalidArgumentError, match=text):
        operators.with_widths(widths)


def made(kind, shapes, values=(), options=(), width=6):
    """The output's shapes and the constants' values of an operator behind a convolution whose width changes from 12."""
    source = Form((*shapes[0][:-1], 3), "FLOAT32")
    kernel, bias = Form((12, 1, 1, 3), "FLOAT32", True), Form((12,), "FLOAT32", True)
    assert shapes[0][-1] == 12
    constants = [Form((len(each),), "INT32", True, tuple(each)) for each in values]
    forms = [source, kernel, bias, Form(shapes[0], "FLOAT32"), *constants]
    forms += [Form(shape, "FLOAT32") for shape in shapes[1:]]
    places = range(4, 4 + len(constants))
    inputs = (*places, 3) if kind == "SPLIT" else (3, *places)
    outputs = tuple(range(4 + len(constants), len(forms)))
    calls = [
        Operator("CONV_2D", (0, 1, 2), (3,), (), ("conv",), 1, None),
        Operator(kind, inputs, outputs, tuple(options), ("it",), 1, None),
    ]
    found, _ = rewidened(forms, calls, [0], {"conv": width})
    return [found[index].shape for index in outputs], [found[index].values for index in places]


MAP = (1, 4, 4, 12)


@pytest.mark.parametrize(
    ("arguments", "shapes", "values"),
    [
        (("RESHAPE", [MAP, (1, 192)], [(1, 192)]), [(1, 96)], [(1, 96)]),
        (("RESHAPE", [MAP, (1, 4, 4, 3, 4)], [(1, 4, 4, 3, 4)]), [(1, 4, 4, 3, 2)], [(1, 4, 4, 3, 2)]),
        (("RESHAPE", [(1, 1, 1, 12), (1, 12)], [(1, 12)]), [(1, 6)], [(1, 6)]),
        (("RESHAPE", [MAP, (1, 16, 12, 1)], [(1, 16, 12, 1)]), [(1, 16, 6, 1)], [(1, 16, 6, 1)]),
        (("RESHAPE", [MAP, (96, 2)], [(-1, 2)]), [(48, 2)], [(-1, 2)]),
        (("RESHAPE", [MAP, (1, 4, 4, 12)], [(-1, 4, 4, 12)]), [(1, 4, 4, 6)], [(-1, 4, 4, 6)]),
        (("TRANSPOSE", [MAP, (1, 12, 4, 4)], [(0, 3, 1, 2)]), [(1, 6, 4, 4)], [(0, 3, 1, 2)]),
        (("MEAN", [MAP, (1, 12)], [(1, 2)]), [(1, 6)], [(1, 2)]),
        (("MEAN", [MAP, (1, 1, 1, 12)], [(1, -2)]), [(1, 1, 1, 6)], [(1, -2)]),
        (("SUM", [MAP, (1, 4, 4)], [(-1,)]), [(1, 4, 4)], [(-1,)]),
        (("PAD", [MAP, (1, 6, 6, 14)], [(0, 0, 1, 1, 1, 1, 0, 2)]), [(1, 6, 6, 8)], [(0, 0, 1, 1, 1, 1, 0, 2)]),
        (("AVERAGE_POOL_2D", [MAP, (1, 2, 2, 12)]), [(1, 2, 2, 6)], []),
        (("SPLIT", [MAP, (1, 4, 4, 4), (1, 4, 4, 4), (1, 4, 4, 4)], [(3,)]), 3 * [(1, 4, 4, 2)], [(3,)]),
        (
            ("SPLIT_V", [MAP, (1, 4, 4, 4), (1, 4, 4, 8)], [(4, 8), (3,)]),
            [(1, 4, 4, 2), (1, 4, 4, 4)],
            [(2, 4), (3,)],
        ),
        (("SLICE", [MAP, (1, 4, 4, 4)], [(0, 0, 0, 8), (1, 4, 4, 4)]), [(1, 4, 4, 2)], [(0, 0, 0, 4), (1, 4, 4, 2)]),
        (
            ("SLICE", [MAP, (1, 2, 4, 12)], [(0, 2, 0, 0), (1, -1, 4, -1)]),
            [(1, 2, 4, 6)],
            [(0, 2, 0, 0), (1, -1, 4, -1)],
        ),
        (
            ("STRIDED_SLICE", [MAP, (1, 4, 4, 6)], [(0, 0, 0, 6), (1, 4, 4, 12), (1, 1, 1, 1)]),
            [(1, 4, 4, 3)],
            [(0, 0, 0, 3), (1, 4, 4, 6), (1, 1, 1, 1)],
        ),
        (("SQUEEZE", [(1, 1, 1, 12), (1, 12)]), [(1, 6)], []),
        (("EXPAND_DIMS", [(1, 1, 1, 12), (1, 1, 1, 1, 12)]), [(1, 1, 1, 1, 6)], []),
        (("SOFTMAX", [MAP, MAP]), [(1, 4, 4, 6)], []),
    ],
)
def test_shapes_follow_the_width(arguments, shapes, values):
    assert made(*arguments) == (shapes, values)


def test_gathered_channels_keep_their_share_and_stay_in_range():
    (shape,), (indices,) = made("GATHER", [MAP, MAP], [range(11, -1, -1)], [("axis", 3), ("batchDims", 0)])
    assert shape == (1, 4, 4, 6)
    assert len(indices) == 6
    assert all(0 <= index < 6 for index in indices)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("SPLIT", [MAP, *(4 * [(1, 4, 4, 3)])], [(3,)]), r"remain divisible: 3 of 12. Received: 6 channels at SPLIT"),
        (("RESHAPE", [MAP, (1, 4, 4, 4, 3)], [(1, 4, 4, 4, 3)], (), 5), "must remain divisible"),
        (("TOPK_V2", [MAP, (1, 4, 4, 2)], [(2,)]), "before an operator whose shapes .* Received: TOPK_V2 in 'it'"),
    ],
)
def test_widths_that_an_operator_cannot_take(arguments, text):
    with pytest.raises(InvalidArgumentError, match=text):
        made(*arguments)


def test_a_grouped_convolution_keeps_its_groups():
    forms = [Form((1, 4, 4, 12), "FLOAT32"), Form((8, 3, 3, 6), "FLOAT32", True), Form((1, 4, 4, 8), "FLOAT32")]
    call = Operator("CONV_2D", (0, 1), (2,), (), ("conv",), 1, None)
    found, _ = rewidened(forms, [call], [0], {"conv": 4})
    assert [form.shape for form in found[1:]] == [(4, 3, 3, 6), (1, 4, 4, 4)]
    with pytest.raises(InvalidArgumentError, match="divisible by the 2 groups .* 12 input and 5 output channels"):
        rewidened(forms, [call], [0], {"conv": 5})


def test_equal_biases_that_are_stored_once_can_change_apart():
    forms = [Form((1, 4, 4, 8), "FLOAT32"), *(2 * [Form((8, 1, 1, 8), "FLOAT32", True)])]
    forms += [Form((8,), "FLOAT32", True), *(2 * [Form((1, 4, 4, 8), "FLOAT32")])]
    calls = [
        Operator("CONV_2D", (0, 1, 3), (4,), (), ("first",), 1, None),
        Operator("CONV_2D", (4, 2, 3), (5,), (), ("second",), 1, None),
    ]
    own, calls = _unshared(forms, calls)
    found, _ = rewidened(own, calls, [0], {"first": 5})
    assert [[found[index].shape for index in call.inputs[1:]] for call in calls] == [
        [(5, 1, 1, 8), (5,)],
        [(8, 1, 1, 5), (8,)],
    ]


def test_macs_of_all_products():
    image, kernel = Form((1, 4, 4, 8), "FLOAT32"), Form((6, 3, 3, 8), "FLOAT32", True)
    up = Form((1, 8, 8, 6), "FLOAT32")
    shape = Form((4,), "INT32", True, (1, 8, 8, 6))
    transposed = OperatorGraph(
        (shape, kernel, image, up), (Operator("TRANSPOSE_CONV", (0, 1, 2), (3,), (), (), 1, None),), (2,), (3,)
    )
    assert transposed.macs == 16 * 8 * 9 * 6
    left, right, product = (Form(sides, "FLOAT32") for sides in ((2, 3, 5), (2, 5, 7), (2, 3, 7)))
    matmul = OperatorGraph(
        (left, right, product), (Operator("BATCH_MATMUL", (0, 1), (2,), (), (), 1, None),), (0, 1), (2,)
    )
    assert matmul.macs == 2 * 3 * 5 * 7
    assert pointwise_graph(7, 16).macs == 49 * 16 * 16


def zoo_nets():
    from tests.compress.digit_models import SMALL

    return [name for name in SMALL if name not in ("LeNet5",)]


def test_widths_of_branches_that_become_one_convolution_are_that_ones():
    net = keraslight.create_model("repvgg_a0", width=0.25, input_shape=(32, 32, 3), classes=10)
    (stage,) = (group for group in compress.channel_groups(net) if "stage0_block0_point" in group.layers)
    graph = model_operators(net)
    changed = graph.with_widths(compress.layer_widths(net, {stage.name: 5}))
    assert "stage0_block0_point" in graph.fused
    assert keys(changed) == keys(model_operators(compress.shrink(net, {stage.name: 5})))


@pytest.mark.slow  # two conversions per family
@pytest.mark.parametrize("family", zoo_nets())
def test_widths_give_the_operators_of_shrunk_families(family):
    from tests.compress.digit_models import SMALL

    variant, width, side = SMALL[family]
    keras.utils.set_random_seed(0)
    net = keraslight.create_model(variant, width=width, input_shape=(side, side, 3), classes=10)
    units = compress.channel_widths(compress.channel_groups(net), 0.6)
    changed = model_operators(net).with_widths(compress.layer_widths(net, units))
    assert keys(changed) == keys(model_operators(compress.shrink(net, units)))
