"""The REST API, over HTTP."""

import base64
import contextlib
import gzip
import json
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent import futures

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import json_format
from keraslight_serving.server import ModelServer, StartError
from keraslight_serving.server.base.budget import Budget
from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import StatusError
from keraslight_serving.server.rest import Handler, RestApp, RestServer
from keraslight_serving.server.rest._handler import read_url
from keraslight_serving.wire.tensors import to_tensor
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

CODE = grpc.StatusCode


@pytest.fixture(scope="module")
def http(server):
    with httpx.Client(base_url=server.rest_address, trust_env=False, timeout=60) as client:
        yield client


def error(answer):
    """The text of an error, whose layout is checked by the way."""
    assert answer.headers["content-type"] == "application/json"
    text = answer.json()["error"]
    assert answer.text == f'{{\n    "error": {json.dumps(text, ensure_ascii=False)}\n}}'
    return text


# ---------------------------------------------------------------- answers


@pytest.fixture(scope="module")
def over_grpc(server, pixels):
    """The probabilities of `pixels`, asked for over gRPC."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    request.inputs["images"].ParseFromString(to_tensor(pixels.astype(np.float32)).SerializeToString())
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary(
            "/tensorflow.serving.PredictionService/Predict",
            request_serializer=predict_pb2.PredictRequest.SerializeToString,
            response_deserializer=predict_pb2.PredictResponse.FromString,
        )
        return tf.make_ndarray(call(request).outputs["probabilities"])


@pytest.mark.parametrize(
    ("document", "key"),
    [
        (lambda images: {"instances": images}, "predictions"),
        (lambda images: {"instances": [{"images": image} for image in images]}, "predictions"),
        (lambda images: {"signature_name": "serving_default", "inputs": images}, "outputs"),
        (lambda images: {"inputs": {"images": images}}, "outputs"),
    ],
    ids=["rows", "rows with names", "columns", "columns with names"],
)
def test_predict_as_over_grpc(http, over_grpc, pixels, document, key):
    answer = http.post("/v1/models/tiny:predict", json=document(pixels.tolist()))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert list(answer.json()) == [key]
    np.testing.assert_array_equal(np.float32(answer.json()[key]), over_grpc)


def test_encoded_images(http, png):
    image = {"b64": base64.b64encode(png).decode()}
    by_row = http.post("/v1/models/tiny:predict", json={"signature_name": "encoded", "instances": [image, image]})
    rows = by_row.json()["predictions"]
    assert set(rows[0]) == {"classes", "scores", "indices", "probabilities"}
    assert rows[0] == rows[1]
    by_column = http.post("/v1/models/tiny:predict", json={"signature_name": "encoded", "inputs": [image]})
    columns = {name: values[0] for name, values in by_column.json()["outputs"].items()}
    # On some CPUs one image and two go through kernels whose sums differ in the last digit.
    for name in ("scores", "probabilities"):
        assert columns.pop(name) == pytest.approx(rows[0][name], rel=1e-6)
    assert columns == {name: rows[0][name] for name in ("classes", "indices")}
    assert rows[0]["classes"][0] == ["cat", "dog", "eel"][rows[0]["indices"][0]]


@pytest.fixture(scope="module")
def example(png):
    return {"image/encoded": {"b64": base64.b64encode(png).decode()}}


def test_classify(http, example):
    answer = http.post("/v1/models/tiny:classify", json={"signature_name": "classify", "examples": [example]})
    ((best, second),) = answer.json()["results"]
    assert best[1] > second[1]
    assert {best[0], second[0]} < {"cat", "dog", "eel"}
    assert answer.text.startswith('{\n    "results": [[["')


def test_regress(http, example, pixels):
    sent = {"signature_name": "regress", "context": example, "examples": [{}]}
    answer = http.post("/v1/models/tiny/versions/1:regress", json=sent)
    assert answer.json() == {"results": [pytest.approx(pixels[0].mean(), abs=1e-3)]}
    assert answer.text.startswith('{\n    "results": [')
    assert answer.text.endswith("]\n}")


def test_status(http):
    answer = http.get("/v1/models/tiny")
    status = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert answer.json() == {"model_version_status": [status]}
    read = json_format.Parse(answer.text, get_model_status_pb2.GetModelStatusResponse())
    assert read.model_version_status[0].version == 1
    for path in ("/v1/models/tiny/versions/1", "/V1/Models/tiny/VERSIONS/001", "/v1/models/t%69ny?pretty"):
        assert http.get(path).json() == answer.json()


def test_metadata(http):
    answer = http.get("/v1/models/tiny/metadata")
    document = answer.json()
    assert document["model_spec"] == {"name": "tiny", "signature_name": "", "version": "1"}
    described = document["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert described["inputs"]["images"] == {
        "name": "serving_default_images:0",
        "dtype": "DT_FLOAT",
        "tensor_shape": {
            "dim": [{"size": size, "name": ""} for size in ("-1", "8", "8", "1")],
            "unknown_rank": False,
        },
    }
    assert described["method_name"] == "tensorflow/serving/predict"
    assert described["defaults"] == {}
    read = json_format.ParseDict(document["metadata"]["signature_def"], get_model_metadata_pb2.SignatureDefMap())
    assert "classify" in read.signature_def
    assert http.get("/v1/models/tiny/versions/1/METADATA").text == answer.text


# ---------------------------------------------------------------- errors

PREDICT = "/v1/models/tiny:predict"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("POST", "/v1/models/tiny", "{}", 400, "Malformed request: POST /v1/models/tiny"),
        ("GET", PREDICT, None, 400, "Malformed request: GET /v1/models/tiny:predict"),
        ("PUT", PREDICT, "{}", 400, "Malformed request: PUT /v1/models/tiny:predict"),
        ("POST", "/v1/models/tiny:explain", "{}", 400, "Malformed request: POST /v1/models/tiny:explain"),
        ("POST", "/v1/models/tiny/versions/one:predict", "{}", 400, "Malformed request: POST /v1/models/tiny/versions/"
         "one:predict"),
        ("POST", "/v1/models/tiny/versions/1/labels/x:predict", "{}", 400, "Malformed request: POST /v1/models/tiny/"
         "versions/1/labels/x:predict"),
        ("GET", "/v1/", None, 400, "Malformed request: GET /v1/"),
        ("GET", "/v1/models", None, 400, "Missing model name in request."),
        ("GET", "/v1/models/versions/1", None, 400, "Missing model name in request."),
        ("GET", "/v1/models/a%ff", None, 400, "Failed to decode model name:a%ff"),
        ("GET", "/v1/models/tiny/versions/9223372036854775808", None, 400,
         "Failed to convert version: 9223372036854775808 to numeric."),
        ("GET", f"/v1/models/tiny/versions/{'9' * 5000}", None, 400, f"Failed to convert version: {'9' * 5000} to "
         "numeric."),
        ("GET", "/v1/models/other", None, 404, "Could not find any versions of model other"),
        ("GET", "/v1/models/tiny/versions/2", None, 404, "Could not find version 2 of model tiny"),
        ("GET", "/v1/models/other/metadata", None, 404, "Servable not found for request: Latest(other)"),
        ("GET", "/v1/models/tiny/labels/a%20b/metadata", None, 400, "Unrecognized servable version label: a b"),
        ("POST", "/v1/models/no:predict", '{"instances": [1]}', 404, "Servable not found for request: Latest(no)"),
        ("POST", "/v1/models/tiny/versions/2:predict", '{"inputs": 1}', 404, "Servable not found for request: "
         "Specific(tiny, 2)"),
        ("POST", "/v1/models/tiny/labels/stable:predict", '{"inputs": 1}', 400, "Unrecognized servable version label: "
         "stable"),
        ("POST", "/v1/models/other:predict", "", 400, "JSON Parse error: The document is empty"),
        ("POST", PREDICT, "[1]", 400, "JSON Value: [1] Is not object"),
        ("POST", PREDICT, '{"signature_name": 5}', 400, 'JSON Value: {\n    "signature_name": 5\n} not formatted '
         "correctly. 'signature_name' key must be a string value."),
        ("POST", PREDICT, '{"signature_name": "s"}', 400, 'Serving signature name: "s" not found in signature def'),
        ("POST", PREDICT, "{}", 400, "Missing 'inputs' or 'instances' key"),
        ("POST", PREDICT, '{"inputs": 1, "instances": 2}', 400, 'JSON Value: {\n    "inputs": 1,\n    "instances": 2\n}'
         " Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "),
        ("POST", PREDICT, '{"instances": 1}', 400, 'JSON Value: {\n    "instances": 1\n} Expecting \'instances\' to be '
         "an list/array"),
        ("POST", PREDICT, '{"instances": []}', 400, 'JSON Value: {\n    "instances": []\n} No values in \'instances\' '
         "array"),
        ("POST", PREDICT, '{"instances": [[1]]}', 400, 'Input "images" must have 4 dimensions, [-1,8,8,1]. Received: 2 '
         "dimensions, [1,1]"),
        ("POST", PREDICT, '{"signature_name": "encoded", "inputs": ["no image"]}', 400, "Unknown image file format."),
        ("POST", "/v1/models/tiny:classify", '{"examples": [{}]}', 400, "No classification inputs found in "
         "SignatureDef: "),
        ("POST", "/v1/models/tiny:classify", '{"signature_name": "s", "examples": [{}]}', 400,
         "No signature was found with the name: s"),
        ("POST", "/v1/models/tiny:regress", "{}", 400, "JSON Value: {} When method is classify, key 'examples' is "
         "expected and was not found"),
        ("POST", PREDICT, '{"x": ' + "[" * 500_000 + "]" * 500_000 + "}", 400, "JSON Parse error: The document is "
         "nested too deeply"),
    ],
)  # fmt: skip
def test_errors(http, method, path, body, status, text):
    answer = http.request(method, path, content=body)
    assert answer.status_code == status
    assert error(answer).startswith(text)


def test_outside_of_the_api(http):
    answer = http.get("/")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert http.get("/monitoring/prometheus/metrics").status_code == 404


# ---------------------------------------------------------------- HTTP


class App:
    """A REST server over the same models, with options of the test's."""

    def __init__(self, server):
        self._server, self._servers = server, []

    def __call__(self, *, handler=None, **options):
        handler = handler or Handler(self._server._service)
        app = RestApp(handler, **{"timeout": 30, "threads": 2, **options})
        server = RestServer(app, "127.0.0.1", 0)
        server.start()
        self._servers.append(server)
        return server

    def close(self):
        for server in self._servers:
            server.stop(None)


