"""The engines behind a servable: which one runs, how many at once, and what is told of it."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import Builder, flexbuffers
from keraslight_serving.server import ModelServer, StartError
from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import StatusError
from keraslight_serving.server.running.engines.litert import SLICE_ROWS, LiteRTEngine
from keraslight_serving.server.running.servable import Servable
from tensorflow.core.protobuf import meta_graph_pb2

OUTPUTS = ["probabilities"]


def load(folder, engine="auto", **arguments):
    return Servable.load(folder, threads=1, interpreters=2, eager=False, engine=engine, **arguments)


@pytest.fixture
def engine(version_folder):
    return LiteRTEngine(version_folder / "model.tflite", threads=1, interpreters=2)


@pytest.fixture(scope="module")
def two_signatures(tmp_path_factory):
    """A file whose signatures `double` and `half` are two graphs."""

    class Scaler(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
        def double(self, x):
            return {"y": x * 2.0}

        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
        def half(self, x):
            return {"y": x / 2.0, "z": x + 1.0}

    module = Scaler()
    folder = tmp_path_factory.mktemp("scaler")
    signatures = {"double": module.double, "half": module.half}
    tf.saved_model.save(module, str(folder), signatures=signatures)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=list(signatures))
    (folder / "model.tflite").write_bytes(converter.convert())
    return folder / "model.tflite"


@pytest.mark.parametrize("rows", [1, 2, SLICE_ROWS, SLICE_ROWS + 1, 2 * SLICE_ROWS + 5])
def test_both_engines_agree(version_folder, rows):
    images = np.random.default_rng(rows).uniform(0, 255, (rows, 8, 8, 1)).astype(np.float32)
    found, wanted = (
        load(version_folder, engine).run("serving_default", {"images": images}, OUTPUTS, Call())["probabilities"]
        for engine in ("litert", "tensorflow")
    )
    assert found.shape == wanted.shape == (rows, 3)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_engine_litert_leaves_the_saved_model_alone(version_folder):
    servable = load(version_folder, "litert")
    assert set(servable.signatures) == {"serving_default"}
    assert not servable.needs_tensorflow("serving_default")
    assert not servable.saved_model_loaded


def test_engine_tensorflow_leaves_the_tflite_file_alone(version_folder):
    servable = load(version_folder, "tensorflow")
    assert servable.saved_model_loaded
    assert all(servable.needs_tensorflow(name) for name in servable.signatures)


@pytest.mark.parametrize(
    ("engine", "without", "text"),
    [
        ("litert", "model.tflite", "`engine` litert needs a file called `model.tflite`"),
        ("tensorflow", "saved_model.pb", "should have a file called `saved_model.pb`"),
    ],
)
def test_an_engine_needs_its_file(publish, engine, without, text):
    with pytest.raises(StartError, match=text):
        ModelServer("tiny", publish(without=(without,)), engine=engine).start()


def test_unknown_engine(publish):
    with pytest.raises(ValueError, match="`engine` must be one of auto, litert, tensorflow. Received: 'onnx'"):
        ModelServer("tiny", publish(), engine="onnx")


def test_answers_outlive_the_next_request(engine, pixels):
    first = engine.run("serving_default", {"images": pixels}, OUTPUTS, Call())["probabilities"]
    kept = first.copy()
    engine.run("serving_default", {"images": 255 - pixels}, OUTPUTS, Call())
    np.testing.assert_array_equal(first, kept)


def test_bytes_are_cast_on_their_way_in(engine, pixels):
    wanted = engine.run("serving_default", {"images": pixels.astype(np.float32)}, OUTPUTS, Call())
    found = engine.run("serving_default", {"images": pixels}, OUTPUTS, Call())
    np.testing.assert_array_equal(found["probabilities"], wanted["probabilities"])


def test_requests_of_changing_sizes_share_the_interpreters(engine):
    """Memory is laid out anew each time; a row's answer must not depend on its neighbours."""
    images = np.random.default_rng(0).uniform(0, 255, (7, 8, 8, 1)).astype(np.float32)
    alone = [engine.run("serving_default", {"images": images[i : i + 1]}, OUTPUTS, Call()) for i in range(7)]
    wanted = np.concatenate([answer["probabilities"] for answer in alone])

    def ask(seed):
        picked = np.random.default_rng(seed).permutation(7)[: 1 + seed % 7]
        found = engine.run("serving_default", {"images": images[picked]}, OUTPUTS, Call())["probabilities"]
        np.testing.assert_allclose(found, wanted[picked], atol=1e-6)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(ask, range(140)))
    assert len(engine._idle) <= 2


def test_a_file_with_several_signatures(two_signatures):
    engine = LiteRTEngine(two_signatures, threads=1, interpreters=1)
    x = np.array([[2, 4], [6, 8], [10, 12]], np.float32)
    for rows in (1, 3, 2):
        double = engine.run("double", {"x": x[:rows]}, ["y"], Call())
        half = engine.run("half", {"x": x[:rows].astype(np.uint8)}, ["z", "y"], Call())
        np.testing.assert_array_equal(double["y"], 2 * x[:rows])
        np.testing.assert_array_equal(half["y"], x[:rows] / 2)
        np.testing.assert_array_equal(half["z"], x[:rows] + 1)
        assert set(double) == {"y"}


@pytest.fixture(scope="module")
def halves():
    """Columns of numbers, x / 2 + 2."""

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, "x")])
    def half_plus_two(x):
        return {"y": x / 2.0 + 2.0}

    return tf.lite.TFLiteConverter.from_concrete_functions(
        [half_plus_two.get_concrete_function()], tf.Module()
    ).convert()


