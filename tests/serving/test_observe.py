"""What a server counts and logs of real requests, and the id that it gives back."""

import io
import json
import logging
import os

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
from keraslight_serving.server import ModelServer
from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import StartError, StatusError
from keraslight_serving.server.calls.messages import Messages
from keraslight_serving.server.calls.service import Service
from keraslight_serving.server.rpc.security import REFUSAL
from keraslight_serving.server.telemetry import logging as _logging
from keraslight_serving.server.telemetry.logging import JsonFormatter, TextFormatter, log_request
from keraslight_serving.server.telemetry.metrics import path_of
from keraslight_serving.server.telemetry.tfrecord import to_record
from keraslight_serving.wire import methods, serving_pb2 as pb
from prometheus_client.parser import text_string_to_metric_families
from tensorflow_serving.apis import classification_pb2, inference_pb2, predict_pb2

IMAGE = np.zeros((1, 8, 8, 1), np.float32)


def predict(image=IMAGE, model="tiny", **spec):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    for name, value in spec.items():
        setattr(request.model_spec, name, value)
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(image))
    return request


def fail(call, request, **options):
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=60, **options)
    return caught.value


def shown(server):
    """{name{labels}: value}, histograms by their count alone."""
    lines = server.metrics.render().decode().splitlines()
    found = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in found if "_bucket{" not in name and "_sum{" not in name}


@pytest.fixture
def own(publish, connect):
    """A server and stubs of the test's own."""
    with ModelServer("tiny", publish(1)) as server:
        yield server, connect(server)


def _example(png):
    example = tf.train.Example()
    example.features.feature["image/encoded"].bytes_list.value.append(png)
    return example


def test_requests_are_counted(own, png):
    server, stubs = own
    for _ in range(3):
        stubs.prediction.Predict(predict(), timeout=60)
    fail(stubs.prediction.Predict, predict(np.zeros((1, 9, 9, 1), np.float32)))
    fail(stubs.prediction.Predict, predict(model="made up"))
    classification = classification_pb2.ClassificationRequest()
    classification.model_spec.name, classification.model_spec.signature_name = "tiny", "classify"
    classification.input.example_list.examples.extend([_example(png)] * 2)
    stubs.prediction.Classify(classification, timeout=60)
    inference = inference_pb2.MultiInferenceRequest(input=classification.input)
    inference.tasks.add(model_spec=classification.model_spec, method_name="tensorflow/serving/classify")
    stubs.prediction.MultiInference(inference, timeout=60)
    start = ":tensorflow:serving:"
    assert shown(server) == {
        start + 'request_count{model_name="tiny",status="OK"}': 4,
        start + 'request_count{model_name="tiny",status="INVALID_ARGUMENT"}': 1,
        start + 'request_count{model_name="made up",status="NOT_FOUND"}': 1,
        start + 'request_latency_count{model_name="tiny",API="Predict",entrypoint="GRPC"}': 3,
        start + 'request_latency_count{model_name="tiny",API="Classify",entrypoint="GRPC"}': 1,
        start + 'runtime_latency_count{model_name="tiny",API="Predict",runtime="LiteRT"}': 3,
        start + 'runtime_latency_count{model_name="tiny",API="Classify",runtime="TF1"}': 1,
        start + 'runtime_latency_count{model_name="tiny",API="MultiInference",runtime="TF1"}': 1,
        start + 'request_example_counts_count{model="tiny"}': 1,
        start + 'request_example_count_total{model="tiny"}': 2,
    }