@pytest.fixture
def serve(server):
    made = App(server)
    yield made
    made.close()


def at(server, **options):
    return httpx.Client(base_url=f"http://127.0.0.1:{server.port}", trust_env=False, timeout=30, **options)


class Slow:
    """A handler whose answers take as many seconds as the body says, if they are not released before.

    It remembers whether anybody was still there.
    """

    def __init__(self):
        self.started, self.there = [], []
        self.release, self.left = threading.Event(), threading.Semaphore(0)

    def answer(self, asked, body, call):
        self.started.append(asked.api)
        self.release.wait(float(body))
        try:
            call.check()
        except StatusError as error:
            self.there.append(error.code)
            raise
        finally:
            self.left.release()
        self.there.append(CODE.OK)
        return "{}"


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_gzip(http, pixels, serve):
    body = json.dumps({"instances": pixels.tolist()}).encode()
    packed = {"Content-Encoding": "gzip"}
    plain = http.post(PREDICT, content=body)
    assert http.post(PREDICT, content=gzip.compress(body), headers=packed).text == plain.text
    for bad, reason in ((body, "incorrect header check"), (gzip.compress(body)[:-9], "one that is cut off")):
        answer = http.post(PREDICT, content=bad, headers=packed)
        assert answer.status_code == 400
        assert reason in error(answer)
    bomb = gzip.compress(bytes(1_000_000))
    with at(serve(max_body=1000 + len(bomb))) as client:
        answer = client.post(PREDICT, content=bomb, headers=packed)
        assert answer.status_code == 413
        assert error(answer) == f"A request's body must have at most {1000 + len(bomb)} bytes. Received: more"


