"""Bad clients, bad bytes and bad files against a server process: it answers on, right, and nothing leaks."""

import base64
import contextlib
import io
import json
import os
import re
import shutil
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keraslight_serving.client import ClassifierClient
from keraslight_serving.wire import methods
from keraslight_serving.wire import serving_pb2 as pb
from keraslight_serving.wire.tensors import to_array, to_tensor
from PIL import Image

Code = grpc.StatusCode
IMAGES = np.random.default_rng(1).uniform(0, 255, (2, 8, 8, 1)).astype(np.float32)
UNPARSABLE = "Exception deserializing request!"
CALLS = (
    methods.PREDICT,
    methods.CLASSIFY,
    methods.REGRESS,
    methods.MULTI_INFERENCE,
    methods.GET_MODEL_METADATA,
    methods.GET_MODEL_STATUS,
)


class Faulty:
    """A server under attack, and what it has to keep."""

    def __init__(self, process, png):
        self.address, self.rest_address, self.log = process.address, process.rest_address, process.log
        self.process = process.process
        self.channel = grpc.insecure_channel(self.address)
        self._png = png
        self.expected = self._answers()
        # Threads come with the first requests: more of them at once than any test has in flight.
        waiting = [connect(self) for _ in range(120)]
        assert self._answers() == self.expected
        for connection in waiting:
            connection.close()
        self._answers()
        time.sleep(0.5)
        self.before = self.usage()

    def _answers(self):
        raw = answer(self.channel, methods.PREDICT, predict(IMAGES))
        encoded = answer(self.channel, methods.PREDICT, predict_files([self._png]))
        return [to_array(one.outputs["probabilities"]).tobytes() for one in (raw, encoded)]

    def usage(self):
        """Threads and open files."""
        threads = len(os.listdir(f"/proc/{self.process.pid}/task"))
        return threads, len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def memory(self):
        """Resident, in MB."""
        return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())[1]) / 1024

    def check(self):
        """Answers right, and has no more threads and files than before."""
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        assert self._answers() == self.expected
        until = time.monotonic() + 15
        more = (12, 3)  # REST's own 8 threads come with its requests
        while any(now > was + m for now, was, m in zip(self.usage(), self.before, more, strict=True)):
            assert time.monotonic() < until, f"{self.before} threads and files have become {self.usage()}"
            time.sleep(0.05)


class ClientPool:
    """Raw bytes over a channel, many requests in flight."""

    def __init__(self, channel):
        self._calls = {
            method: channel.unary_unary(method.path, request_serializer=None, response_deserializer=None)
            for method in CALLS
        }

    def send(self, requests, timeout=60):
        """The (code, details) of each (method, message or bytes), in order."""
        window = []
        for method, message in requests:
            data = message if isinstance(message, bytes) else message.SerializeToString()
            window.append(self._calls[method].future(data, timeout=timeout))
            if len(window) == 64:
                yield outcome(window.pop(0))
        yield from map(outcome, window)


def outcome(call):
    error = call.exception()
    return (Code.OK, "") if error is None else (error.code(), error.details())


def answer(channel, method, request, timeout=60):
    return channel.unary_unary(method.path, method.request.SerializeToString, method.response.FromString)(
        request, timeout=timeout
    )


def predict(images):
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="tiny"))
    request.inputs["images"].CopyFrom(to_tensor(images))
    return request


def predict_files(files):
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="tiny", signature_name="encoded"))
    request.inputs["image_bytes"].CopyFrom(to_tensor(np.array(files, object)))
    return request


@pytest.fixture(scope="module")
def attacked(launch, version_folder, png):
    return Faulty(launch(version_folder.parent, "--load_saved_model", rest=True), png)


@pytest.fixture
def faulty(attacked):
    yield attacked
    attacked.check()


# ---------------------------------------------------------------- messages


