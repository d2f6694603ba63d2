"""Slow, large and swollen requests, idle connections, and texts that don't fit: what they take is bounded."""

import contextlib
import gzip
import json
import logging
import socket
import threading
import time
import tracemalloc

import grpc
import httpx
import numpy as np
import pytest
from keraslight_serving.server import ModelServer
from keraslight_serving.server.base.budget import Budget
from keraslight_serving.server.base.errors import StatusError
from keraslight_serving.server.calls.messages import Messages
from keraslight_serving.server.calls.service import Service
from keraslight_serving.server.rest import _json
from keraslight_serving.server.rest._app import RestApp
from keraslight_serving.server.rest._connections import Connections, ErrorsOfTheLoop
from keraslight_serving.server.rest._handler import inflate
from keraslight_serving.server.rpc.arrivals import Arrivals
from keraslight_serving.server.rpc.handlers import Handlers, shortened
from keraslight_serving.server.rpc.server import parse_channel_arguments
from keraslight_serving.server.testing import FakeRepository
from keraslight_serving.wire import methods, serving_pb2 as pb

from tests.serving.helpers import refused, until
from tests.serving_attack import IMAGES, answer, predict

BODY_SECONDS, IDLE_SECONDS = 1.2, 0.4
MOST, IN_FLIGHT = 2**20, 2**19  # bytes
PATH = "/v1/models/tiny:predict"


@pytest.fixture(scope="module")
def guarded(version_folder):
    """A server with low limits."""
    with ModelServer(
        "tiny",
        version_folder.parent,
        rest_api_port=0,
        request_timeout_in_ms=int(1000 * BODY_SECONDS),
        rest_api_idle_timeout_in_ms=int(1000 * IDLE_SECONDS),
        max_request_bytes=MOST,
        max_request_bytes_in_flight=IN_FLIGHT,
    ) as server:
        yield server


def connect(server):
    host, port = server.rest_address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def head(length):
    return f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()


def post_image(server):
    return httpx.post(server.rest_address + PATH, json={"instances": IMAGES[:1].tolist()}, timeout=20)


def closes(connection, seconds=5.0):
    """Whether the server closes a connection within some seconds, whatever it sends before."""
    connection.settimeout(seconds)
    with contextlib.suppress(ConnectionError):
        while connection.recv(65536):
            pass
    return True


# ---------------------------------------------------------------- slow bodies


@pytest.mark.parametrize("size", [10, 60_000, 200_000])
def test_a_body_that_trickles_is_given_up(guarded, size):
    with connect(guarded) as connection:
        connection.sendall(head(900_000) + b" " * size)
        began = time.monotonic()
        connection.settimeout(0.05)
        received = b""
        while b"\r\n\r\n" not in received and time.monotonic() - began < 10:
            with contextlib.suppress(TimeoutError, ConnectionError):
                connection.sendall(b" ")
                received += connection.recv(4096)
        assert received.startswith(b"HTTP/1.1 504 ")
        assert BODY_SECONDS - 0.1 < time.monotonic() - began < 5


@pytest.mark.parametrize(
    "method", [methods.PREDICT.path, methods.GET_MODEL_STATUS.path, "/grpc.health.v1.Health/Check"]
)
def test_a_message_that_never_comes_is_given_up(guarded, method):
    over = threading.Event()

    def nothing():
        over.wait(20)
        yield from ()

    with grpc.insecure_channel(guarded.address) as channel:
        try:
            waiting = channel.stream_unary(method, bytes, bytes).future(nothing(), timeout=60)
            began = time.monotonic()
            assert waiting.code() is grpc.StatusCode.CANCELLED
            assert BODY_SECONDS - 0.1 < time.monotonic() - began < 5
        finally:
            over.set()
    until(lambda: guarded._arrivals._waiting == {})


@pytest.mark.parametrize("method", [methods.PREDICT.path, methods.GET_MODEL_METADATA.path])
def test_a_call_without_a_message(guarded, method):
    with grpc.insecure_channel(guarded.address) as channel:
        found = channel.stream_unary(method, bytes, bytes).future(iter(()), timeout=60)
        assert found.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "requires exactly one request message" in found.details()


def test_slow_senders_leave_room_for_others_and_give_it_back(guarded):
    slow = [connect(guarded) for _ in range(11)]
    try:
        for connection in slow:
            with contextlib.suppress(ConnectionError):
                connection.sendall(head(900_000) + b" " * 120_000)
        until(lambda: guarded._budget.held > IN_FLIGHT / 3, 5)
        assert guarded._budget.held <= IN_FLIGHT / 2  # all of one sender
        large = httpx.post(guarded.rest_address + PATH, content=b" " * 200_000, timeout=20)
        assert post_image(guarded).status_code == 200
        assert large.status_code == 429
        assert "The bodies of one sender must have at most" in large.text
        until(lambda: guarded._budget.held == 0, 10)
        large = httpx.post(guarded.rest_address + PATH, content=b" " * 300_000, timeout=20)
        assert large.status_code == 400  # it is no JSON, but was read
    finally:
        for connection in slow:
            connection.close()
    until(lambda: guarded._rest._app._of_peers == {})