def test_large_bodies(serve):
    with at(serve(max_body=1000)) as client:
        assert client.post(PREDICT, content=b" " * 1000).status_code == 400  # empty of JSON
        answer = client.post(PREDICT, content=b" " * 1001)
        assert answer.status_code == 413
        assert error(answer) == "A request's body must have at most 1000 bytes. Received: more"
        # Without a length: chunked.
        assert client.post(PREDICT, content=iter([b" " * 600] * 2)).status_code == 413
    with socket.create_connection(("127.0.0.1", serve().port)) as connection:
        connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {2**31}\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_large_bodies_are_read_one_at_a_time(server, monkeypatch):
    monkeypatch.setattr("keraslight_serving.server.rest._handler.LARGE", 100)
    handler = Handler(server._service)
    asked = read_url("POST", PREDICT)
    small = json.dumps({"inputs": 1}).encode()
    with handler._one_large:
        with pytest.raises(StatusError, match="must have 4 dimensions"):
            handler.answer(asked, small, Call())
        for api in ("predict", "classify", "regress"):
            call = Call(deadline=time.monotonic() + 0.05)
            with pytest.raises(StatusError, match="Timed out waiting for notification"):
                handler.answer(asked._replace(api=api), small + b" " * 100, call)
    with pytest.raises(StatusError, match="must have 4 dimensions"):
        handler.answer(asked, small + b" " * 100, Call())