def valid_messages(png):
    """One of each call, as bytes."""
    example = pb.Input()
    feature = b"\x0a" + bytes([len(png)]) + png if len(png) < 128 else png
    example.example_list.examples.append(feature)
    spec = pb.ModelSpec(name="tiny", signature_name="classify")
    tasks = pb.MultiInferenceRequest(input=example)
    tasks.tasks.add(model_spec=spec, method_name="tensorflow/serving/classify")
    return [
        (methods.PREDICT, predict(IMAGES)),
        (methods.PREDICT, predict_files([png, png])),
        (methods.CLASSIFY, pb.ClassificationRequest(model_spec=spec, input=example)),
        (methods.REGRESS, pb.RegressionRequest(model_spec=pb.ModelSpec(name="tiny"), input=example)),
        (methods.MULTI_INFERENCE, tasks),
        (
            methods.GET_MODEL_METADATA,
            pb.GetModelMetadataRequest(model_spec=pb.ModelSpec(name="tiny"), metadata_field=["signature_def"]),
        ),
        (methods.GET_MODEL_STATUS, pb.GetModelStatusRequest(model_spec=pb.ModelSpec(name="tiny"))),
    ]


def mangle(data, generator):
    """Bytes that are nearly a message: cut off, with wrong wire types or lengths, overwritten, spliced, or noise."""
    data = bytearray(data)
    kind = generator.integers(6)
    place = int(generator.integers(len(data)))
    if kind == 0:
        return bytes(data[:place])
    if kind == 1:
        data[place] = data[place] & ~7 | int(generator.integers(8))  # the wire type, if a tag stands there
    elif kind == 2:
        for _ in range(int(generator.integers(1, 6))):
            data[int(generator.integers(len(data)))] = int(generator.integers(256))
    elif kind == 3:
        data[place:place] = generator.bytes(int(generator.integers(1, 12)))
    elif kind == 4:
        data[place:place] = b"\xff\xff\xff\xff\x07"  # as a length: 2 GiB
    else:
        data = generator.bytes(int(generator.integers(200)))
    return bytes(data)


def check_outcomes(outcomes, count):
    """No code but those of a refusal, and none that tells of an exception in the server."""
    codes = Counter(code for code, _ in outcomes)
    assert codes.total() == count
    assert set(codes) <= {Code.OK, Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.FAILED_PRECONDITION, Code.INTERNAL,
                          Code.UNIMPLEMENTED}, codes  # fmt: skip
    assert {details for code, details in outcomes if code == Code.INTERNAL} <= {UNPARSABLE}
    return codes


def test_ten_thousand_malformed_messages(faulty, png):
    generator = np.random.default_rng(0)
    messages = [(method, message.SerializeToString()) for method, message in valid_messages(png)]
    requests = []
    for n in range(10_000):
        _, data = messages[n % len(messages)]
        method = messages[n % len(messages)][0] if n % 5 else CALLS[generator.integers(len(CALLS))]
        requests.append((method, mangle(data, generator)))
    codes = check_outcomes(list(ClientPool(faulty.channel).send(requests)), 10_000)
    assert codes[Code.INTERNAL] > 1000  # not parsed
    assert codes[Code.INVALID_ARGUMENT] > 500  # parsed, and refused


dimensions = st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 9), max_size=6)
tensors = st.builds(
    lambda sizes, **fields: pb.TensorProto(
        tensor_shape=pb.TensorShapeProto(dim=[pb.TensorShapeProto.Dim(size=size) for size in sizes]), **fields
    ),
    sizes=dimensions,
    dtype=st.integers(0, 30),
    tensor_content=st.binary(max_size=300),
    float_val=st.lists(st.floats(width=32), max_size=9),
    int_val=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=9),
    half_val=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3),
    string_val=st.lists(st.binary(max_size=30), max_size=9),
)
requests = st.builds(
    lambda spec, inputs, output_filter: pb.PredictRequest(model_spec=spec, inputs=inputs, output_filter=output_filter),
    spec=st.builds(
        pb.ModelSpec,
        name=st.just("tiny") | st.text(max_size=5),
        signature_name=st.sampled_from(["", "encoded", "classify", "regress", "pairs", "__saved_model_init_op"]),
        version_label=st.none() | st.text(max_size=3),
    ),
    inputs=st.dictionaries(
        st.sampled_from(["images", "image_bytes", "inputs"]) | st.text(max_size=3), tensors, max_size=2
    ),
    output_filter=st.lists(st.sampled_from(["probabilities", "classes"]) | st.text(max_size=3), max_size=2),
)