def test_batches_and_warmups_are_counted(publish, connect, tmp_path):
    log = pb.PredictionLog()
    log.predict_log.request = predict().SerializeToString()
    base = publish(1, files={})
    (base / "1" / "assets.extra").mkdir()
    (base / "1" / "assets.extra" / "tf_serving_warmup_requests").write_bytes(to_record(log.SerializeToString()) * 2)
    parameters = tmp_path / "batching.config"
    parameters.write_text("max_batch_size { value: 4 } allowed_batch_sizes: 4 thread_pool_name { value: 'pool' }")
    options = {"enable_batching": True, "batching_parameters_file": parameters}
    with ModelServer("tiny", base, **options) as server:
        connect(server).prediction.Predict(predict(np.zeros((3, 8, 8, 1), np.float32)), timeout=60)
        found = shown(server)
    batching = ":tensorflow:serving:batching_session:"
    assert found[batching + 'queuing_latency_count{thread_pool_name="pool"}'] == 3  # two were for warmup
    assert found[batching + "wrapped_run_count{}"] == 3
    assert found[batching + 'padding_size_count{execution_batch_size="4"}'] == 3
    assert found[':keraslight:serving:queue_latency_count{model_name="tiny",engine="litert"}'] == 3
    assert found[':tensorflow:serving:request_count{model_name="tiny",status="OK"}'] == 1
    folder = base / "1"
    assert found[f':tensorflow:serving:model_warmup_records_read{{model_path="{folder}",status="OK"}}'] == 2
    assert found[f':tensorflow:serving:model_warmup_latency_count{{model_path="{folder}",status="OK"}}'] == 1


def test_the_time_of_a_request_holds_the_time_of_the_engine(own):
    server, stubs = own
    stubs.prediction.Predict(predict(), timeout=60)
    sums = {}
    for line in server.metrics.render().decode().splitlines():
        name, _, value = line.partition("{")
        if name.endswith("_sum"):
            sums[name] = float(value.rpartition(" ")[2])
    assert 0 < sums[":tensorflow:serving:runtime_latency_sum"] < sums[":tensorflow:serving:request_latency_sum"] < 60e6


@pytest.mark.parametrize("surprise", [RuntimeError("boom"), MemoryError(), RecursionError("deep")])
def test_a_surprise_is_an_internal_error_however_it_came_in(surprise, caplog):
    class Broken:
        def acquire(self, spec):
            raise surprise

        runs_in = acquire

    service = Service(Broken())
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="tiny"))
    with pytest.raises(StatusError) as caught:
        Messages(service).answer(methods.PREDICT, request, Call(entrypoint="GRPC"))
    assert caught.value.code == grpc.StatusCode.INTERNAL
    assert caught.value.text == f"{type(surprise).__name__}: {surprise}"
    assert b'request_count{model_name="tiny",status="INTERNAL"} 1' in service.observer.metrics.render()
    assert "Predict failed" in caplog.text


def test_a_call_that_nobody_waits_for_is_not_begun(own):
    server, _ = own
    service = Service(server._repository)
    request = pb.PredictRequest.FromString(predict().SerializeToString())
    with pytest.raises(StatusError, match="The caller is gone"):
        Messages(service).answer(methods.PREDICT, request, Call(is_active=lambda: False))
    with pytest.raises(StatusError, match="Timed out waiting for notification"):
        Messages(service).answer(methods.PREDICT, request, Call(deadline=0.0))
    assert b"runtime_latency" not in service.observer.metrics.render()


def test_rest_counts_for_itself(own):
    server, _ = own
    service = Service(server._repository)
    request = pb.PredictRequest.FromString(predict().SerializeToString())
    Messages(service).answer(methods.PREDICT, request, Call(entrypoint="REST"))
    service.observer.metrics.rest_request("tiny", "predict", grpc.StatusCode.OK, 0.5)
    service.observer.metrics.rest_request("tiny", "predict", grpc.StatusCode.INVALID_ARGUMENT, 0.5)
    text = service.observer.metrics.render().decode()
    start = ":tensorflow:serving:"
    assert f'{start}runtime_latency_count{{model_name="tiny",API="Predict",runtime="LiteRT"}} 1' in text
    assert f'{start}request_latency_count{{model_name="tiny",API="predict",entrypoint="REST"}} 1' in text
    assert f'{start}request_count{{model_name="tiny",status="OK"}} 1' in text
    assert f'{start}request_count{{model_name="tiny",status="INVALID_ARGUMENT"}} 1' in text


@pytest.fixture
def over_http(publish, tmp_path):
    """A server with REST, metrics and a token, and an httpx client to it."""
    config, tokens = tmp_path / "monitoring.config", tmp_path / "tokens"
    config.write_text("prometheus_config { enable: true }")
    tokens.write_text("secret")
    options = {"monitoring_config_file": config, "auth_token_file": tokens, "rest_api_port": 0}
    with (
        ModelServer("tiny", publish(1), **options) as server,
        httpx.Client(base_url=server.rest_address, headers={"Authorization": "Bearer secret"}) as client,
    ):
        yield client


