"""What a caller can make the server compute ends with the caller's deadline, and never holds up other callers."""

import gc
import threading
import time
import weakref

import grpc
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from keraslight_serving.server import ModelServer
from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import StatusError
from keraslight_serving.server.base.spec import ModelSpec
from keraslight_serving.server.calls.service import Service
from keraslight_serving.server.calls.slots import Slots
from keraslight_serving.server.running.batch_queues import BatchScheduler
from keraslight_serving.server.running.batching import Batcher
from keraslight_serving.server.running.batching_parameters import BatchingParameters
from keraslight_serving.server.running.engines.saved_model import SavedModelEngine
from keraslight_serving.server.running.pipelines import Pipeline
from keraslight_serving.server.running.servable import PIPELINE_ROWS, Servable, _saved_signatures
from keraslight_serving.server.running.signatures import Signature
from keraslight_serving.server.testing import FakeEngine, FakeRepository
from keraslight_serving.wire import methods, serving_pb2 as pb
from keraslight_serving.wire.tensors import TensorError, to_array, to_tensor

from tests.serving.helpers import refused, until
from tests.serving_attack import answer

ENDLESS = 2**30  # turns


@pytest.fixture(scope="module")
def slow_saved_model(tmp_path_factory):
    """A base path whose version only runs in TensorFlow: a loop of so many turns, bfloat16, and an input given back."""

    class Slow(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([1], tf.int32, "turns")])
        def turn(self, turns):
            _, x = tf.while_loop(lambda i, x: i < turns[0], lambda i, x: (i + 1, tf.tanh(x @ x)), [0, tf.eye(64)])
            return {"done": tf.reduce_sum(x, keepdims=True)[0]}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.bfloat16, "x")])
        def double(self, x):
            return {"y": 2 * x}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x"), tf.TensorSpec([None], tf.float32, "w")])
        def same(self, x, w):
            return {"x": x, "sum": x + w, "complex": tf.complex(x, w)}

    base = tmp_path_factory.mktemp("slow_saved_model")
    model = Slow()
    signatures = {"serving_default": model.turn, "double": model.double, "same": model.same}
    tf.saved_model.save(model, str(base / "1"), signatures=signatures)
    return base


@pytest.fixture(scope="module")
def slow_server(slow_saved_model):
    with ModelServer("slow", slow_saved_model, rest_api_port=0, rest_api_timeout_in_ms=500) as server:
        yield server


@pytest.fixture(scope="module")
def channel(slow_server):
    with grpc.insecure_channel(slow_server.address) as channel:
        answer(channel, methods.PREDICT, turns(1))
        yield channel


def turns(count):
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="slow"))
    request.inputs["turns"].CopyFrom(to_tensor(np.array([count], np.int32)))
    return request


def start(channel, count, timeout=60.0):
    method = methods.PREDICT
    call = channel.unary_unary(method.path, method.request.SerializeToString, method.response.FromString)
    return call.future(turns(count), timeout=timeout)


