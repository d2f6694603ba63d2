"""Requests that are joined to batches: parameters, texts, and what neighbours do to each other (nothing)."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
import tensorflow as tf
from keraslight_serving.server import ModelServer
from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import StatusError, invalid
from keraslight_serving.server.loading.loader import Loader
from keraslight_serving.server.running.batch_queues import BatchScheduler
from keraslight_serving.server.running.batching import Batcher, _common_call
from keraslight_serving.server.running.batching_parameters import BatchingParameters, read_parameters
from keraslight_serving.server.running.engines.saved_model import SavedModelEngine
from keraslight_serving.server.settings import Settings
from tensorflow_serving.apis import get_model_status_pb2, predict_pb2


class Doubler:
    """An engine that doubles `x`, notes what it was given, and can be held up."""

    name = "doubler"

    def __init__(self):
        self.batches = []
        self.go = threading.Event()
        self.go.set()
        self.started = threading.Semaphore(0)

    def run(self, signature, inputs, outputs, call):
        self.started.release()
        assert self.go.wait(30)
        self.batches.append({name: array.copy() for name, array in inputs.items()})
        if np.any(inputs["x"] < 0):
            raise invalid("x must not be negative")
        answers = {"y": inputs["x"] * 2, "sum": inputs["x"].sum()}
        return {name: answers[name] for name in outputs}


@pytest.fixture
def make():
    """A function that makes (batcher, engine) of parameters, with one thread."""
    schedulers = []

    def build(observe=lambda execution: None, threads=1, **parameters):
        largest = parameters.get("max_batch_size", 1000)
        parameters.setdefault("max_execution_batch_size", largest)
        schedulers.append(BatchScheduler(threads))
        return Batcher(schedulers[-1], BatchingParameters(**parameters), observe), Doubler()

    yield build
    for scheduler in schedulers:
        scheduler.close()


def rows(*values):
    return np.array(values, np.float32).reshape(-1, 1)


def ask(batcher, engine, x, outputs=("y",), call=None):
    return batcher.run(engine, "s", {"x": x}, list(outputs), call or Call())


@pytest.fixture
def held(make):
    """Like `make`, but the thread is busy with a first request until `engine.go.set()`; then its answer is `first`."""
    with ThreadPoolExecutor(16) as pool:
        engines = []

        def build(**arguments):
            batcher, engine = make(**arguments)
            engines.append(engine)
            engine.go.clear()
            first = pool.submit(ask, batcher, engine, rows(0))
            assert engine.started.acquire(timeout=30)

            def later(x, **options):
                before = _queued(batcher)
                future = pool.submit(ask, batcher, engine, x, **options)
                while not future.done() and _queued(batcher) == before:
                    time.sleep(0.001)
                return future

            return batcher, engine, first, later

        yield build
        for engine in engines:
            engine.go.set()


def _queued(batcher):
    with batcher._scheduler._changed:
        return sum(batch.rows for queue in batcher._scheduler._queues.values() for batch in queue)


def test_those_that_wait_run_together(held):
    told = []
    _, engine, first, later = held(observe=told.append)
    waiting = [later(rows(1)), later(rows(2, 3)), later(rows(4))]
    engine.go.set()
    answers = [future.result(30)["y"].ravel().tolist() for future in [first, *waiting]]
    assert answers == [[0], [2], [4, 6], [8]]
    assert [batch["x"].ravel().tolist() for batch in engine.batches] == [[0], [1, 2, 3, 4]]
    batch = told[1]
    assert (batch.engine, batch.signature, batch.rows, batch.padding) == ("doubler", "s", (1, 2, 1), 0)
    assert len(batch.queue_seconds) == 3
    assert batch.queue_seconds[0] >= batch.queue_seconds[2] > 0


def test_a_batch_takes_no_more_than_it_may(held):
    _, engine, _, later = held(max_batch_size=3)
    waiting = [later(rows(value, value)) for value in (1, 2, 3)] + [later(rows(4))]
    engine.go.set()
    assert [future.result(30)["y"].ravel().tolist() for future in waiting] == [[2, 2], [4, 4], [6, 6], [8]]
    assert [len(batch["x"]) for batch in engine.batches[1:]] == [2, 2, 3]


def test_an_open_batch_waits_for_its_time(make):
    batcher, engine = make(batch_timeout_micros=150_000, max_batch_size=2)
    began = time.monotonic()
    ask(batcher, engine, rows(1))
    assert 0.15 <= time.monotonic() - began < 5
    began = time.monotonic()
    ask(batcher, engine, rows(1, 2))
    assert time.monotonic() - began < 0.15, "a full batch does not wait"


def test_another_queue_s_time_is_kept_while_a_batch_runs(make):
    """The thread that was to wake up for it may be the one that is busy."""
    batcher, engine = make(threads=2, batch_timeout_micros=50_000)
    engine.go.clear()
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(ask, batcher, engine, rows(1))
        other = pool.submit(ask, batcher, engine, np.zeros((1, 2), np.float32))
        assert engine.started.acquire(timeout=5)
        assert engine.started.acquire(timeout=5), "both run, each in a thread"
        engine.go.set()
        assert (one.result(30)["y"].shape, other.result(30)["y"].shape) == ((1, 1), (1, 2))


def test_what_differs_is_not_joined(held):
    _, engine, _, later = held()
    waiting = [
        later(rows(1)),
        later(np.ones((1, 2), np.float32)),
        later(rows(2).astype(np.int32)),
        later(rows(3), outputs=("y", "y")),
    ]
    engine.go.set()
    assert [future.result(30)["y"].shape for future in waiting] == [(1, 1), (1, 2), (1, 1), (1, 1)]
    assert waiting[2].result()["y"].dtype == np.int32
    assert len(engine.batches) == 5


@pytest.mark.parametrize(("sent", "ran"), [(1, 2), (2, 2), (3, 6), (6, 6)])
def test_batches_are_filled_up_to_an_allowed_size(make, sent, ran):
    told = []
    batcher, engine = make(told.append, max_batch_size=6, allowed_batch_sizes=(2, 6))
    x = rows(*range(5, 5 + sent))
    assert ask(batcher, engine, x)["y"].ravel().tolist() == (2 * x).ravel().tolist()
    assert engine.batches[0]["x"].ravel().tolist() == [*x.ravel().tolist(), *[5.0] * (ran - sent)]
    assert (told[0].rows, told[0].padding) == ((sent,), ran - sent)


def test_shapes_are_filled_up_if_asked_for(held):
    _, engine, _, later = held(pad_variable_length_inputs=True)
    waiting = [later(np.full((1, 1, 3), 7, np.float32)), later(np.full((2, 2, 1), 8, np.float32))]
    engine.go.set()
    found = [future.result(30)["y"] for future in waiting]
    assert [answer.shape for answer in found] == [(1, 2, 3), (2, 2, 3)]
    assert (found[0] == 14).all()
    assert (found[1] == 16).all()


def test_large_requests_are_split(held):
    _, engine, _, later = held(max_batch_size=10, max_execution_batch_size=4, enable_large_batch_splitting=True)
    waiting = [later(rows(1)), later(rows(*range(2, 11))), later(rows(11, 12))]
    engine.go.set()
    assert [future.result(30)["y"].ravel().tolist() for future in waiting] == [
        [2],
        [2 * value for value in range(2, 11)],
        [22, 24],
    ]
    assert [len(batch["x"]) for batch in engine.batches[1:]] == [4, 4, 4]


def test_a_split_request_fails_as_one(make):
    batcher, engine = make(max_batch_size=10, max_execution_batch_size=2, enable_large_batch_splitting=True)
    with pytest.raises(StatusError, match="x must not be negative"):
        ask(batcher, engine, rows(1, 2, 3, -4, 5, 6))
    assert ask(batcher, engine, rows(1, 2, 3))["y"].ravel().tolist() == [2, 4, 6]


def test_one_bad_request_fails_alone(held):
    _, engine, _, later = held()
    waiting = [later(rows(1)), later(rows(-2)), later(rows(3, 4))]
    engine.go.set()
    assert waiting[0].result(30)["y"].tolist() == [[2]]
    with pytest.raises(StatusError, match="x must not be negative"):
        waiting[1].result(30)
    assert waiting[2].result(30)["y"].tolist() == [[6], [8]]


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({}, "Batching Run() must have at least one input tensor"),
        ({"x": np.float32(1)}, "Batching Run() input tensors must have at least one dimension"),
        ({"x": rows(1), "z": rows(1, 2)}, "Batching Run() input tensors must have equal 0th-dimension size"),
        ({"x": rows()}, "Batching Run() input tensors must have at least one row"),
        ({"x": rows(*range(65))}, "Task size 65 is larger than maximum input batch size 64"),
    ],
)
def test_what_can_not_be_batched(make, inputs, text):
    batcher, engine = make(max_batch_size=64)
    arrays = {name: np.asarray(value) for name, value in inputs.items()}
    with pytest.raises(StatusError) as caught:
        batcher.run(engine, "s", arrays, ["y"], Call())
    assert (caught.value.code, caught.value.text) == (grpc.StatusCode.INVALID_ARGUMENT, text)
    assert not engine.batches


def test_outputs_have_to_have_the_rows_of_the_batch(make):
    batcher, engine = make()
    with pytest.raises(StatusError) as caught:
        ask(batcher, engine, rows(1), outputs=["sum"])
    assert caught.value.code == grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.text.startswith("Batched output tensor's 0th dimension does not equal the sum of the 0th")


def test_a_full_queue_refuses(held):
    _, engine, _, later = held(max_batch_size=2, max_enqueued_batches=2)
    waiting = [later(rows(1, 2)), later(rows(3, 4))]
    with pytest.raises(StatusError) as caught:
        later(rows(5)).result(30)
    assert caught.value.code == grpc.StatusCode.UNAVAILABLE
    assert caught.value.text == (
        "The batch scheduling queue to which this task was submitted is full; currently 2 batches enqueued and "
        "max_enqueued_batches is 2"
    )
    engine.go.set()
    assert [future.result(30)["y"].ravel().tolist() for future in waiting] == [[2, 4], [6, 8]]


def test_a_request_whose_time_is_over_leaves_the_queue(held):
    batcher, engine, _, later = held()
    late = later(rows(1), call=Call(deadline=time.monotonic() + 0.05))
    patient = later(rows(2))
    with pytest.raises(StatusError) as caught:
        late.result(30)
    assert caught.value.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caught.value.text == "Run() timeout exceeded while waiting in batching queue"
    assert _queued(batcher) == 1, "while the engine is still busy"
    engine.go.set()
    assert patient.result(30)["y"].tolist() == [[4]]
    assert [batch["x"].ravel().tolist() for batch in engine.batches] == [[0], [2]]


def test_a_caller_that_is_gone_leaves_the_queue(held):
    batcher, engine, _, later = held()
    there = threading.Event()
    gone = later(rows(1), call=Call(is_active=lambda: not there.is_set()))
    there.set()
    with pytest.raises(StatusError) as caught:
        gone.result(30)
    assert caught.value.code == grpc.StatusCode.CANCELLED
    assert _queued(batcher) == 0
    assert not batcher._scheduler._queues, "nor does its empty queue stay"
    engine.go.set()


def test_one_that_runs_already_is_waited_for(held):
    """Its version may be unloaded as soon as `run` is back."""
    batcher, engine = held()[:2]
    with ThreadPoolExecutor(1) as pool:
        engine.go.set()
        ask(batcher, engine, rows(1))
        engine.go.clear()
        while engine.started.acquire(timeout=0):
            pass
        late = pool.submit(ask, batcher, engine, rows(1), call=Call(deadline=time.monotonic() + 0.2))
        assert engine.started.acquire(timeout=30)
        time.sleep(0.4)
        assert not late.done()
        engine.go.set()
        with pytest.raises(StatusError, match="timeout exceeded"):
            late.result(30)


def test_a_batch_runs_for_as_long_as_one_of_its_callers_waits():
    def joined(*calls):
        return _common_call([SimpleNamespace(task=SimpleNamespace(call=call)) for call in calls])

    here, gone = Call(deadline=3.0), Call(deadline=1.0, is_active=lambda: False)
    assert joined(here, gone).deadline == 3.0
    assert joined(here, gone, Call()).deadline is None
    assert joined(here, gone).is_active()
    assert not joined(gone, gone).is_active()


def test_an_engine_that_breaks_does_not_take_a_thread_with_it(make):
    batcher, engine = make()
    for _ in range(3):
        with pytest.raises(TypeError):
            ask(batcher, engine, np.array([["text"]], object))
    assert ask(batcher, engine, rows(1))["y"].tolist() == [[2]]


def test_closing_lets_those_that_wait_finish_and_takes_no_more(make):
    batcher, engine = make(batch_timeout_micros=60_000_000)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, batcher, engine, rows(1))
        while not _queued(batcher):
            time.sleep(0.001)
        batcher._scheduler.close()
        assert waiting.result(30)["y"].tolist() == [[2]]
    with pytest.raises(StatusError, match="The batch scheduler is closed"):
        ask(batcher, engine, rows(1))


# ---------------------------------------------------------------- parameters


def parse(tmp_path, text):
    file = tmp_path / "batching.config"
    file.write_text(text)
    return read_parameters(file)


def test_parameters_and_their_defaults(tmp_path):
    found = parse(
        tmp_path,
        """# a comment
        max_batch_size { value: 8 } batch_timeout_micros { value: 5 } max_enqueued_batches { value: 3 }
        num_batch_threads { value: 7 } thread_pool_name { value: "pool" } allowed_batch_sizes: 2
        allowed_batch_sizes: 8 pad_variable_length_inputs: true""",
    )
    assert found == BatchingParameters(8, 5, 3, 7, "pool", (2, 8), True, False, 8)
    default = parse(tmp_path, "num_batch_threads { value: 1 }")
    assert default == BatchingParameters(1000, 0, 10, 1, "model_server_batch_threads", (), False, False, 1000)
    split = parse(
        tmp_path,
        "max_batch_size { value: 9 } enable_large_batch_splitting { value: true } "
        "max_execution_batch_size { value: 4 } allowed_batch_sizes: [1, 4]",
    )
    assert (split.enable_large_batch_splitting, split.max_execution_batch_size) == (True, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch { value: 3 }", 'has no field named "max_batch"'),
        ("max_batch_size { value: 32 } allowed_batch_sizes: [1, 16]",
         "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 16; expected 32"),
        ("allowed_batch_sizes: 16", "last entry was 16; expected 1000"),
        ("max_batch_size { value: 4 } allowed_batch_sizes: [2, 2, 4]", "must be positive and monotonically increasing"),
        ("max_batch_size { value: 0 }", "max_batch_size must be positive; was 0"),
        ("max_enqueued_batches { value: -1 }", "max_enqueued_batches must be positive; was -1"),
        ("num_batch_threads { value: 0 }", "num_batch_threads must be positive; was 0"),
        ("batch_timeout_micros { value: -5 }", "batch_timeout_micros must be non-negative; was -5"),
        ("max_batch_size { value: 4 } enable_large_batch_splitting { value: true } "
         "max_execution_batch_size { value: 8 }", "max_batch_size must be greater than or equal to"),
        ("max_batch_size { value: 8 } enable_large_batch_splitting { value: true } "
         "max_execution_batch_size { value: 4 } allowed_batch_sizes: 8",
         "must be equal to max_execution_batch_size; last entry was 8; expected 4"),
    ],
)  # fmt: skip
def test_parameters_that_do_not_fit(tmp_path, text, message):
    with pytest.raises(ValueError) as caught:
        parse(tmp_path, text)
    assert message in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="Invalid protobuf file: '.*nowhere'"):
        read_parameters(tmp_path / "nowhere")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="Invalid protobuf file"):
        read_parameters(tmp_path / "binary")


def test_a_file_without_batching(publish, tmp_path):
    with pytest.raises(ValueError, match="batching_parameters_file is set without setting .*enable_batching to true"):
        ModelServer("tiny", publish(), batching_parameters_file=tmp_path / "x")


# ---------------------------------------------------------------- in a server


def request(images):
    message = predict_pb2.PredictRequest()
    message.model_spec.name = "tiny"
    message.inputs["images"].CopyFrom(tf.make_tensor_proto(images))
    return message


@pytest.mark.parametrize("engine", ["litert", "tensorflow"])
def test_many_callers_get_their_own_answers(publish, connect, tmp_path, engine):
    file = tmp_path / "batching.config"
    file.write_text("max_batch_size { value: 8 } batch_timeout_micros { value: 2000 } allowed_batch_sizes: [2, 8]")
    images = np.random.default_rng(0).uniform(0, 255, (60, 8, 8, 1)).astype(np.float32)
    with (
        ModelServer("tiny", publish(), engine=engine, enable_batching=True, batching_parameters_file=file) as server,
        ThreadPoolExecutor(12) as pool,
    ):
        stubs = connect(server)

        def send(i):
            if i % 6 == 5:
                with pytest.raises(grpc.RpcError) as caught:
                    stubs.prediction.Predict(request(np.zeros((9, 8, 8, 1), np.float32)), timeout=60)
                return caught.value.details()
            response = stubs.prediction.Predict(request(images[i : i + 1 + i % 3]), timeout=60)
            return tf.make_ndarray(response.outputs["probabilities"])

        found = list(pool.map(send, range(57)))
    loader = Loader(Settings("tiny", tmp_path, engine=engine))
    servable = loader("tiny", publish(2) / "2", False)
    for i, answer in enumerate(found):
        if i % 6 == 5:
            assert answer == "Task size 9 is larger than maximum input batch size 8"
        else:
            wanted = servable.run("serving_default", {"images": images[i : i + 1 + i % 3]}, ["probabilities"], Call())
            np.testing.assert_allclose(answer, wanted["probabilities"], atol=1e-6)


def test_one_undecodable_image_fails_alone(publish, png, tmp_path, monkeypatch):
    """In the SavedModel's own graph, where nothing is known before it runs."""
    ran = []
    run = SavedModelEngine.run
    monkeypatch.setattr(
        SavedModelEngine, "run", lambda self, *args: ran.append(len(args[1]["image_bytes"])) or run(self, *args)
    )
    file = tmp_path / "batching.config"
    file.write_text("max_batch_size { value: 3 } batch_timeout_micros { value: 20000000 }")
    loader = Loader(
        Settings("tiny", tmp_path, enable_batching=True, batching_parameters_file=file, engine="tensorflow")
    )
    servable = loader("tiny", publish() / "1", False)

    def send(data):
        return servable.run("encoded", {"image_bytes": np.array([data], object)}, ["scores"], Call())

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(send, data) for data in (png, b"no image", png)]
        with pytest.raises(StatusError, match="Unknown image file format"):
            futures[1].result(60)
        np.testing.assert_array_equal(futures[0].result(60)["scores"], futures[2].result(60)["scores"])
    loader.close()
    assert ran == [3, 1, 1, 1], "they ran again one by one"