def test_metrics_over_http(over_http):
    url = "/v1/models/tiny:predict"
    over_http.post(url, json={"instances": IMAGE.tolist()}).raise_for_status()
    assert over_http.post(url, json={"instances": [[1]]}).status_code == 400
    assert over_http.post(url, content="no json").status_code == 400
    page = httpx.get(over_http.base_url.join("/monitoring/prometheus/metrics"))  # no token: scrapers have none
    assert (page.status_code, page.headers["content-type"].split(";")[0]) == (200, "text/plain")
    lines = page.text.splitlines()
    start = ":tensorflow:serving:"
    assert f'{start}request_count{{model_name="tiny",status="OK"}} 1' in lines
    assert f'{start}request_count{{model_name="tiny",status="INVALID_ARGUMENT"}} 2' in lines
    assert f'{start}request_latency_count{{model_name="tiny",API="predict",entrypoint="REST"}} 1' in lines
    assert f'{start}runtime_latency_count{{model_name="tiny",API="Predict",runtime="LiteRT"}} 1' in lines


def test_tokens_over_http(over_http):
    for header in ("Bearer third", ""):
        answer = over_http.get("/v1/models/tiny", headers={"Authorization": header})
        assert (answer.status_code, answer.json()["error"]) == (401, REFUSAL)
    assert over_http.get("/v1/models/tiny").status_code == 200


def test_ids_over_http(over_http, caplog):
    caplog.set_level(logging.DEBUG, "keraslight_serving.server.requests")
    answer = over_http.get("/v1/models/tiny", headers={"x-request-id": "order-7"})
    assert answer.headers["x-request-id"] == "order-7"
    assert (
        over_http.get("/v1/models/no/where", headers={"x-request-id": "order-8"}).headers["x-request-id"] == "order-8"
    )
    assert len(over_http.get("/v1/models/tiny").headers["x-request-id"]) == 16
    (record, _) = caplog.records
    assert (record.request["request_id"], record.request["entrypoint"]) == ("order-7", "REST")
    assert record.request["peer"].startswith("127.0.0.1:")


def test_metrics_without_rest_are_warned_of(publish, tmp_path, caplog):
    config = tmp_path / "monitoring.config"
    config.write_text("prometheus_config { enable: true }")
    with ModelServer("tiny", publish(1), monitoring_config_file=config):
        pass
    assert "Metrics are published on the REST port: set `rest_api_port`, too" in caplog.text


# ---------------------------------------------------------------- bytes that are no message


@pytest.mark.parametrize(
    "data", [b"\xff\xff\xff", b"\x0a\xff\xff\xff\xff\x07", b"\x0a\x05ab"], ids=["tag", "2 GiB", "cut"]
)
def test_bytes_that_are_no_message(own, data, caplog):
    server, stubs = own
    call = stubs.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    with caplog.at_level(logging.INFO, "keraslight_serving"):
        error = fail(call, data)
    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "Exception deserializing request!")
    assert [(record.levelname, record.exc_info) for record in caplog.records] == [("INFO", None)]  # no traceback
    assert stubs.prediction.Predict(predict(), timeout=60).outputs
    assert not any("INTERNAL" in name for name in shown(server))  # as in TensorFlow Serving: no model, no count


def test_a_flood_of_bytes_that_are_no_request(own):
    """Noise, cut messages, and messages with a byte changed: each is answered, and the next caller, too."""
    server, stubs = own
    generator = np.random.default_rng(5)
    whole = predict().SerializeToString()
    flood = [generator.bytes(generator.integers(1, 60)) for _ in range(500)]
    flood += [whole[: generator.integers(1, len(whole))] for _ in range(500)]
    for _ in range(1000):
        changed = bytearray(whole)
        changed[generator.integers(0, 40)] = generator.integers(0, 256)
        flood.append(bytes(changed))
    call = stubs.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    futures = []
    for start in range(0, len(flood), 100):  # more at once than it keeps open, and it refuses some
        futures += [call.future(data, timeout=60) for data in flood[start : start + 100]]
        for future in futures[start:]:
            future.code()
    codes = {future.code() for future in futures}
    # OK: the changed byte may be in a name that nobody looks at, or in a pixel
    assert codes <= {
        grpc.StatusCode.OK,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
    }
    wrong = {future.details() for future in futures if future.code() == grpc.StatusCode.INTERNAL}
    assert wrong == {"Exception deserializing request!"}  # nothing that surprised the server
    assert stubs.prediction.Predict(predict(), timeout=60).outputs
    text = server.metrics.render().decode()  # and whatever they called their models, Prometheus can read it
    assert len(list(text_string_to_metric_families(text))) >= 3