def falls_idle(seconds=5.0):
    """Whether this process uses less than a third of a CPU for a moment, within some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.process_time()
        time.sleep(0.3)
        if time.process_time() - began < 0.1:
            return True
    return False


# ---------------------------------------------------------------- TensorFlow's runs end with their callers


def test_a_run_ends_at_the_deadline(channel):
    calls = [start(channel, ENDLESS, timeout=0.5) for _ in range(6)]
    assert {call.exception().code() for call in calls} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    assert falls_idle()
    assert answer(channel, methods.PREDICT, turns(1)).outputs["done"].float_val


@pytest.mark.parametrize("count", [1, 3, 12])
def test_runs_end_when_their_callers_leave(channel, count):
    calls = [start(channel, ENDLESS) for _ in range(count)]
    time.sleep(0.3)
    for call in calls:
        call.cancel()
    assert falls_idle()
    for _ in range(10):  # of all the places that the runs had
        assert answer(channel, methods.PREDICT, turns(2), timeout=20).outputs["done"].float_val


def test_a_run_over_rest_ends_at_its_time_limit(slow_server):
    httpx = pytest.importorskip("httpx")
    url = f"{slow_server.rest_address}/v1/models/slow:predict"
    assert httpx.post(url, json={"inputs": [ENDLESS]}, timeout=20).status_code == 504
    assert falls_idle()
    assert httpx.post(url, json={"inputs": [1]}, timeout=20).status_code == 200


def test_a_call_that_ended_ends_no_other(channel):
    long = start(channel, 30_000)
    for _ in range(5):
        start(channel, ENDLESS, timeout=0.1).exception()
    assert long.result(60).outputs["done"].float_val


def test_outputs_that_are_inputs_and_any_choice_of_outputs(channel):
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="slow", signature_name="same"))
    request.inputs["x"].CopyFrom(to_tensor(np.array([1.5, 2], np.float32)))
    request.inputs["w"].CopyFrom(to_tensor(np.array([1, 1], np.float32)))
    for chosen, expected in (
        (["x"], [1.5, 2]),
        (["sum"], [2.5, 3]),
        (["sum", "x"], [2.5, 3]),
        (["x", "sum"], [2.5, 3]),
    ):
        del request.output_filter[:]
        request.output_filter.extend(chosen)
        outputs = answer(channel, methods.PREDICT, request).outputs
        assert sorted(outputs) == sorted(chosen)
        np.testing.assert_array_equal(to_array(outputs["sum" if "sum" in chosen else "x"]), expected)


def engine(folder, **options):
    return SavedModelEngine(folder, _saved_signatures(folder / "saved_model.pb"), **options)


def test_an_unloaded_graph_is_freed_at_once(slow_saved_model):
    for _ in range(2):
        loaded = engine(slow_saved_model / "1")
        loaded.run("serving_default", {"turns": np.array([1], np.int32)}, ["done"], Call())
        gc.collect()
        gc.disable()
        try:
            graph = weakref.ref(loaded._session._graph)
            native = weakref.ref(graph()._c_graph)  # what takes the memory
            operation = weakref.ref(graph().get_operations()[0])
            loaded.close()
            del loaded
            assert native() is None
            assert operation() is None
            assert graph() is None
        finally:
            gc.enable()


def test_callers_do_not_wait_for_a_slow_load_beyond_their_deadline(slow_saved_model, monkeypatch):
    loaded = engine(slow_saved_model / "1")
    real, go = SavedModelEngine._open, threading.Event()
    monkeypatch.setattr(SavedModelEngine, "_open", lambda self: go.wait(30) and real(self))
    inputs = {"turns": np.array([1], np.int32)}
    gone = threading.Event()
    for code, call in (
        ("DEADLINE_EXCEEDED", Call(deadline=time.monotonic() + 0.1)),
        ("DEADLINE_EXCEEDED", Call(deadline=time.monotonic() - 1)),
        ("CANCELLED", Call(is_active=gone.is_set)),
    ):
        assert refused(loaded.run, "serving_default", inputs, ["done"], call)[0] == code
    assert not loaded.loaded
    go.set()
    assert loaded.run("serving_default", inputs, ["done"], Call())["done"].shape == (1,)
    loaded.close()


def test_a_load_that_failed_is_tried_again(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"")
    broken = SavedModelEngine(tmp_path, {})
    for _ in range(2):
        assert refused(broken.run, "serving_default", {}, [], Call())[0] != "OK"
        assert not broken.loaded
    broken.close()


# ---------------------------------------------------------------- rows


def signature(dtype, shape, outputs):
    definition = pb.SignatureDef()
    definition.inputs["x"].dtype = dtype
    for size in shape:
        definition.inputs["x"].tensor_shape.dim.add(size=size)
    for alias in outputs:
        definition.outputs[alias].dtype = pb.DT_FLOAT
    return Signature.of(definition)


@pytest.fixture
def decoding():
    """A servable that decodes, its two engines, and the rows of each run."""
    rows = {"decode": [], "network": []}

    def decode(inputs):
        rows["decode"].append(len(inputs["x"]))
        return {"images": np.array([[float(data)] for data in inputs["x"]], np.float32)}

    def network(inputs):
        rows["network"].append(len(inputs["x"]))
        return {"scores": inputs["x"] * [1, 2]}

    whole = signature(pb.DT_STRING, [-1], ["scores"])
    signatures = {"encoded": whole, "decode": whole, "network": signature(pb.DT_FLOAT, [-1, 1], ["scores"])}
    engines = {"encoded": FakeEngine(decode), "decode": FakeEngine(decode), "network": FakeEngine(network)}
    pipelines = {"encoded": Pipeline("network", "x", "decode", "images", None, np.array([], object))}

    def make(**options):
        return Servable(signatures, engines, pipelines=pipelines, **options)

    return make, rows


@pytest.mark.parametrize("count", [33, 1000, 20_000, 100_000])
def test_rows_are_counted_before_anything_is_decoded(decoding, count):
    make, rows = decoding
    scheduler = BatchScheduler(1)
    servable = make(batcher=Batcher(scheduler, BatchingParameters(max_batch_size=32, max_execution_batch_size=32)))
    files = np.full(count, b"1", object)
    error = refused(servable.check, "encoded", {"x": files})
    assert error == ("INVALID_ARGUMENT", f"Task size {count} is larger than maximum input batch size 32")
    assert rows["decode"] == []
    servable.check("encoded", {"x": files[:32]})
    assert len(servable.run("encoded", {"x": files[:32]}, ["scores"], Call())["scores"]) == 32
    scheduler.close()


@pytest.mark.parametrize("count", [1, PIPELINE_ROWS, PIPELINE_ROWS + 1, 5 * PIPELINE_ROWS - 1])
def test_large_requests_are_decoded_in_parts(decoding, count):
    make, rows = decoding
    files = np.array([str(n).encode() for n in range(count)], object)
    scores = make().run("encoded", {"x": files}, ["scores"], Call())["scores"]
    np.testing.assert_array_equal(scores, np.arange(count)[:, None] * np.array([1, 2]))
    assert max(rows["decode"]) <= PIPELINE_ROWS
    assert rows["decode"] == rows["network"]


def test_a_large_request_stops_between_its_parts(decoding):
    make, rows = decoding
    active = lambda: len(rows["decode"]) < 2  # noqa: E731
    files = np.full(10 * PIPELINE_ROWS, b"1", object)
    assert refused(make().run, "encoded", {"x": files}, ["scores"], Call(is_active=active))[0] == "CANCELLED"
    assert len(rows["decode"]) == 2


@pytest.mark.parametrize("shape", [[2**29], [2**14, 2**14], [1, 30, 2**20]])
def test_a_repeated_value_takes_no_more_memory_than_a_request_may(slow_server, channel, shape):
    request = turns(1)
    request.inputs["turns"].CopyFrom(pb.TensorProto(dtype=pb.DT_INT32, int_val=[1]))
    for size in shape:
        request.inputs["turns"].tensor_shape.dim.add(size=size)
    with pytest.raises(grpc.RpcError) as caught:
        answer(channel, methods.PREDICT, request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "tensor parsing error: turns"


@pytest.mark.parametrize("values", [[], [b"1"], [b"1", b"2"]])
@pytest.mark.parametrize("shape", [[70_000], [300, 300], [2**20, 10]])
def test_a_string_is_repeated_a_limited_number_of_times(values, shape):
    tensor = pb.TensorProto(dtype=pb.DT_STRING, string_val=values)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    with pytest.raises(TensorError, match="A string may be repeated 65536 times"):
        to_array(tensor)
    del tensor.tensor_shape.dim[:]
    tensor.tensor_shape.dim.add(size=20_000)
    assert to_array(tensor).tolist()[-1] == (values or [b""])[-1]


# ---------------------------------------------------------------- one model doesn't hold up another


@pytest.fixture
def blocked():
    """A service with models `slow` and `fast`; `slow` blocks in the engine that TensorFlow stands for."""
    go = threading.Event()

    def wait(inputs):
        assert go.wait(30)
        return {"y": inputs["x"]}

    slow, fast = FakeEngine(wait), FakeEngine(lambda inputs: {"y": inputs["x"]})
    slow.saved_model_loaded = True
    number = signature(pb.DT_FLOAT, [-1], ["y"])
    both = Servable({"slow": number, "fast": number}, {"slow": slow, "fast": fast}, saved_model=slow)
    alone = Servable({"fast": number}, {"fast": fast})
    service = Service(FakeRepository({"both": {1: both}, "other": {1: alone}}), slots=2, waiting=4)
    yield service, slow
    go.set()


def ask(service, model, name, seconds=20.0):
    call = Call(deadline=time.monotonic() + seconds)
    spec = ModelSpec(model, signature=name)
    with service.slot(spec, call):
        return service.predict(spec, lambda _: {"x": np.zeros(1, np.float32)}, call)[1]["y"]


def test_requests_that_wait_for_one_engine_hold_up_no_other(blocked):
    service, slow = blocked
    found = []

    def ask_slow():
        try:
            ask(service, "both", "slow")
        except StatusError as error:
            found.append(error.code.name)

    threads = [threading.Thread(target=ask_slow) for _ in range(12)]
    for thread in threads:
        thread.start()
    until(lambda: len(found) == 8)  # two run, and of four places in which to wait they have half
    assert set(found) == {"RESOURCE_EXHAUSTED"}
    assert ask(service, "both", "fast", 2).shape == (1,)
    assert ask(service, "other", "fast", 2).shape == (1,)
    assert refused(ask, service, "missing", "fast")[0] == "NOT_FOUND"
    assert len(slow.ran) == 2


def test_a_request_waits_for_a_slot_only_until_its_deadline(blocked):
    service, slow = blocked
    threads = [threading.Thread(target=ask, args=(service, "both", "slow")) for _ in range(2)]
    for thread in threads:
        thread.start()
    until(lambda: len(slow.ran) == 2)
    assert refused(ask, service, "both", "slow", 0.1)[0] == "DEADLINE_EXCEEDED"


def test_requests_of_one_model_take_half_of_the_places_that_are_free():
    slots = Slots(1, 4)

    def wait(key):
        with slots.take(key, Call(deadline=time.monotonic() + 20)):
            pass

    with slots.take("a", Call()):
        threads = [threading.Thread(target=wait, args=("a",)) for _ in range(2)]
        for thread in threads:
            thread.start()
        until(lambda: slots._waiting == 2)
        assert refused(wait, "a")[0] == "RESOURCE_EXHAUSTED"
        wait("b")
    for thread in threads:
        thread.join()


def test_slots_leave_nothing_behind():
    slots = Slots(2, 8)
    running, most, lock = [0], [0], threading.Lock()

    def work(key):
        with slots.take(key, Call(deadline=time.monotonic() + 20)):
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            time.sleep(0.005)
            with lock:
                running[0] -= 1

    threads = [threading.Thread(target=work, args=("a",)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 2
    assert (slots._queues, slots._waiting) == ({}, 0)


# ---------------------------------------------------------------- probes


def test_probes_are_answered_while_every_thread_is_taken(slow_saved_model, monkeypatch):
    httpx = pytest.importorskip("httpx")
    monkeypatch.setattr("keraslight_serving.server.rpc.server.OPEN_CALLS", 4)
    with (
        ModelServer("slow", slow_saved_model, rest_api_port=0, rest_api_num_threads=2) as server,
        grpc.insecure_channel(server.address) as channel,
        httpx.Client(base_url=server.rest_address, timeout=20) as rest,
    ):
        posts = [
            threading.Thread(
                target=lambda: httpx.post(
                    f"{server.rest_address}/v1/models/slow:predict", json={"inputs": [10_000]}, timeout=60
                )
            )
            for _ in range(6)
        ]
        calls = [start(channel, ENDLESS) for _ in range(30)]
        for post in posts:
            post.start()
        rejected = lambda: [call for call in calls if call.done()]  # noqa: E731
        until(lambda: len(rejected()) == 26)
        assert {call.exception().code() for call in rejected()} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        began = time.monotonic()
        for service in ("", "ModelService", "slow"):
            checked = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=service), timeout=10
            )
            assert checked.status == health_pb2.HealthCheckResponse.SERVING
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="slow"))
        assert next(watching).status == health_pb2.HealthCheckResponse.SERVING
        watching.cancel()
        status = pb.GetModelStatusRequest(model_spec=pb.ModelSpec(name="slow"))
        assert answer(channel, methods.GET_MODEL_STATUS, status, 10).model_version_status
        assert answer(channel, methods.LIST_MODELS, pb.ListModelsRequest(), 10).model
        assert rest.get("/v1/models/slow").status_code == 200
        assert rest.get("/v1/models/slow/metadata").status_code == 200
        assert time.monotonic() - began < 8
        for call in calls:
            call.cancel()
        for post in posts:
            post.join()


# ---------------------------------------------------------------- types


def test_bfloat16_in_and_out(channel):
    values = np.array([1.5, -0.0078125, 3e37, 0], ml_dtypes.bfloat16)
    for content in (False, True):
        request = pb.PredictRequest(model_spec=pb.ModelSpec(name="slow", signature_name="double"))
        request.inputs["x"].CopyFrom(to_tensor(values, content=content))
        found = to_array(answer(channel, methods.PREDICT, request).outputs["y"])
        assert found.dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(found, values + values)


def test_bfloat16_tensors_are_tensorflows():
    values = np.array([[1.5, -2.25], [0, 1e30]], ml_dtypes.bfloat16)
    for content in (False, True):
        ours = to_tensor(values, content=content)
        theirs = tf.make_ndarray(type(tf.make_tensor_proto(0)).FromString(ours.SerializeToString()))
        np.testing.assert_array_equal(theirs, values)
        np.testing.assert_array_equal(to_array(ours), values)
    theirs = tf.make_tensor_proto(values)
    np.testing.assert_array_equal(to_array(pb.TensorProto.FromString(theirs.SerializeToString())), values)
    repeated = pb.TensorProto(dtype=pb.DT_BFLOAT16, half_val=[0x3FC0], tensor_shape={"dim": [{"size": 3}]})
    np.testing.assert_array_equal(to_array(repeated), np.full(3, 1.5, ml_dtypes.bfloat16))


def test_bfloat16_without_ml_dtypes_is_float32(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    tensor = pb.TensorProto(dtype=pb.DT_BFLOAT16, half_val=[0x3FC0, 0xC010], tensor_shape={"dim": [{"size": 2}]})
    found = to_array(tensor)
    assert found.dtype == np.float32
    assert found.tolist() == [1.5, -2.25]


def test_outputs_of_other_types_are_a_typed_error(channel):
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="slow", signature_name="same"))
    request.inputs["x"].CopyFrom(to_tensor(np.ones(1, np.float32)))
    request.inputs["w"].CopyFrom(to_tensor(np.ones(1, np.float32)))
    with pytest.raises(grpc.RpcError) as caught:
        answer(channel, methods.PREDICT, request)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "complex" in caught.value.details()