@settings(max_examples=400, deadline=None, derandomize=True, database=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(request=requests)
def test_messages_that_parse_and_make_no_sense(attacked, request):
    check_outcomes(list(ClientPool(attacked.channel).send([(methods.PREDICT, request)])), 1)


def test_tensors_of_2_gib_in_a_few_bytes(faulty):
    before = faulty.memory()
    for dtype, shape in (
        (pb.DT_FLOAT, [2**29, 8, 8, 1]),
        (pb.DT_FLOAT, [2**62, 2**62]),
        (pb.DT_STRING, [2**31 - 1]),
        (pb.DT_STRING, [2**28]),
        (pb.DT_UINT8, [2**31]),
    ):
        for signature, alias in (("", "images"), ("encoded", "image_bytes"), ("classify", "inputs")):
            request = pb.PredictRequest(model_spec=pb.ModelSpec(name="tiny", signature_name=signature))
            tensor = request.inputs[alias]
            tensor.dtype = dtype
            for size in shape:
                tensor.tensor_shape.dim.add(size=size)
            began = time.monotonic()
            with pytest.raises(grpc.RpcError) as caught:
                answer(faulty.channel, methods.PREDICT, request)
            assert caught.value.code() == Code.INVALID_ARGUMENT
            assert time.monotonic() - began < 10
    assert faulty.memory() - before < 200


# ---------------------------------------------------------------- images


def image_files(png):
    generator = np.random.default_rng(4)
    image = Image.fromarray(generator.integers(0, 256, (24, 24, 3), dtype=np.uint8))
    files = [png]
    for kind in ("PNG", "JPEG", "GIF", "BMP"):
        buffer = io.BytesIO()
        image.save(buffer, kind)
        files.append(buffer.getvalue())
    return files


def test_two_thousand_malformed_images(faulty, png):
    generator = np.random.default_rng(5)
    files = image_files(png)
    mangled = []
    for n in range(2000):
        data = bytearray(files[n % len(files)])
        if n % 3 == 0:
            data = data[: int(generator.integers(len(data)))]
        for _ in range(int(generator.integers(1, 4))):
            if data:
                # Not the sizes in the headers: those that make bombs are below.
                data[int(generator.integers(min(30, len(data) - 1), len(data)))] = int(generator.integers(256))
        mangled.append(bytes(data))
    requests = [(methods.PREDICT, predict_files([file])) for file in mangled]
    outcomes = list(ClientPool(faulty.channel).send(requests))
    codes = Counter(code for code, _ in outcomes)
    assert set(codes) == {Code.OK, Code.INVALID_ARGUMENT}
    assert codes[Code.INVALID_ARGUMENT] > 500


def png_of(width, height):
    """A file of some bytes that claims a size, black or not."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100_000))) + chunk(b"IEND", b"")


def test_a_decompression_bomb(faulty):
    before = faulty.memory()
    began = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        answer(faulty.channel, methods.PREDICT, predict_files([png_of(60_000, 60_000)]))
    assert caught.value.code() == Code.INVALID_ARGUMENT
    assert time.monotonic() - began < 10
    assert faulty.memory() - before < 200


# ---------------------------------------------------------------- connections

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING = 0, 1, 4, 6
END_STREAM, END_HEADERS, ACK = 1, 4, 1


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def opening(path):
    """A connection's first bytes: a POST to `path` on stream 1 (RFC 9113; header names by RFC 7541's static table)."""

    def text(value):
        return bytes([len(value)]) + value

    headers = b"\x83\x86\x04" + text(path.encode()) + b"\x01" + text(b"localhost")
    headers += b"\x0f\x10" + text(b"application/grpc") + b"\x00" + text(b"te") + text(b"trailers")
    return PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, headers)


def connect(faulty):
    host, port = faulty.address.split(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.sendall(opening(methods.PREDICT.path))
    return connection


def read_frames(connection, until):
    """(type, flags, payload) of stream 1's frames, until one of type `until` ends the stream; pings are answered."""
    buffer, found = b"", []
    while True:
        while len(buffer) >= 9 and len(buffer) >= 9 + (length := int.from_bytes(buffer[:3])):
            kind, flags, stream = buffer[3], buffer[4], int.from_bytes(buffer[5:9])
            payload, buffer = buffer[9 : 9 + length], buffer[9 + length :]
            if kind in (SETTINGS, PING) and not flags & ACK:
                connection.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))
            if stream == 1:
                found.append((kind, payload))
                if kind == until and flags & END_STREAM:
                    return found
        more = connection.recv(65536)
        assert more, "closed before the answer"
        buffer += more