def test_senders_together_have_the_budget_and_each_half_of_it():
    budget = Budget(1_000_000)
    budget.take(900_000)
    assert refused(budget.take, 100_001)[0] == "RESOURCE_EXHAUSTED"
    assert budget.held == 900_000
    held = budget.hold(100_000)
    del held
    budget.give(900_000)
    assert budget.held == 0


# ---------------------------------------------------------------- decompression


@pytest.mark.parametrize("size", [MOST + 1, 3 * MOST, 40 * MOST])
def test_a_message_that_swells_beyond_the_limit_is_refused(guarded, size):
    with grpc.insecure_channel(guarded.address, compression=grpc.Compression.Gzip) as channel:
        request = pb.PredictRequest(model_spec=pb.ModelSpec(name="tiny"))
        request.inputs["images"].tensor_content = bytes(size)
        with pytest.raises(grpc.RpcError) as caught:
            answer(channel, methods.PREDICT, request)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in caught.value.details()
        assert answer(channel, methods.PREDICT, predict(IMAGES)).outputs


def test_the_default_limit_fits_a_hundred_images():
    assert 100 * 224 * 224 * 3 * 4 < ModelServer("tiny", ".")._settings.max_request_bytes < 2**28


def test_large_messages_together_take_no_more_than_the_budget(guarded):
    with grpc.insecure_channel(guarded.address) as channel:
        request = pb.PredictRequest(model_spec=pb.ModelSpec(name="tiny"))
        request.inputs["images"].tensor_content = bytes(IN_FLIGHT)
        with pytest.raises(grpc.RpcError) as caught:  # within the limit of one message
            answer(channel, methods.PREDICT, request)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "must have at most" in caught.value.details()
        images = np.zeros((400, 8, 8, 1), np.float32)  # 100 kB
        for _ in range(20):
            assert answer(channel, methods.PREDICT, predict(images)).outputs
    until(lambda: guarded._budget.held == 0)


def test_a_message_holds_its_share_until_it_is_gone():
    budget = Budget(100_000)
    handlers = Handlers(Messages(Service(FakeRepository({}))), budget, Arrivals(None), lambda: False, None)
    _, handler = handlers._by_path[methods.PREDICT.path]
    received = handler.request_deserializer(bytes(70_000))
    assert budget.held == 70_000
    assert isinstance(handler.request_deserializer(bytes(70_000)), StatusError)
    assert handler.request_deserializer(bytes(1000)) == bytes(1000)  # small ones are not counted
    del received  # as for a call that is cancelled before it runs
    assert budget.held == 0


@pytest.mark.parametrize("size", [MOST + 1, 20 * MOST])
def test_a_gzip_body_that_swells_is_refused(guarded, size):
    body = gzip.compress(b" " * size)
    sent = httpx.post(guarded.rest_address + PATH, content=body, headers={"Content-Encoding": "gzip"}, timeout=20)
    assert sent.status_code in (413, 429)
    until(lambda: guarded._budget.held == 0)


def test_inflating_stops_at_the_limit_and_counts_as_it_goes():
    body, taken = gzip.compress(bytes(50 * MOST)), []
    tracemalloc.start()
    try:
        assert refused(inflate, body, 2 * MOST, taken.append)[0] == "RESOURCE_EXHAUSTED"
        assert tracemalloc.get_traced_memory()[1] < 8 * MOST
    finally:
        tracemalloc.stop()
    assert sum(taken) <= 4 * MOST
    assert inflate(gzip.compress(b"ab" * MOST), 2 * MOST) == b"ab" * MOST
    for broken in (b"", body[:100], b"no gzip"):
        assert refused(inflate, broken, MOST)[0] == "INVALID_ARGUMENT"


# ---------------------------------------------------------------- JSON


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [' + b"1," * 100 + b"1]}",
        b'{"instances": [' + b'"",' * 100 + b'""]}',
        b'{"instances": [' + b"[]," * 60 + b"[]]}",
        b'{"instances": ' + b"[" * 101,
        b"{" + b",".join(b'"k%d":1' % n for n in range(101)) + b"}",
        b'{"instances": [{' + b",".join(b'"%d":{}' % n for n in range(30)) + b"}]}",
    ],
    ids=["numbers", "strings", "lists", "open lists", "keys", "objects"],
)
def test_values_are_counted_before_they_take_memory(monkeypatch, body):
    monkeypatch.setattr(_json, "MAX_VALUES", 100)
    monkeypatch.setattr(_json, "MAX_KEYS", 20)
    monkeypatch.setattr(json, "loads", lambda text: pytest.fail("parsed"))
    code, text = refused(_json.parse, body)
    assert code == "INVALID_ARGUMENT"
    assert text.startswith("A request must have at most ")