def test_an_empty_message_is_one(own):
    _, stubs = own
    error = fail(stubs.channel.unary_unary("/tensorflow.serving.PredictionService/Predict"), b"")
    assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")


def test_unknown_methods_and_services(own):
    _, stubs = own
    for path in ("/tensorflow.serving.PredictionService/Guess", "/tensorflow.serving.SessionService/SessionRun"):
        error = fail(stubs.channel.unary_unary(path), b"\xff")
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED


# ---------------------------------------------------------------- ids


def test_the_id_of_a_request_comes_back(own, caplog):
    _, stubs = own
    caplog.set_level(logging.DEBUG, "keraslight_serving.server.requests")
    _, call = stubs.prediction.Predict.with_call(predict(), timeout=60, metadata=(("x-request-id", "order-7"),))
    assert dict(call.trailing_metadata())["x-request-id"] == "order-7"
    error = fail(stubs.prediction.Predict, predict(model="x"), metadata=(("x-request-id", "order-8"),))
    assert dict(error.trailing_metadata())["x-request-id"] == "order-8"
    assert [record.request["request_id"] for record in caplog.records] == ["order-7", "order-8"]


@pytest.mark.parametrize("sent", [None, "", "with blanks", "x" * 129])
def test_an_id_is_made_where_none_of_use_is_sent(own, sent):
    _, stubs = own
    metadata = () if sent is None else (("x-request-id", sent),)
    ids = set()
    for _ in range(2):
        _, call = stubs.prediction.Predict.with_call(predict(), timeout=60, metadata=metadata)
        ids.add(dict(call.trailing_metadata())["x-request-id"])
    assert len(ids) == 2
    assert {len(made) for made in ids} == {16}


# ---------------------------------------------------------------- lines


def test_a_line_a_request(own, caplog):
    _, stubs = own
    caplog.set_level(logging.DEBUG, "keraslight_serving.server.requests")
    stubs.prediction.Predict(predict(), timeout=60)
    fail(stubs.prediction.Predict, predict(model="x", version_label="best"))
    good, bad = caplog.records
    assert (good.levelname, bad.levelname) == ("DEBUG", "INFO")
    assert good.request["milliseconds"] > 0
    assert good.request["peer"].startswith("ipv4:127.0.0.1:")
    for fields in (good.request, bad.request):
        for name in ("milliseconds", "peer", "request_id"):
            del fields[name]
    assert good.request == {
        "api": "Predict",
        "model": "tiny",
        "version": 1,
        "signature": "serving_default",
        "code": "OK",
        "entrypoint": "GRPC",
    }
    assert bad.request == {
        "api": "Predict",
        "model": "x",
        "version": "best",
        "code": "INVALID_ARGUMENT",
        "entrypoint": "GRPC",
        "text": "Unrecognized servable version label: best",
    }


@pytest.fixture
def lines():
    """`lines(formatter)` logs to a list of lines until the test is over."""
    handlers = []

    def record(formatter):
        stream = io.StringIO()
        handlers.append(logging.StreamHandler(stream))
        handlers[-1].setFormatter(formatter)
        _logging.requests.addHandler(handlers[-1])
        return stream

    level = _logging.requests.level
    _logging.requests.setLevel(logging.DEBUG)
    yield record
    _logging.requests.setLevel(level)
    for handler in handlers:
        _logging.requests.removeHandler(handler)


CALL = Call(id="ab12", entrypoint="REST", peer="ipv4:10.0.0.7:5")


