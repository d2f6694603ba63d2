"""What is said of a file: operators, memory, delegates, latency."""

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from keras import layers, ops

import keraslight
from keraslight.errors import InvalidArgumentError
from keraslight.export import litert_latency, litert_report, to_litert
from keraslight.export.litert._arena import ALIGNMENT, plan_arena


@pytest.fixture(scope="module")
def mobilenet():
    return keraslight.create_model("mobilenet_v2_100", width=0.35, input_shape=(64, 64, 3), classes=10)


@pytest.fixture(scope="module")
def files(mobilenet, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    images = np.random.default_rng(0).normal(size=(8, 64, 64, 3)).astype("float32")
    return {
        "float32": to_litert(mobilenet, folder / "float32.tflite"),
        "open batch": to_litert(mobilenet, folder / "open.tflite", batch_size=None),
        "int8": to_litert(mobilenet, folder / "int8.tflite", quantization="int8", representative_data=images),
    }


@pytest.fixture(scope="module")
def odd_file(tmp_path_factory):
    """Operators that accelerators can't take."""
    images = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3)(images)
    x = ops.floor(layers.Reshape((3, 2, 3, 2, 4))(x))
    x = ops.exp(ops.transpose(x, (0, 1, 3, 2, 4, 5)))
    x = ops.top_k(layers.Flatten()(x), 3)[0]
    return to_litert(keras.Model(images, x, name="odd"), tmp_path_factory.mktemp("odd") / "odd.tflite")


@pytest.mark.parametrize("name", ["float32", "open batch", "int8"])
def test_arena_is_what_the_interpreter_allocates(files, name):
    # MobileNetV2 on a CPU needs no scratch memory, so the addresses of its tensors span the arena alone.
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(str(files[name]), num_threads=1, experimental_op_resolver_type=plain)
    interpreter.allocate_tensors()
    graph = schema.ModelT.InitFromObj(schema.Model.GetRootAs(files[name].read_bytes(), 0)).subgraphs[0]
    memory = []
    for index in {*graph.inputs, *(index for operator in graph.operators for index in operator.outputs)}:
        view = interpreter.tensor(index)()
        memory.append((view.__array_interface__["data"][0], view.nbytes))
    span = max(start + size for start, size in memory) - min(start for start, _ in memory)
    assert litert_report(files[name]).arena == span


def test_blocks_that_live_together_do_not_overlap():
    random = np.random.default_rng(0)
    for _ in range(50):
        blocks = []
        for _ in range(random.integers(1, 30)):
            first, last = np.sort(random.integers(0, 20, 2))
            blocks.append((int(random.integers(0, 1000)), int(first), int(last)))
        plan = plan_arena(blocks)
        alive_at_once = max(sum(size for size, first, last in blocks if first <= time <= last) for time in range(20))
        assert alive_at_once <= plan.size
        for i, (size, first, last) in enumerate(blocks):
            assert plan.offsets[i] % ALIGNMENT == 0
            assert plan.offsets[i] + size <= plan.size
            for j, (other, begins, ends) in enumerate(blocks[:i]):
                if size and other and first <= ends and begins <= last:
                    apart = plan.offsets[i] + size <= plan.offsets[j] or plan.offsets[j] + other <= plan.offsets[i]
                    assert apart, (blocks[i], blocks[j])


def test_arena_reuses_memory_that_is_free_again():
    assert plan_arena([]).size == 0
    assert plan_arena([(640, 0, 1), (640, 1, 2), (640, 2, 3)]).size == 1280
    assert plan_arena([(640, 0, 3), (64, 0, 1), (64, 2, 3)]).offsets == (0, 640, 640)


def test_static_batch_has_no_shape_operators(files):
    fixed = {operator.kind for operator in litert_report(files["float32"]).operators}
    assert not fixed & {"SHAPE", "PACK", "STRIDED_SLICE"}


def test_mobilenet_runs_wholly_on_accelerators(files):
    for name in ("float32", "int8"):
        report = litert_report(files[name])
        assert report.left_to_cpu("GPU") == ()
        assert report.left_to_cpu("NNAPI") == ()
    assert "GPU delegate leaves to the CPU: nothing" in str(report)
    assert f"tensor arena {report.arena:,} bytes" in str(report)


def test_operators_that_accelerators_leave(odd_file):
    report = litert_report(odd_file)
    problems = {operator.kind: (operator.problem("GPU"), operator.problem("NNAPI")) for operator in report.operators}
    assert problems["CONV_2D"] == ("", "")
    assert problems["TRANSPOSE"] == ("6 axes", "6 axes")
    assert problems["TOPK_V2"] == ("not supported", "")
    assert "1 TOPK_V2" in str(report)
    with pytest.raises(InvalidArgumentError, match=r"`delegate` must be one of \('GPU', 'NNAPI'\). Received: 'NPU'"):
        report.left_to_cpu("NPU")


def test_delegates_look_at_dtypes():
    from keraslight.export.litert._delegates import gpu_problem, nnapi_problem

    assert nnapi_problem("EXP", ("FLOAT32", "FLOAT32"), 4) == ""
    assert nnapi_problem("EXP", ("INT8", "INT8"), 4) == "floats only"
    assert gpu_problem("EXP", ("INT8", "INT8"), 4) == ""
    assert gpu_problem("ADD", ("INT16", "INT64"), 4) == "no INT16, INT64"
    assert nnapi_problem("GELU", ("FLOAT32", "FLOAT32"), 4) == "not supported"


def test_latency(files):
    times = litert_latency(files["int8"], (1, 2), repeats=3)
    assert list(times) == [1, 2]
    assert all(0 < value < 10_000 for value in times.values())
    with pytest.raises(InvalidArgumentError, match=r"`threads` must be numbers of at least 1. Received: \(1, 0\)"):
        litert_latency(files["int8"], (1, 0))
    with pytest.raises(InvalidArgumentError, match="`repeats` must be at least 1. Received: 0"):
        litert_latency(files["int8"], repeats=0)