def test_all_bodies_together_are_bounded(serve):
    budget = Budget(400_000)
    server = serve(budget=budget)
    with socket.create_connection(("127.0.0.1", server.port)) as slow, at(server) as client:
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 300001\r\n\r\n"
        slow.sendall(head.encode() + b" " * 300_000)
        until(lambda: client.post(PREDICT, content=b" " * 150_000).status_code == 429)
        answer = client.post(PREDICT, content=b" " * 150_000)
        assert "The bodies of one sender must have at most 200000 bytes" in error(answer)
        slow.sendall(b" ")
        assert slow.recv(100).startswith(b"HTTP/1.1 400 ")
        assert client.post(PREDICT, content=b" " * 150_000).status_code == 400  # there is room again
        budget.take(300_000)  # by others
        answer = client.post(PREDICT, content=b" " * 150_000)
        assert "The bodies of all requests must have at most 400000 bytes" in error(answer)
        assert client.post(PREDICT, content=b" " * 50_000).status_code == 400


def test_cors(http, serve):
    origin = {"Origin": "https://example.org"}
    assert http.options(PREDICT, headers=origin).status_code == 200
    answer = http.options(PREDICT)
    assert answer.status_code == 400
    assert error(answer) == "Origin header is missing in CORS preflight"
    assert "access-control-allow-origin" not in http.get("/v1/models/tiny", headers=origin).headers
    with at(serve(cors=True)) as client:
        for answer in (client.get("/v1/models/tiny"), client.options(PREDICT, headers=origin), client.get("/v1/x")):
            assert answer.headers["access-control-allow-origin"] == "*"
            assert answer.headers["access-control-allow-methods"] == "POST, GET"
            assert answer.headers["access-control-allow-headers"] == "Content-Type, Authorization"


def test_metrics(serve):
    pages = iter([b"# TYPE a counter\n"])
    with at(serve(metrics=lambda: next(pages))) as client:
        answer = client.get("/monitoring/prometheus/metrics")
        assert (answer.status_code, answer.content) == (200, b"# TYPE a counter\n")
        assert answer.headers["content-type"].startswith("text/plain")
        assert client.get("/monitoring/prometheus/metrics").status_code == 500  # it ends, not the server
    with at(serve(metrics=lambda: b"page", metrics_path="/m")) as client:
        assert client.get("/m").content == b"page"


