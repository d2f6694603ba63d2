"""Both clients over REST, beyond what `test_client.py` tests over both protocols."""

import contextlib
import http.server
import json
import ssl
import subprocess
import sys
import threading
import time

import grpc
import numpy as np
import pytest
from keraslight_serving.client import (
    ClassifierClient,
    DeadlineExceeded,
    InternalError,
    InvalidInput,
    ModelNotFound,
    Overloaded,
    Retry,
    ServingError,
    SignatureNotFound,
    Unauthenticated,
    Unavailable,
    Unsupported,
    tls,
)
from keraslight_serving.client._endpoints import addresses_of, is_local
from keraslight_serving.client._rest import RestChannel
from keraslight_serving.client._rest_messages import RestError, Translator, _tensor, _values
from keraslight_serving.server import ModelServer
from keraslight_serving.wire import methods, serving_pb2 as pb
from keraslight_serving.wire.tensors import to_array, to_tensor
from typer.testing import CliRunner

from keraslight.cli.app import app

CODE = grpc.StatusCode
ONCE = Retry(attempts=1)


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("target", "addresses"),
    [
        ("http://a:8501, https://b", ["http://a:8501", "https://b"]),
        (["http://[::1]:8501/api"], ["http://[::1]:8501/api"]),
    ],
)
def test_urls(target, addresses):
    assert addresses_of(target) == addresses


@pytest.mark.parametrize("url", ["http://localhost:8501", "http://127.0.0.1/", "http://[::1]:8501/api"])
def test_local_urls(url):
    assert is_local(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://a:8501",
        "http://127.0.0.1@b:1",
        "https://localhost.example",
        "127.example.org:1",
        "http://127.example.org:1",
    ],
)
def test_urls_of_other_machines(url):
    assert not is_local(url)


@pytest.mark.parametrize(
    "url",
    ["http://", "http://a:b", "http://a:0", "http://u@a:1", "http://a:1?x=1", "http://a:1#x", "http://[a:1"],
)
def test_what_is_not_the_url_of_a_server(url):
    with pytest.raises(InvalidInput, match="`target` must be http://host:port or https://host:port. Received: "):
        ClassifierClient(url)


@pytest.mark.parametrize(
    ("url", "options", "text"),
    [
        ("http://a:1", {"credentials": tls()}, "`credentials` are for https://. Received: 'http://a:1'"),
        (
            "https://a:1",
            {"credentials": grpc.ssl_channel_credentials()},
            "for a URL must come from `tls`. Received: ChannelCredentials",
        ),
        ("http://a:1", {"token": "secret"}, "sent to another machine only over TLS.* Received: http://a:1 without"),
    ],
)
def test_credentials_and_tokens_that_do_not_fit(make, url, options, text):
    with pytest.raises(InvalidInput, match=text):
        make(url, **options)


def test_a_token_over_https(make):
    make("https://a:1", token="fine").close()


def test_credentials_that_are_not_pem(make):
    with make("https://a:1", credentials=tls(b"no PEM")) as client, pytest.raises(InvalidInput, match="must be PEM"):
        client.status()