def test_a_client_that_trickles_its_request(faulty):
    message = predict(IMAGES[:1]).SerializeToString()
    body = b"\0" + struct.pack(">I", len(message)) + message
    slow = [connect(faulty) for _ in range(30)]
    for place in range(0, len(body), 16):
        last = END_STREAM if place + 16 >= len(body) else 0
        for connection in slow:
            connection.sendall(frame(DATA, last, 1, body[place : place + 16]))
        if place % 160 == 0:
            began = time.monotonic()
            answer(faulty.channel, methods.PREDICT, predict(IMAGES), timeout=20)
            assert time.monotonic() - began < 10
    for connection in slow:
        frames = read_frames(connection, HEADERS)
        data = b"".join(payload for kind, payload in frames if kind == DATA)
        found = to_array(pb.PredictResponse.FromString(data[5:]).outputs["probabilities"])
        np.testing.assert_allclose(found, np.frombuffer(faulty.expected[0], np.float32).reshape(2, 3)[:1], atol=1e-6)
        connection.close()


def test_clients_that_disconnect_in_mid_request(faulty):
    for n in range(100):
        connection = connect(faulty)
        if n % 2:
            connection.sendall(frame(DATA, 0, 1, b"\0" + struct.pack(">I", 1000) + bytes(n)))
        if n % 3 == 0:  # a reset rather than an end
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()


def test_two_gib_announced_and_never_sent(faulty):
    before = faulty.memory()
    waiting = [connect(faulty) for _ in range(30)]
    for connection in waiting:
        connection.sendall(frame(DATA, 0, 1, b"\0" + struct.pack(">I", 2**31 - 1) + b"some"))
    answer(faulty.channel, methods.PREDICT, predict(IMAGES), timeout=20)
    time.sleep(0.5)
    assert faulty.memory() - before < 100
    for connection in waiting:
        connection.close()


def test_more_than_2_gib_announced(faulty):
    with connect(faulty) as connection:
        connection.sendall(frame(DATA, 0, 1, b"\0" + struct.pack(">I", 2**32 - 1) + b"some"))
        trailers = b"".join(payload for kind, payload in read_frames(connection, HEADERS) if kind == HEADERS)
        assert b"larger than max" in trailers


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(1000), PREFACE + bytes(range(256)) * 9])
def test_connections_that_do_not_speak_grpc(faulty, noise):
    host, port = faulty.address.split(":")
    for _ in range(10):
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(noise)
            while connection.recv(65536):  # until it is closed
                pass


# ---------------------------------------------------------------- REST

URLS = ["/v1/models/tiny:predict", "/v1/models/tiny:classify", "/v1/models/tiny/versions/1:regress"]


def bodies(png):
    """Good ones."""
    image = IMAGES[:1].round(1).tolist()
    file = {"b64": base64.b64encode(png).decode()}
    return [
        json.dumps({"instances": image}).encode(),
        json.dumps({"inputs": {"images": image}, "signature_name": "serving_default"}).encode(),
        json.dumps({"instances": [file, {"image_bytes": file}], "signature_name": "encoded"}).encode(),
        json.dumps({"examples": [{"image/encoded": file}], "signature_name": "classify"}).encode(),
        json.dumps({"examples": [{"x": 1.5, "y": [1, 2]}], "context": {"z": "a"}}).encode(),
    ]