def test_parameters_of_a_version(publish, tmp_path):
    base = publish(1, files={"batching_params.pbtxt": b"max_batch_size { value: 2 } num_batch_threads { value: 99 }"})
    publish(2)
    publish(3, files={"batching_params.pbtxt": b"max_batch_size: 2"})
    loader = Loader(Settings("tiny", base, enable_batching=True, enable_per_model_batching_parameters=True))
    images = {"images": np.zeros((3, 8, 8, 1), np.float32)}
    with pytest.raises(StatusError, match="Task size 3 is larger than maximum input batch size 2"):
        loader("tiny", base / "1", False).run("serving_default", images, ["probabilities"], Call())
    alone = loader("tiny", base / "2", False)
    assert alone._batcher is None
    assert alone.run("serving_default", images, ["probabilities"], Call())["probabilities"].shape == (3, 3)
    with pytest.raises(StatusError, match=r"Invalid protobuf file: '.*batching_params.pbtxt'"):
        loader("tiny", base / "3", False)
    loader.close()


def test_a_version_is_unloaded_after_its_queue(publish, connect, tmp_path):
    """Requests that wait for their batch belong to the version that they came to."""
    file = tmp_path / "batching.config"
    file.write_text("batch_timeout_micros { value: 3000000 }")
    base = publish(1)
    with ModelServer(
        "tiny",
        base,
        enable_batching=True,
        batching_parameters_file=file,
        file_system_poll_wait_seconds=0.05,
        enable_model_warmup=False,
    ) as server:
        stubs = connect(server)
        waiting = stubs.prediction.Predict.future(request(np.zeros((1, 8, 8, 1), np.float32)), timeout=60)
        time.sleep(0.3)
        publish(2)
        spec = get_model_status_pb2.GetModelStatusRequest()
        spec.model_spec.name = "tiny"
        seen, available, unloading = set(), 30, 40
        while {(2, available), (1, unloading)} - seen and not waiting.done():
            states = stubs.model.GetModelStatus(spec, timeout=60).model_version_status
            seen = {(status.version, status.state) for status in states}
        time.sleep(0.2)
        assert not waiting.done()
        states = stubs.model.GetModelStatus(spec, timeout=60).model_version_status
        assert [(status.version, status.state) for status in states] == [(2, available), (1, unloading)]
        assert waiting.result().model_spec.version.value == 1