def test_httpx_is_asked_for():
    code = """
import sys
sys.modules["httpx"] = None  # as if it were not installed
from keraslight_serving.client import ClassifierClient, Unsupported
try:
    ClassifierClient("http://localhost:8501")
except Unsupported as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("REST needs httpx: pip install 'keraslight[rest]'. Received: "), done.stderr


# ---------------------------------------------------------------- against our server


def test_both_protocols_give_the_same(make, server, png, pixels):
    images = [png, pixels[1], pixels[2, ..., 0]]
    encoded = ("encoded", ["scores", "indices", "classes"])
    answers = []
    for target in (server.address, server.rest_address):
        with make(target, "tiny", timeout=60) as client:
            answers.append(
                (
                    client.classify(images),
                    client.predict({"image_bytes": [png, png]}, *encoded),
                    client.predict({"images": pixels.astype(np.float32)}),
                    client.metadata(),
                    client.status(),
                )
            )
    over_grpc, over_rest = answers
    assert over_grpc[0] == over_rest[0]
    for one, other in zip(over_grpc[1:3], over_rest[1:3], strict=True):
        assert set(one) == set(other)
        for name in one:
            assert one[name].dtype == other[name].dtype
            np.testing.assert_array_equal(one[name], other[name])
    assert over_grpc[3:] == over_rest[3:]


def test_errors_are_those_of_grpc(make, server, png):
    errors = []
    for target in (server.address, server.rest_address):
        found = []
        for options, call in (
            ({"version": 9}, lambda client: client.status()),
            ({"version": "stable"}, lambda client: client.metadata()),
            ({"model": "a/b:c d"}, lambda client: client.metadata()),
            ({}, lambda client: client.classify(png[:40])),
            ({}, lambda client: client.predict({"image_bytes": [png]}, "encoded", ["nope"])),
        ):
            with make(target, **{"model": "tiny", "timeout": 60, **options}) as client:
                with pytest.raises(ServingError) as caught:
                    call(client)
                found.append((type(caught.value), caught.value.code, caught.value.details.partition("{")[0]))
        errors.append(found)
    assert errors[0] == errors[1]


def test_a_new_version(make, publish, png):
    base = publish(1)
    with (
        ModelServer("tiny", base, file_system_poll_wait_seconds=0.05, rest_api_port=0) as server,
        make(server.rest_address, "tiny", timeout=60) as client,
    ):
        first = client.classify(png)
        publish(2)
        deadline = time.monotonic() + 30
        while client.metadata().version != 2:
            assert time.monotonic() < deadline
        assert client.classify(png) == first
        assert [status.version for status in client.status()] == [2, 1]
        address = server.rest_address
    with make(address, "tiny", timeout=5, retry=ONCE) as client, pytest.raises(Unavailable):
        client.status()


@pytest.fixture
def labelled(publish, tmp_path):
    """A server with versions 1, stable, and 2, canary; the config file may name them before they are loaded."""
    base = publish(1)
    publish(2)
    config = tmp_path / "models.config"
    config.write_text(f"""model_config_list {{ config {{
        name: "tiny" base_path: "{base}" model_platform: "tensorflow" model_version_policy {{ all {{}} }}
        version_labels {{ key: "stable" value: 1 }} version_labels {{ key: "canary" value: 2 }} }} }}""")
    options = {"model_config_file": config, "allow_version_labels_for_unavailable_models": True}
    with ModelServer(**options, rest_api_port=0) as server:
        yield server


@pytest.mark.parametrize(("label", "version"), [("stable", 1), ("canary", 2)])
def test_labels(make, labelled, png, label, version):
    with make(labelled.rest_address, "tiny", version=label, timeout=60) as client:
        assert client.metadata().version == version
        assert client.classify(png)[0][0].label in ("cat", "dog", "eel")


def test_a_missing_label(make, labelled, png):
    with make(labelled.rest_address, "tiny", version="old") as client, pytest.raises(InvalidInput, match="label: old"):
        client.classify(png)


def test_the_command(server, png, tmp_path):
    (tmp_path / "a.png").write_bytes(png)
    arguments = ["classify", str(tmp_path), "--server", server.rest_address, "--model", "tiny", "--json"]
    done = CliRunner().invoke(app, [*arguments, "--timeout", "60"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["classes"][0]["label"] in ("cat", "dog", "eel")


# ---------------------------------------------------------------- against servers that answer as told


class Told:
    """An HTTP server that answers with `answer(method, path, body, headers)`: a status and a body, or an iterator."""

    def __init__(self, answer, context=None):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                status, content = answer(self.command, self.path, body, self.headers)
                self.send_response(status)
                chunks = [content] if isinstance(content, bytes) else content
                if isinstance(content, bytes):
                    self.send_header("Content-Length", str(len(content)))
                else:
                    self.send_header("Connection", "close")
                self.end_headers()
                with contextlib.suppress(OSError):  # the client has left
                    for chunk in chunks:
                        self.wfile.write(chunk)
                        self.wfile.flush()

            do_GET = do_POST

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # clients that leave are a part of the tests
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def told():
    made = []

    def start(answer, context=None):
        made.append(Told(answer, context))
        scheme, host = ("http", "127.0.0.1") if context is None else ("https", "localhost")
        return f"{scheme}://{host}:{made[-1].port}"

    yield start
    for server in made:
        server.close()


STATUS = {"version": "3", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
GOOD = json.dumps({"model_version_status": [STATUS]}).encode()


@pytest.mark.parametrize(
    ("status", "body", "expected", "code"),
    [
        (400, b'{"error": "on purpose"}', InvalidInput, "INVALID_ARGUMENT"),
        (400, b'{"error": "Serving signature name: \\"x\\" not found in signature def"}', SignatureNotFound,
         "FAILED_PRECONDITION"),
        (401, b'{"error": "on purpose"}', Unauthenticated, "UNAUTHENTICATED"),
        (403, b"", Unauthenticated, "PERMISSION_DENIED"),
        (404, b"<html>", ModelNotFound, "NOT_FOUND"),
        (413, b'{"error": "on purpose"}', Overloaded, "RESOURCE_EXHAUSTED"),
        (429, b'{"error": "on purpose"}', Overloaded, "RESOURCE_EXHAUSTED"),
        (500, b'{"error": 5}', InternalError, "INTERNAL"),
        (501, b"[]", Unsupported, "UNIMPLEMENTED"),
        (502, b"\xff", Unavailable, "UNAVAILABLE"),
        (503, b'{"error": ""}', Unavailable, "UNAVAILABLE"),
        (504, b'{"error": "on purpose"}', DeadlineExceeded, "DEADLINE_EXCEEDED"),
        (302, b"", InternalError, "UNKNOWN"),
        (200, b"<html>", InternalError, "INTERNAL"),
        (200, b"{}", InternalError, "INTERNAL"),
        (200, b'{"model_version_status": [{"version": "x"}]}', InternalError, "INTERNAL"),
        (200, b'{"x": ' + b"[" * 100_000, InternalError, "INTERNAL"),
    ],
)  # fmt: skip
def test_every_status_has_its_error(make, told, status, body, expected, code):
    with make(told(lambda *_: (status, body)), retry=ONCE) as client, pytest.raises(ServingError) as caught:
        client.status()
    assert type(caught.value) is expected
    assert caught.value.code == CODE[code]
    assert caught.value.details.strip()


def test_what_is_worth_another_try(make, told):
    asked = []

    def answer(method, path, body, headers):
        asked.append(path)
        return (503, b"{}") if len(asked) < 3 else (200, GOOD)

    with make(told(answer), retry=Retry(first_pause=0.001)) as client:
        assert client.status()[0].version == 3
    assert len(asked) == 3


def test_a_request_that_is_too_large_is_not_sent_again(make, told):
    asked = []
    large = told(lambda method, path, *_: (asked.append(path), (413, b"{}"))[1])
    with make(large, retry=Retry(first_pause=0.001)) as client, pytest.raises(Overloaded, match="larger than max"):
        client.status()
    assert len(asked) == 1


def test_one_of_two_servers_is_down(make, told):
    with make(["http://127.0.0.1:1", told(lambda *_: (200, GOOD))], retry=Retry(first_pause=0.001)) as client:
        assert [client.status()[0].version for _ in range(4)] == [3] * 4


def test_hedging(make, told):
    release = threading.Event()

    def slow(*_):
        release.wait(10)
        return 200, GOOD

    with make([told(slow), told(lambda *_: (200, GOOD))], retry=Retry(hedge_after=0.05), timeout=20) as client:
        began = time.monotonic()
        assert [client.status()[0].version for _ in range(2)] == [3, 3]
        assert time.monotonic() - began < 8
        release.set()


def check_deadline(client) -> None:
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="Deadline Exceeded"):
        client.status()
    assert time.monotonic() - began < 2


def test_the_deadline_of_a_server_that_never_answers(make, told):
    release = threading.Event()
    with make(told(lambda *_: (release.wait(5), (200, GOOD))[1]), timeout=0.3, retry=ONCE) as client:
        check_deadline(client)
    release.set()


def test_the_deadline_of_an_answer_that_never_ends(make, told):
    release = threading.Event()

    def trickle():
        while not release.wait(0.05):
            yield b" "

    with make(told(lambda *_: (200, trickle())), timeout=0.3, retry=ONCE) as client:
        check_deadline(client)
    release.set()


def test_large_answers(make, told):
    url = told(lambda *_: (200, GOOD + b" " * 5000))
    with make(url, max_message_bytes=5000) as client, pytest.raises(Overloaded, match="Received message larger than"):
        client.status()


def test_paths_and_headers(make, told):
    seen = []

    def answer(method, path, body, headers):
        seen.append((method, path, headers.get("authorization"), headers.get("x-team")))
        return 200, GOOD

    with make(f"{told(answer)}/api", "a/b:c", version="new ones", token="key", metadata={"x-team": "zoo"}) as client:
        client.status()
    assert seen == [("GET", "/api/v1/models/a%2Fb%3Ac/labels/new%20ones", "Bearer key", "zoo")]
    with make(told(answer), version=7) as client:
        client.status()
    assert seen[1][1] == "/v1/models/default/versions/7"


@pytest.mark.parametrize("name", ["X-Team", "x-team", "X-TEAM"])
def test_upper_and_lower_case_headers_are_the_same(make, told, name):
    seen = []
    url = told(lambda method, path, body, headers: seen.append(headers.get_all("x-team")) or (200, GOOD))
    with make(url, metadata={name: "zoo"}) as client:
        client.status()
    assert seen == [["zoo"]]


@pytest.mark.parametrize("headers", [{"x a": "b"}, {"Content-Length": "7"}, {"x-bin": "a"}, {"x": None}, {"x": " a"}])
def test_headers_that_grpc_can_not_carry(make, told, headers):
    with make(told(lambda *_: (200, GOOD)), metadata=headers) as client, pytest.raises(InvalidInput, match="metadata"):
        client.status()


@pytest.mark.parametrize("header", ["a\nb", "\N{SNOWMAN}"])
def test_headers_that_http_can_not_carry(make, told, header):
    with make(told(lambda *_: (200, GOOD)), metadata={"x": header}) as client, pytest.raises(InvalidInput):
        client.status()


class Changing:
    """A model whose outputs change from version 1 to version 2, without a word."""

    def __init__(self):
        self.version, self.asked = 1, []

    def __call__(self, method, path, body, headers):
        self.asked.append(path.rpartition("/")[2])
        names = {1: ["y"], 2: ["a", "b_bytes"], 3: ["z"]}[self.version]
        if path.endswith("/metadata"):
            info = {"dtype": "DT_DOUBLE", "tensor_shape": {"dim": [{"size": "-1"}]}}
            outputs = {name: {**info, "dtype": "DT_STRING"} if name == "b_bytes" else info for name in names}
            signature = {"inputs": {"x": info}, "outputs": outputs, "method_name": "m", "new_field": 1}
            spec = {"name": "m", "version": str(self.version)}
            signatures = {"signature_def": {"serving_default": signature}}
            return 200, json.dumps({"model_spec": spec, "metadata": {"signature_def": signatures}}).encode()
        answers = {1: [0.5, 3.0], 2: {"a": [1.0], "b_bytes": [{"b64": "/w=="}]}, 3: {"z": "no number"}}
        return 200, json.dumps({"outputs": answers[self.version]}).encode()


def test_the_metadata_is_requested_once(make, told):
    server = Changing()
    with make(told(server), "m") as client:
        found = client.predict({"x": [1.0]})
        assert (found["y"].dtype, found["y"].tolist()) == (np.float64, [0.5, 3.0])
        client.predict({"x": [1.0]})
    assert server.asked == ["metadata", "m:predict", "m:predict"]  # the client's request serves the channel, too


def test_outputs_that_change(make, told):
    server = Changing()
    with make(told(server), "m") as client:
        client.predict({"x": [1.0]})
        server.version = 2
        found = client.predict({"x": [1.0]})
        assert {name: array.tolist() for name, array in found.items()} == {"a": [1.0], "b_bytes": [b"\xff"]}


def test_outputs_that_can_not_be_read(make, told):
    server = Changing()
    with make(told(server), "m") as client:
        client.predict({"x": [1.0]})
        server.version = 3
        with pytest.raises(InternalError, match="must answer as TensorFlow Serving's REST API. Received: output 'z'"):
            client.predict({"x": [1.0]})


def test_many_images_in_flight(make, server, png):
    with make(server.rest_address, "tiny", timeout=60, batch_size=2, window=4) as client:
        answers = client.classify([png] * 24 + [png[:40]], on_error="return")
    assert [answer[0].label for answer in answers[:24]] == [answers[0][0].label] * 24
    assert isinstance(answers[24], InvalidInput)


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    """Certificate and key, both as paths: of localhost, and of the client."""
    folder = tmp_path_factory.mktemp("signed")

    def sign(name, *options):
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
        files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
        subprocess.run([*command, *files, *options], check=True, capture_output=True, timeout=60)
        return folder / f"{name}.pem", folder / f"{name}.key"

    return sign("localhost", "-addext", "subjectAltName=DNS:localhost"), sign("client")


def context(signed, *, ask):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(*signed[0])
    if ask:
        made.verify_mode = ssl.CERT_REQUIRED
        made.load_verify_locations(signed[1][0])
    return made


def test_tls(make, told, signed):
    url = told(lambda *_: (200, GOOD), context(signed, ask=False))
    with make(url, credentials=tls(signed[0][0]), token="secret") as client:
        assert client.status()[0].version == 3


def test_tls_with_a_certificate_that_nobody_trusts(make, told, signed):
    url = told(lambda *_: (200, GOOD), context(signed, ask=False))
    with make(url, retry=ONCE) as client, pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        client.status()


def test_mutual_tls(make, told, signed):
    url = told(lambda *_: (200, GOOD), context(signed, ask=True))
    with make(url, credentials=tls(signed[0][0], *signed[1])) as client:
        assert client.status()[0].version == 3


def test_mutual_tls_without_a_certificate(make, told, signed):
    url = told(lambda *_: (200, GOOD), context(signed, ask=True))
    with make(url, credentials=tls(signed[0][0]), retry=ONCE) as client, pytest.raises(Unavailable):
        client.status()


# ---------------------------------------------------------------- messages


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "int16", "int32", "uint8", "int64", "uint32", "uint64",
                                   "bool"])  # fmt: skip
def test_tensors_there_and_back(dtype):
    for shape in ((), (3,), (2, 3), (2, 0), (0, 2), (1, 2, 3)):
        array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
        tensor = to_tensor(array)
        nested = json.loads(json.dumps(_values(tensor)))
        assert nested == array.tolist()
        if shape != (0, 2):  # whose JSON is that of (0,)
            np.testing.assert_array_equal(to_array(_tensor(nested, tensor.dtype)), array)


def test_strings_there_and_back():
    for array in (np.array([[b"a", b"\xff\0"], [b"", "é".encode()]], object), np.array(b"x", object)):
        for tensor in (to_tensor(array), to_tensor(array, content=True)):
            back = to_array(_tensor(_values(tensor), pb.DT_STRING))
            np.testing.assert_array_equal(back, array)
    packed = pb.TensorProto(dtype=pb.DT_STRING, tensor_content=b"\x01\x02abb")
    packed.tensor_shape.dim.add(size=2)
    assert _values(packed) == [{"b64": "YQ=="}, {"b64": "YmI="}]


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        ([[1], [2, 3]], pb.DT_FLOAT),
        ([1.5], pb.DT_INT32),
        (["a"], pb.DT_FLOAT),
        ([None], pb.DT_STRING),
        ([1], pb.DT_HALF),
    ],
)
def test_what_is_no_tensor(value, dtype):
    with pytest.raises((ValueError, TypeError)):
        _tensor(value, dtype)


def test_a_failure_while_others_wait():
    """It throws away what is known of the model, but not what the others go by."""
    translator, server = Translator(), Changing()
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="m"))

    def answer(ask):
        return server("", ask.path, b"", {})

    one = translator.call(methods.PREDICT.path, request)
    one.send(answer(next(one)))
    other = translator.call(methods.PREDICT.path, request)
    next(other)
    with pytest.raises(RestError):
        other.send((400, b"{}"))
    with pytest.raises(StopIteration) as end:
        one.send((200, b'{"outputs": [1.0]}'))
    assert list(end.value.value.outputs["y"].double_val) == [1.0]
    assert next(translator.call(methods.PREDICT.path, request)).path == "/v1/models/m/metadata"


def test_calls_that_the_client_does_not_make():
    channel = RestChannel("http://127.0.0.1:1", context=None, proxies=False, max_message_bytes=1)
    with pytest.raises(RestError) as caught:
        channel.unary_unary(methods.REGRESS.path)(pb.RegressionRequest())
    assert caught.value.code() == CODE.UNIMPLEMENTED
    channel.close()