def as_old(content: bytes, metadata: bytes | None = None) -> bytes:
    """The file without the signatures of its format, and perhaps with those that older tools wrote.

    Its tensors are called `input` and `output:0`.
    """
    model = schema.ModelT.InitFromPackedBuf(content)
    model.signatureDefs = None
    graph = model.subgraphs[0]
    graph.tensors[graph.inputs[0]].name, graph.tensors[graph.outputs[0]].name = "input", "output:0"
    if metadata is not None:
        entry, buffer = schema.MetadataT(), schema.BufferT()
        entry.name, entry.buffer, buffer.data = "signature_defs_metadata", len(model.buffers), list(metadata)
        model.buffers.append(buffer)
        model.metadata = [*(model.metadata or []), entry]
    builder = Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def description(**feeds: str) -> bytes:
    """Signatures that feed a tensor of this name as `x`."""
    builder = flexbuffers.Builder()
    with builder.Map():
        for name, feed in feeds.items():
            signature = meta_graph_pb2.SignatureDef()
            signature.inputs["x"].name = feed
            signature.outputs["y"].name = "output:0"
            builder.Key(name)
            builder.String(signature.SerializeToString().decode())
    return bytes(builder.Finish())


def run(folder, signature, x, output="y", alias="x"):
    servable = load(folder)
    inputs = {alias: np.float32(x)}
    servable.check(signature, inputs)
    return servable.run(signature, inputs, [output], Call())[output].tolist()


def test_a_file_without_signatures_gets_one_with_the_names_of_its_tensors(tmp_path, halves):
    (tmp_path / "model.tflite").write_bytes(as_old(halves))
    assert run(tmp_path, "serving_default", [[2], [4]], "output", "input") == [[3], [4]]


def test_beside_a_saved_model_no_signatures_are_made_up(publish, version_folder):
    old = as_old((version_folder / "model.tflite").read_bytes())
    servable = load(publish(1, files={"model.tflite": old}) / "1")
    assert servable.signatures == load(version_folder, "tensorflow").signatures
    assert servable.needs_tensorflow("serving_default")


def test_signatures_that_older_tools_wrote(tmp_path, halves):
    file = tmp_path / "model.tflite"
    file.write_bytes(as_old(halves, description(first="input:0", second="input")))
    assert set(load(tmp_path).signatures) == {"first", "second"}
    assert run(tmp_path, "first", [[2], [4]]) == run(tmp_path, "second", [[2], [4]]) == [[3], [4]]
    file.write_bytes(as_old(halves, description(first="nothing:0")))
    with pytest.raises(StatusError, match="LiteRT can't load .*: Unknown tensor 'nothing:0'"):
        load(tmp_path)
    file.write_bytes(as_old(halves, b"\x07" * 9))
    with pytest.raises(StatusError, match="signature_defs_metadata must hold SignatureDefs. Received: "):
        load(tmp_path)


def test_a_vector_may_stand_for_a_column(tmp_path, halves):
    (tmp_path / "model.tflite").write_bytes(halves)
    assert run(tmp_path, "serving_default", [2, 4]) == [[3], [4]]
    for wrong in ([[2, 4]], 2, []):
        with pytest.raises(StatusError, match='Input "x" must '):
            run(tmp_path, "serving_default", wrong)


def test_an_interpreter_that_failed_is_replaced(engine, pixels):
    wanted = engine.run("serving_default", {"images": pixels}, OUTPUTS, Call())["probabilities"]
    for _ in range(3):
        with pytest.raises(StatusError, match="LiteRT can't run signature 'serving_default' on these inputs"):
            engine.run("serving_default", {"images": np.zeros((1, 9, 9, 2), np.float32)}, OUTPUTS, Call())
    found = engine.run("serving_default", {"images": pixels}, OUTPUTS, Call())["probabilities"]
    np.testing.assert_array_equal(found, wanted)


def test_the_wait_for_an_interpreter_ends_with_the_deadline(version_folder, pixels):
    engine = LiteRTEngine(version_folder / "model.tflite", threads=1, interpreters=1)
    done = threading.Event()
    engine._pool.submit(done.wait)  # another request has the only one
    began = time.monotonic()
    with pytest.raises(StatusError) as caught:
        engine.run("serving_default", {"images": pixels}, OUTPUTS, Call(deadline=began + 0.1))
    assert caught.value.code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert 0.1 <= time.monotonic() - began < 5
    done.set()
    assert engine.run("serving_default", {"images": pixels}, OUTPUTS, Call(deadline=time.monotonic() + 60))


def test_a_long_request_stops_when_its_caller_is_gone(engine):
    answers = iter([True, False])
    images = np.zeros((3 * SLICE_ROWS, 8, 8, 1), np.float32)
    with pytest.raises(StatusError, match="The caller is gone"):
        engine.run("serving_default", {"images": images}, OUTPUTS, Call(is_active=lambda: next(answers)))
    assert next(answers, None) is None, "it was asked before each slice"


def test_each_run_is_told(version_folder, pixels, png):
    told = []
    call = Call(on_run=lambda engine, seconds: told.append((engine, seconds > 0)))
    servable = load(version_folder)
    servable.run("serving_default", {"images": pixels.astype(np.float32)}, OUTPUTS, call)
    servable.run("encoded", {"image_bytes": np.array([png], object)}, ["scores"], call)
    assert told == [("litert", True), ("tensorflow", True)]