def test_a_large_body_of_numbers_is_refused_in_no_time():
    body = bytearray(b'{"instances": [' + b"0.1," * 2**23 + b"0.1]}")
    tracemalloc.start()
    try:
        began = time.process_time()
        assert refused(_json.parse, body)[0] == "INVALID_ARGUMENT"
        assert time.process_time() - began < 1
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


DOCUMENTS = [
    b'{"instances": [1, 2, [3, {"a": 1}], "x"], "k": "v", "o": {"q": []}, "e": []}',
    b" { } ",
    b'{"a": [1,]}',
    b'{"a": 1,}',
    b'{"a" 1}',
    b"{a:1}",
    b'{"a":[1 2]}',
    b'{"a":[',
    b'{"a":1',
    b'{"a":1} x',
    b"[1,2]",
    b'"s"',
    b'{"a":',
    b"{",
    b'{"a": tru}',
    b'{"a": [NaN, Infinity]}',
    b'{"a":1,"a":[2]}',
    b'{"a":[1,2,"\n"]}',
    b'{"a" : [ 1 ,\n2\t] , "b":\r\n[ ]}',
    b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"a": [' + b"9" * 5000 + b"]}",
    '{"\\ud83d\\ude00": ["\\u00e9é"]}'.encode(),
    b'\xef\xbb\xbf{"a":1}',
]


@pytest.mark.parametrize("body", DOCUMENTS, ids=range(len(DOCUMENTS)))
def test_large_bodies_are_parsed_like_small_ones(monkeypatch, body):
    found = []
    for large in (2**40, 0):
        monkeypatch.setattr(_json, "LARGE", large)
        try:
            found.append(repr(_json.parse(body)))
        except StatusError as error:
            found.append(error.text)
    assert found[0] == found[1]


def test_others_have_their_turn_while_a_large_body_is_parsed():
    row = b"[" + b",".join([b"0.25"] * 1000) + b"]"
    body = b'{"instances": [' + b",".join([row] * 1500) + b"]}"
    turns, stop = [], threading.Event()

    def count():
        while not stop.wait(0.001):
            turns.append(time.monotonic())

    counting = threading.Thread(target=count)
    counting.start()
    began = time.monotonic()
    assert len(_json.parse(body)["instances"]) == 1500
    ended = time.monotonic()
    stop.set()
    counting.join()
    assert sum(began < turn < ended for turn in turns) >= 3


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_json_is_utf_8(guarded, encoding):
    body = '{"instances": [true]}'.encode(encoding)
    sent = httpx.post(guarded.rest_address + PATH, content=body, timeout=20)
    assert sent.status_code == 400
    assert "JSON Parse error" in sent.json()["error"]


@pytest.mark.parametrize("value", [True, [True], [[1, False]], [1.5, True]])
@pytest.mark.parametrize("form", ["instances", "inputs"])
def test_booleans_are_no_numbers(guarded, form, value):
    content = json.dumps({form: [value]}).encode()
    for sent in (content, b"\xef\xbb\xbf" + content):
        answered = httpx.post(guarded.rest_address + PATH, content=sent, timeout=20)
        assert answered.status_code == 400


@pytest.mark.parametrize(
    ("text", "is_valid"),
    [
        (r"\ud83d\ude00", True),
        (r"\\ud83d", True),
        (r"\\\\ud83d", True),
        (r"\ud83d", False),
        (r"\ude00", False),
        (r"\\\ud83d", False),
        (r"\ud83d\u0041", False),
        (r"\ude00\ud83d", False),
        (r"\ud83d\ude00\ude00", False),
        (r"\uD83D\uDE00\u00e9", True),
    ],
)
def test_halves_of_surrogate_pairs(text, is_valid):
    body = f'{{"a": "{text}"}}'.encode()
    if is_valid:
        _json.parse(body)["a"].encode()
    else:
        error = "JSON Parse error: The surrogate pair in string is invalid."
        assert refused(_json.parse, body) == ("INVALID_ARGUMENT", error)


# ---------------------------------------------------------------- connections


@pytest.mark.parametrize("sent", [b"", b"G", b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: x\r\nContent-"])
def test_a_connection_without_a_request_is_closed(guarded, sent):
    with connect(guarded) as connection:
        connection.sendall(sent)
        began = time.monotonic()
        assert closes(connection)
        assert time.monotonic() - began > IDLE_SECONDS / 2


def test_a_connection_that_trickles_its_headers_is_closed(guarded):
    with connect(guarded) as connection:
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for byte in b"GET /v1/models/tiny HTTP/1.1\r\nX: " + b"x" * 200:
                connection.sendall(bytes([byte]))
                time.sleep(0.02)
        assert time.monotonic() - began < 3


def test_a_connection_is_closed_some_time_after_its_last_request(guarded):
    with connect(guarded) as connection:
        for pause in (0, IDLE_SECONDS / 2, IDLE_SECONDS / 2):
            time.sleep(pause)
            connection.sendall(b"GET /v1/models/tiny HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"]\n}\n"):  # header and body may come apart
                part = connection.recv(65536)
                assert part
                answer += part
            assert answer.startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET /v1")  # and half of another
        assert closes(connection)


def test_a_request_may_take_longer_than_a_connection_may_be_idle():
    class Slow:
        def answer(self, asked, body, call):
            time.sleep(3 * IDLE_SECONDS)
            return "{}"

    from keraslight_serving.server.rest import RestServer

    server = RestServer(RestApp(Slow(), timeout=20, threads=1), "127.0.0.1", 0, idle_seconds=IDLE_SECONDS)
    server.start()
    try:
        assert httpx.post(f"http://127.0.0.1:{server.port}{PATH}", content=b"{}", timeout=20).status_code == 200
    finally:
        server.stop(0)


def test_the_oldest_idle_connection_makes_room(guarded):
    most = guarded._rest._connections
    assert 1 <= most <= 10_000

    class Connection:
        aborted = False

        @property
        def transport(self):
            return self

        def abort(self):
            self.aborted = True

    connections, made = Connections(3), [Connection() for _ in range(5)]
    connections.busy.add(made[0])
    for connection in made[1:]:
        connections.add(connection)
    assert [connection.aborted for connection in made] == [False, True, True, False, False]
    connections.busy |= set(made[3:])
    connections.open.clear()
    last = Connection()
    connections.add(last)
    assert last.aborted  # all others have requests


def test_connections_that_cannot_be_accepted_are_logged_now_and_then(caplog):
    errors = ErrorsOfTheLoop()
    context = {"message": "socket.accept() out of system resource", "exception": OSError(24, "Too many open files")}
    with caplog.at_level(logging.INFO):
        for _ in range(2000):
            errors(None, context)
    assert len(caplog.records) == 1
    assert "Too many open files" in caplog.text


# ---------------------------------------------------------------- texts


@pytest.mark.parametrize("letter", ["犬", "😀", "é", "%", "\n", "a", "犬a"])
def test_long_names_never_turn_a_code_into_another(guarded, letter):
    with grpc.insecure_channel(guarded.address) as channel:
        request = pb.GetModelMetadataRequest(
            model_spec=pb.ModelSpec(name=letter * 3000), metadata_field=["signature_def"]
        )
        for _ in range(12):
            with pytest.raises(grpc.RpcError) as caught:
                answer(channel, methods.GET_MODEL_METADATA, request)
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            assert caught.value.details().startswith("Servable not found for request: Latest(")
            assert caught.value.details().endswith("...TRUNCATED")


@pytest.mark.parametrize("letter", ["a", "é", "犬", "😀"])
def test_texts_are_cut_by_their_bytes_between_characters(letter):
    text = "x" + letter * 2000
    cut = shortened(text)
    kept = cut.removesuffix("...TRUNCATED")
    assert text.startswith(kept)
    assert 1024 - 4 < len(kept.encode()) <= 1024
    assert shortened(letter * (1024 // len(letter.encode()))) == letter * (1024 // len(letter.encode()))


# ---------------------------------------------------------------- channel arguments


@pytest.mark.parametrize(
    "argument",
    [
        "grpc.max_receive_message_length=16M",
        "grpc.max_receive_message_length=unlimited",
        "grpc.max_connection_age_ms=1e6",
        "grpc.max_send_message_length=",
        "grpc.keepalive_time_ms=10s",
        "grpc.max_receive_message_length=99999999999",
    ],
)
def test_a_number_with_a_unit_is_no_number(argument):
    from keraslight_serving.server import StartError

    with pytest.raises(StartError, match="must be a"):
        parse_channel_arguments(argument)


def test_numbers_and_texts_of_channel_arguments():
    found = parse_channel_arguments("grpc.max_receive_message_length=-1,grpc.primary_user_agent=me,grpc.x=7")
    assert found == {"grpc.max_receive_message_length": -1, "grpc.primary_user_agent": "me", "grpc.x": 7}