def test_two_thousand_malformed_http_bodies(faulty, png):
    generator = np.random.default_rng(6)
    good = bodies(png)
    tokens = [
        b"[",
        b"]",
        b"{",
        b"}",
        b'"',
        b",",
        b":",
        b"null",
        b"1e999",
        b"NaN",
        b"-",
        b"\\u",
        b"\xff",
        b"[[[[",
        b"0x1",
    ]
    requests = []
    for n in range(2000):
        body = bytearray(good[n % len(good)])
        place = int(generator.integers(len(body)))
        kind = n % 4
        if kind == 0:
            body = body[:place]
        elif kind == 1:
            body[place : place + 1] = tokens[int(generator.integers(len(tokens)))]
        elif kind == 2:
            body[place:place] = tokens[int(generator.integers(len(tokens)))] * int(generator.integers(1, 2000))
        else:
            body = generator.bytes(place)
        headers = {"Content-Encoding": "gzip"} if n % 50 == 49 else {}
        requests.append((URLS[n % len(URLS)], bytes(body), headers))
    with httpx.Client(base_url=faulty.rest_address, timeout=60) as client, ThreadPoolExecutor(8) as pool:

        def post(request):
            url, body, headers = request
            response = client.post(url, content=body, headers=headers)
            if response.status_code != 200:
                assert list(response.json()) == ["error"]
            return response.status_code

        codes = Counter(pool.map(post, requests))
        assert codes.total() == 2000
        assert set(codes) <= {200, 400, 404}, codes
        assert codes[400] > 1500
        answered = client.post(URLS[0], content=good[0]).json()["predictions"]
    np.testing.assert_allclose(answered, np.frombuffer(faulty.expected[0], np.float32).reshape(2, 3)[:1], atol=1e-3)


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2147483647\r\n\r\n{",
        b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n{",
        b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n{",
        b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{",
        b"GET /v1/models/" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(10_000)) + b"\r\n",
        b"\0" * 1000,
        PREFACE,
    ],
    ids=["2 GiB", "minus one", "4 GiB chunk", "no length", "long URL", "many headers", "zeros", "HTTP/2"],
)
def test_http_that_is_none_or_never_ends(faulty, sent):
    host, port = faulty.rest_address.removeprefix("http://").split(":")
    before = faulty.memory()
    waiting = []
    for _ in range(20):
        waiting.append(socket.create_connection((host, int(port)), timeout=30))
        with contextlib.suppress(ConnectionError):  # refused before all of it was sent
            waiting[-1].sendall(sent)
    assert httpx.get(f"{faulty.rest_address}/v1/models/tiny", timeout=20).status_code == 200
    assert faulty.memory() - before < 100
    for connection in waiting:
        connection.close()


# ---------------------------------------------------------------- too much work


def slow_request(turns):
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="tiny"))
    request.inputs["turns"].CopyFrom(to_tensor(np.array([turns], np.int32)))
    return request


def test_more_requests_than_can_be_run_before_their_deadline(launch, slow_base):
    server = launch(slow_base)
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary(methods.PREDICT.path)
        request = slow_request(300).SerializeToString()
        began = time.monotonic()
        waiting = [call.future(request, timeout=6) for _ in range(700)]
        codes = Counter(outcome(one)[0] for one in waiting)
        assert time.monotonic() - began < 40
        assert set(codes) == {Code.OK, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED}
        # What nobody waits for any more is not run: 700 requests would take minutes.
        began = time.monotonic()
        answer(channel, methods.PREDICT, slow_request(1))
        assert time.monotonic() - began < 15


def test_a_request_without_a_deadline_waits_its_turn(launch, slow_base):
    server = launch(slow_base)
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary(methods.PREDICT.path)
        waiting = [call.future(slow_request(20).SerializeToString()) for _ in range(60)]
        assert {outcome(one)[0] for one in waiting} == {Code.OK}


def test_cancelled_requests_make_room(launch, slow_base):
    server = launch(slow_base)
    with grpc.insecure_channel(server.address) as channel:
        method = methods.PREDICT
        call = channel.unary_unary(method.path, method.request.SerializeToString, method.response.FromString)
        waiting = [call.future(slow_request(500), timeout=600) for _ in range(200)]
        time.sleep(0.5)
        for one in waiting:
            one.cancel()
        began = time.monotonic()
        assert answer(channel, method, slow_request(1)).outputs["done"]
        assert time.monotonic() - began < 30


# ---------------------------------------------------------------- files