def test_authorization_and_observation(serve):
    def authorize(header):
        if header != "Bearer key":
            raise StatusError(CODE.UNAUTHENTICATED, "no key")

    seen = []
    with at(serve(authorize=authorize, observe=lambda *event: seen.append(event))) as client:
        answer = client.get("/v1/models/tiny")
        assert (answer.status_code, error(answer)) == (401, "no key")
        assert client.get("/v1/models/tiny", headers={"Authorization": "Bearer key"}).status_code == 200
        client.post("/v1/models/no:predict", content="{}", headers={"Authorization": "Bearer key"})
        client.get("/v1/x")
    assert [event[:3] for event in seen] == [
        ("tiny", "status", CODE.UNAUTHENTICATED),
        ("tiny", "status", CODE.OK),
        ("no", "predict", CODE.NOT_FOUND),
        ("", "", CODE.INVALID_ARGUMENT),
    ]
    assert all(0 <= event[3] < 30 for event in seen)


def test_whatever_a_handler_raises(serve):
    class Broken:
        def answer(self, asked, body, call):
            raise {"status": KeyError("x"), "metadata": RecursionError()}[asked.api]

    with at(serve(handler=Broken())) as client:
        answer = client.get("/v1/models/tiny")
        assert (answer.status_code, error(answer)) == (500, "KeyError: 'x'")
        assert client.get("/v1/models/tiny/metadata").status_code == 400


def test_deadline(serve):
    slow = Slow()
    with at(serve(handler=slow, timeout=0.2)) as client:
        began = time.monotonic()
        answer = client.post(PREDICT, content="20")
        assert time.monotonic() - began < 10
        assert (answer.status_code, error(answer)) == (504, "Timed out waiting for notification")
    slow.release.set()
    assert slow.left.acquire(timeout=10)
    assert slow.there == [CODE.DEADLINE_EXCEEDED]


def test_requests_that_wait_in_vain_are_dropped(serve):
    slow = Slow()
    server = serve(handler=slow, threads=1, timeout=0.3)
    with at(server) as client, futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: client.post(PREDICT, content="20").status_code, range(4)))
    assert answers == [504] * 4
    slow.release.set()
    assert slow.left.acquire(timeout=10)
    assert slow.started == ["predict"]  # the others never got the thread


def test_clients_that_leave(serve):
    slow, seen = Slow(), []
    server = serve(handler=slow, observe=lambda *event: seen.append(event[2]))
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n".encode()
    for sent, known in ((head[:20], 0), (head + b"2", 1), (head + b"20", 2)):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(sent)
            until(lambda known=known: known < 2 or slow.started)
        until(lambda known=known: len(seen) == known)
    slow.release.set()
    assert slow.left.acquire(timeout=10)
    assert slow.there == [CODE.CANCELLED]
    with at(server) as client:
        assert client.post(PREDICT, content="0").status_code == 200
    assert seen == [CODE.CANCELLED, CODE.CANCELLED, CODE.OK]


def test_slow_clients_hold_nobody_up(serve):
    """Twenty clients send a byte now and then; with two threads, all others are answered as ever."""
    server = serve(threads=2)
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
    try:
        for connection in slow:
            connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n".encode())
        with at(server) as client:
            for _ in range(10):
                for connection in slow[:5]:
                    connection.sendall(b" ")
                began = time.monotonic()
                assert client.get("/v1/models/tiny").status_code == 200
                assert time.monotonic() - began < 10
    finally:
        for connection in slow:
            connection.close()


def test_silent_clients_are_given_up(serve, monkeypatch):
    monkeypatch.setattr("keraslight_serving.server.rest._app.IDLE_SECONDS", 0.1)
    with socket.create_connection(("127.0.0.1", serve().port)) as connection:
        connection.settimeout(10)
        connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 504 ")


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",  # TLS
        b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
        b"\x00" * 1000,
    ],
)
def test_what_is_no_http(http, server, sent):
    with socket.create_connection(("127.0.0.1", int(server.rest_address.rpartition(":")[2]))) as connection:
        connection.settimeout(10)
        connection.sendall(sent)
        with contextlib.suppress(ConnectionResetError):  # it may hang up before all is sent
            assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
    assert http.get("/v1/models/tiny").status_code == 200