def test_text(lines):
    stream = lines(TextFormatter())
    log_request(CALL, "Predict", "OK", 0.0123456, model="tiny", version=1, signature="encoded")
    log_request(CALL, "Predict", "NOT_FOUND", 0, model='a "b"\nERROR c', version="", signature="", text="x" * 1000)
    first, second = stream.getvalue().splitlines()
    assert first.split(" ", 1)[1] == (
        f"DEBUG [{os.getpid()}] Predict OK request_id=ab12 api=Predict model=tiny version=1 signature=encoded code=OK "
        "milliseconds=12.346 peer=ipv4:10.0.0.7:5 entrypoint=REST"
    )
    assert ' model="a \\"b\\"\\nERROR c" ' in second
    assert second.endswith(f"text={'x' * 300}...")


def test_json(lines):
    stream = lines(JsonFormatter())
    log_request(CALL, "Regress", "INTERNAL", 0.5, model="tïny\n", version=2, signature="s", text="boom")
    found = json.loads(stream.getvalue())
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "WARNING",
        "process": os.getpid(),
        "logger": "keraslight_serving.server.requests",
        "message": "Regress INTERNAL",
        "request_id": "ab12",
        "api": "Regress",
        "model": "tïny\n",
        "version": 2,
        "signature": "s",
        "code": "INTERNAL",
        "milliseconds": 500.0,
        "peer": "ipv4:10.0.0.7:5",
        "entrypoint": "REST",
        "text": "boom",
    }


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_tracebacks(lines, formatter):
    stream = lines(formatter)
    try:
        raise ValueError("boom")
    except ValueError:
        _logging.requests.exception("%s failed", "Predict")
    text = stream.getvalue()
    assert "Predict failed" in text
    assert "ValueError: boom" in text
    if isinstance(formatter, JsonFormatter):
        assert "Traceback" in json.loads(text)["exception"]


@pytest.fixture
def package_log():
    """Puts the package's logger back as it was."""
    package = logging.getLogger("keraslight_serving")
    before = package.handlers[:], package.level, package.propagate
    yield package
    package.handlers[:], package.level, package.propagate = before[0], before[1], before[2]


def test_a_server_sends_its_log_to_stderr(publish, connect, capfd, package_log):
    base = publish(1)
    for _ in range(2):  # twice: lines must not come twice
        server = ModelServer("tiny", base, log_format="json", log_level="debug")
    with server:
        connect(server).prediction.Predict(predict(), timeout=60)
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    assert [line["code"] for line in lines if line["message"] == "Predict OK"] == ["OK"]
    assert "Serving tiny version 1" in [line["message"] for line in lines]


def test_choices():
    with pytest.raises(ValueError, match="`log_format` must be one of text, json. Received: 'xml'"):
        ModelServer("tiny", ".", log_format="xml")
    with pytest.raises(ValueError, match="`log_level` must be one of debug, info, warning, error. Received: 'loud'"):
        ModelServer("tiny", ".", log_format="text", log_level="loud")


# ---------------------------------------------------------------- monitoring_config_file


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", None),
        ("prometheus_config { enable: false path: '/metrics' }", None),
        ("prometheus_config { enable: true }", "/monitoring/prometheus/metrics"),
        ('prometheus_config: { enable: true path: "/metrics" }  # ours', "/metrics"),
    ],
)
def test_where_metrics_are_served(tmp_path, text, path):
    file = tmp_path / "monitoring.config"
    file.write_text(text)
    assert path_of(file) == path


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (None, "`monitoring_config_file` must be a readable text file. Received: "),
        (b"\xff\xfe", "`monitoring_config_file` must be a readable text file. Received: "),
        (
            b"prometheus { }",
            "(?s)Invalid protobuf file: .*Error parsing text-format tensorflow.serving.MonitoringConfig",
        ),
        (b"prometheus_config { enable: true path: 'metrics' }", "`path` .* must begin with a slash. Received: metrics"),
    ],
)
def test_a_monitoring_file_that_can_not_be_used(publish, tmp_path, data, text):
    file = tmp_path / "monitoring.config"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(StartError, match=text):
        ModelServer("tiny", publish(1), monitoring_config_file=file).start()