def test_truncated_and_unreadable_files_beside_a_good_version(launch, version_folder, tmp_path):
    base = tmp_path / "tiny"
    shutil.copytree(version_folder, base / "1")
    server = launch(base, "--file_system_poll_wait_seconds=0.05", "--max_num_load_retries=0")
    lite, saved = (version_folder / name for name in ("model.tflite", "saved_model.pb"))
    number = 1
    with ClassifierClient(server.address, "tiny", timeout=60) as client:
        expected = client.predict({"images": IMAGES})["probabilities"]
        for file in (lite, saved):
            content = file.read_bytes()
            for part in (0, 1, 100, len(content) // 2, len(content) - 1):
                number += 1
                shutil.copytree(version_folder, tmp_path / "copy")
                (tmp_path / "copy" / file.name).write_bytes(content[:part])
                (tmp_path / "copy").rename(base / str(number))
        number += 1
        (base / str(number)).symlink_to(tmp_path / "nowhere")  # found, and not to be read
        number += 1
        (base / str(number)).mkdir()
        (base / str(number) / "model.tflite").symlink_to(tmp_path / "nowhere")
        number += 1
        (base / str(number)).mkdir()
        (base / str(number) / "model.tflite").mkdir()  # a folder in a file's place
        number += 1
        shutil.copytree(version_folder, tmp_path / "copy")
        (tmp_path / "copy").rename(base / str(number))
        until = time.monotonic() + 60
        while client.status()[0].version != number or client.status()[0].state != "AVAILABLE":
            np.testing.assert_array_equal(client.predict({"images": IMAGES})["probabilities"], expected)
            assert time.monotonic() < until, client.status()
        np.testing.assert_array_equal(client.predict({"images": IMAGES})["probabilities"], expected)
        states = Counter(status.state for status in client.status())
    assert states["AVAILABLE"] == 1
    assert server.process.poll() is None


def test_a_base_path_that_is_a_file_for_a_while(launch, version_folder, tmp_path):
    base = tmp_path / "tiny"
    shutil.copytree(version_folder, base / "1")
    server = launch(base, "--file_system_poll_wait_seconds=0.05")
    with ClassifierClient(server.address, "tiny", timeout=60) as client:
        base.rename(tmp_path / "away")
        base.write_text("no folder")
        time.sleep(0.3)
        assert client.predict({"images": IMAGES})
        base.unlink()
        shutil.copytree(version_folder, tmp_path / "away" / "2")
        (tmp_path / "away").rename(base)
        until = time.monotonic() + 30
        while client.status()[0].version != 2 or client.status()[0].state != "AVAILABLE":
            assert time.monotonic() < until, client.status()
            time.sleep(0.05)
    assert server.log.read_text().count("Can't read the folder") == 1


# ---------------------------------------------------------------- time


def test_no_code_of_the_server_asks_for_the_time_of_day():
    folder = Path(methods.__file__).parent.parent / "server"
    files = [file for file in folder.rglob("*.py") if file.name != "_request_log.py"]  # which dates requests
    assert len(files) > 10
    for file in files:
        assert not re.search(r"\btime\.time\(|\bdatetime\.(now|today|utcnow)\(", file.read_text()), file


def test_the_clock_jumps_while_requests_and_versions_come(version_folder, tmp_path, monkeypatch):
    from keraslight_serving.server import ModelServer

    base = tmp_path / "tiny"
    shutil.copytree(version_folder, base / "1")
    real, shift = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + shift[0])
    seen, failures, stop = set(), [], threading.Event()
    with ModelServer("tiny", base, file_system_poll_wait_seconds=0.05) as server:
        channel = grpc.insecure_channel(server.address)

        def ask():
            while not stop.is_set():
                try:  # without a deadline: grpc's client sets those by the time of day
                    seen.add(answer(channel, methods.PREDICT, predict(IMAGES), timeout=None).model_spec.version.value)
                except grpc.RpcError as error:
                    failures.append(error)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for version, jump in ((2, 86_400.0), (3, -86_400.0), (4, 0.0)):
            shift[0] = jump
            shutil.copytree(version_folder, base / f".{version}")
            (base / f".{version}").rename(base / str(version))
            until = time.monotonic() + 20
            while version not in seen and time.monotonic() < until:
                time.sleep(0.01)
        stop.set()
        for thread in threads:
            thread.join()
        channel.close()
    assert failures == []
    assert seen == {1, 2, 3, 4}