def test_thousand_bad_bodies(http, png):
    """Bytes changed and cut at random, in a body that was good: any answer but a wrong one, and none from a crash."""
    image = {"b64": base64.b64encode(png).decode()}
    good = json.dumps({"signature_name": "encoded", "instances": [image]}).encode()
    generator = np.random.default_rng(5)
    codes = set()
    for _ in range(1000):
        body = bytearray(good)
        for place in generator.integers(0, len(body), generator.integers(1, 4)):
            body[place] = generator.integers(0, 256)
        if generator.random() < 0.3:
            del body[generator.integers(1, len(body)) :]
        codes.add(http.post(PREDICT, content=bytes(body)).status_code)
    assert codes <= {200, 400}
    assert 400 in codes
    assert http.post(PREDICT, content=good).status_code == 200


# ---------------------------------------------------------------- start and stop


def test_answers_are_not_delayed(server):
    assert server._rest._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_stopping_lets_requests_finish(serve):
    slow = Slow()
    server = serve(handler=slow)
    with at(server) as client, futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.post, PREDICT, content="0.5")
        until(lambda: slow.started)
        port = server.port
        server.stop(20)
        assert answer.result().status_code == 200
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port))
    server.stop(10)


def test_stopping_waits_no_longer_than_its_grace(serve):
    slow = Slow()
    server = serve(handler=slow)
    with (
        socket.create_connection(("127.0.0.1", server.port)) as idle,
        at(server) as client,
        futures.ThreadPoolExecutor(1) as pool,
    ):
        idle.sendall(b"POST / HT")
        answer = pool.submit(client.post, PREDICT, content="20")
        until(lambda: slow.started)
        began = time.monotonic()
        server.stop(0.2)
        assert time.monotonic() - began < 10
        slow.release.set()
        assert answer.result().status_code == 503
        assert error(answer.result()) == "The server is shutting down"


def test_the_model_server_stops_both(version_folder):
    server = ModelServer("tiny", version_folder.parent, rest_api_port=0)
    with pytest.raises(RuntimeError, match="has a REST address once it is started. Received: none"):
        _ = server.rest_address
    with server:
        address = server.rest_address
        assert httpx.get(f"{address}/v1/models/tiny", trust_env=False).status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/v1/models/tiny", trust_env=False)


def test_arguments(version_folder, server):
    for options, text in (
        ({"rest_api_port": -1}, "`rest_api_port` must be between 0 and 65535. Received: -1"),
        ({"rest_api_timeout_in_ms": -1}, "`rest_api_timeout_in_ms` must be at least 0. Received: -1"),
        ({"rest_api_num_threads": 0}, "`rest_api_num_threads` must be at least 1. Received: 0"),
    ):
        with pytest.raises(ValueError, match=text):
            ModelServer("tiny", version_folder.parent, **options)
    taken = int(server.rest_address.rpartition(":")[2])
    with pytest.raises(StartError, match=f"REST address. Received: 127.0.0.1:{taken}, Address already in use"):
        ModelServer("tiny", version_folder.parent, rest_api_port=taken).start()


def test_without_tensorflow(publish):
    code = f"""
import json, sys, urllib.request
from keraslight_serving.server import ModelServer
with ModelServer("tiny", {str(publish(1))!r}, rest_api_port=0) as server:
    body = json.dumps({{"instances": [[[[1]] * 8] * 8]}}).encode()
    print(urllib.request.urlopen(server.rest_address + "/v1/models/tiny:predict", body).read().decode())
sys.exit(str({{"tensorflow", "keras"}} & set(sys.modules)) if {{"tensorflow", "keras"}} & set(sys.modules) else 0)
"""
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    assert '"predictions"' in done.stdout
