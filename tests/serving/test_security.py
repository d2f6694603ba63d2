"""TLS, client certificates, tokens, sockets and grpc's own settings, on real servers."""

import socket
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
import trustme
from google.protobuf import text_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from keraslight_serving.client import ClassifierClient
from keraslight_serving.server import ModelServer, StartError
from keraslight_serving.server.base.errors import StatusError
from keraslight_serving.server.calls.messages import Messages
from keraslight_serving.server.calls.service import Service
from keraslight_serving.server.rpc.security import Tokens, ssl_credentials
from keraslight_serving.server.rpc.server import listen, make_server
from keraslight_serving.wire import serving_pb2 as pb
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

IMAGE = np.zeros((1, 8, 8, 1), np.float32)
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


def predict(image=IMAGE):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(image))
    return request


def ask(channel, metadata=(), image=IMAGE):
    """The code of the answer."""
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    try:
        assert stub.Predict(predict(image), timeout=10, metadata=metadata).outputs["probabilities"].float_val
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


class Authority:
    """Signs certificates; `key`, `chain` of the server and `ca` are PEM bytes."""

    def __init__(self):
        self._ca = trustme.CA()
        self.ca = self._ca.cert_pem.bytes()
        self.key, self.chain = self.issue("localhost", "127.0.0.1")

    def issue(self, *names):
        cert = self._ca.issue_cert(*names)
        return cert.private_key_pem.bytes(), b"".join(part.bytes() for part in cert.cert_chain_pems)


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture
def write(tmp_path):
    """Writes an SSLConfig."""

    def to_file(**fields):
        path = tmp_path / "ssl.config"
        path.write_text(text_format.MessageToString(pb.SSLConfig(**fields)))
        return path

    return to_file


# ---------------------------------------------------------------- TLS


def test_tls(publish, authority, write):
    file = write(server_key=authority.key, server_cert=authority.chain)
    with ModelServer("tiny", publish(1), ssl_config_file=file) as server:
        trusting = grpc.ssl_channel_credentials(authority.ca)
        with grpc.secure_channel(server.address, trusting) as channel:
            assert ask(channel) == grpc.StatusCode.OK
        with grpc.insecure_channel(server.address) as channel:
            assert ask(channel) == grpc.StatusCode.UNAVAILABLE
        with grpc.secure_channel(server.address, grpc.ssl_channel_credentials(Authority().ca)) as channel:
            assert ask(channel) == grpc.StatusCode.UNAVAILABLE
        with ClassifierClient(server.address, "tiny", credentials=trusting) as client:
            assert client.predict({"images": IMAGE})


def test_mutual_tls(publish, authority, write):
    file = write(server_key=authority.key, server_cert=authority.chain, custom_ca=authority.ca, client_verify=True)
    key, chain = authority.issue("client.example")
    other_key, other_chain = Authority().issue("other.example")
    with ModelServer("tiny", publish(1), ssl_config_file=file) as server:
        for code, credentials in (
            (grpc.StatusCode.OK, (authority.ca, key, chain)),
            (grpc.StatusCode.UNAVAILABLE, (authority.ca,)),
            (grpc.StatusCode.UNAVAILABLE, (authority.ca, other_key, other_chain)),
        ):
            with grpc.secure_channel(server.address, grpc.ssl_channel_credentials(*credentials)) as channel:
                assert ask(channel) == code


def test_without_client_verify_no_client_certificate_is_asked_for(publish, authority, write):
    file = write(server_key=authority.key, server_cert=authority.chain, custom_ca=authority.ca)
    with (
        ModelServer("tiny", publish(1), ssl_config_file=file) as server,
        grpc.secure_channel(server.address, grpc.ssl_channel_credentials(authority.ca)) as channel,
    ):
        assert ask(channel) == grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"server_key": ""}, "`server_key` in `ssl_config_file` must be PEM text.*where it is missing"),
        ({"server_cert": "/etc/tls.crt"}, "`server_cert` .* the content of the file and not its path.*something else"),
        (
            {"server_cert": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"},
            "`server_cert` .*certificates",
        ),
        ({"custom_ca": "-----BEGIN nonsense"}, "`custom_ca` in `ssl_config_file` must be certificates. Received: "),
        ({"client_verify": True}, "`client_verify` in `ssl_config_file` needs `custom_ca`. Received: .*, without it"),
        ({"server_key": "-----BEGIN PRIVATE KEY-----\nAAAA"}, "`server_key` .* the private key of `server_cert`"),
        ({"server_key": "another"}, "`server_key` in `ssl_config_file` must be the private key of `server_cert`."),
    ],
)
def test_tls_files_that_can_not_be_used(authority, write, change, text):
    if change == {"server_key": "another"}:
        change = {"server_key": authority.issue("other")[0]}
    fields = {"server_key": authority.key, "server_cert": authority.chain} | change
    with pytest.raises(StartError, match=text) as caught:
        ssl_credentials(write(**fields))
    assert "BEGIN" not in str(caught.value)  # no key in the log


def test_a_tls_file_that_is_none(tmp_path, publish):
    file = tmp_path / "ssl.config"
    file.write_text("server_key: 7")
    with pytest.raises(StartError, match="(?s)Invalid protobuf file: .*text-format tensorflow.serving.SSLConfig: 1:13"):
        ModelServer("tiny", publish(1), ssl_config_file=file).start()


# ---------------------------------------------------------------- tokens


@pytest.fixture
def tokens(tmp_path):
    path = tmp_path / "tokens"
    path.write_text("first\n\n  second  \r\n")
    return path


@pytest.fixture
def guarded(publish, tokens):
    """A server that wants a token, and a channel to it."""
    with (
        ModelServer("tiny", publish(1), auth_token_file=tokens) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        yield server, channel


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("Bearer first", grpc.StatusCode.OK),
        ("bearer second", grpc.StatusCode.OK),
        ("Bearer third", UNAUTHENTICATED),
        ("Bearer fir", UNAUTHENTICATED),
        ("Bearer ", UNAUTHENTICATED),
        ("Basic first", UNAUTHENTICATED),
        ("first", UNAUTHENTICATED),
        (None, UNAUTHENTICATED),
    ],
)
def test_tokens(guarded, sent, code):
    assert ask(guarded[1], () if sent is None else (("authorization", sent),)) == code


def test_our_client_sends_its_token(guarded):
    with ClassifierClient(guarded[0].address, "tiny", token="second") as client:
        assert client.predict({"images": IMAGE})


def test_what_is_open_and_what_is_not(guarded):
    _, channel = guarded
    health = health_pb2_grpc.HealthStub(channel)
    assert health.Check(health_pb2.HealthCheckRequest(service="tiny"), timeout=10).status == 1
    for path in (
        "/tensorflow.serving.ModelService/GetModelStatus",
        "/no.such.Service/Call",
        "/grpc.health.v1.Healthy/X",
    ):
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(path)(b"", timeout=10, metadata=(("x-request-id", "order-7"),))
        assert caught.value.code() == UNAUTHENTICATED
        assert caught.value.details().startswith("The call needs `authorization: Bearer TOKEN`")
        assert dict(caught.value.trailing_metadata())["x-request-id"] == "order-7"
    reflection = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    with pytest.raises(grpc.RpcError) as caught:
        list(reflection(iter([b""]), timeout=10))
    assert caught.value.code() == UNAUTHENTICATED


def test_a_large_message_without_a_token_is_refused_unread(guarded):
    large = np.zeros((100_000, 8, 8, 1), np.float32)  # 26 MB
    start = time.monotonic()
    assert ask(guarded[1], image=large) == UNAUTHENTICATED
    assert time.monotonic() - start < 5
    assert ask(guarded[1], (("authorization", "Bearer first"),)) == grpc.StatusCode.OK


def test_a_header_of_another_alphabet(tokens):
    allow = Tokens(tokens).allow
    assert not allow("Bearer é")
    assert not allow("Bearer \udcff")
    assert not allow("")
    assert allow("BEARER  first ")


def test_rest_is_refused_with_a_status(tokens):
    authorize = Tokens(tokens).authorize
    authorize("Bearer second")
    for header in (None, "", "Bearer third"):
        with pytest.raises(StatusError, match="The call needs `authorization: Bearer TOKEN`") as caught:
            authorize(header)
        assert caught.value.code == UNAUTHENTICATED


def test_token_files_that_can_not_be_used(tmp_path, publish):
    base = publish(1)
    with pytest.raises(StartError, match="`auth_token_file` must be a readable file. Received: "):
        ModelServer("tiny", base, auth_token_file=tmp_path).start()
    empty = tmp_path / "empty"
    empty.write_text("\n \n")
    with pytest.raises(StartError, match="`auth_token_file` must hold one token per line. Received: .*, without one"):
        ModelServer("tiny", base, auth_token_file=empty).start()


def test_tokens_in_the_open_are_warned_of(publish, tokens, caplog):
    with ModelServer("tiny", publish(1), host="0.0.0.0", auth_token_file=tokens):
        pass
    assert "Tokens travel without encryption to 0.0.0.0" in caplog.text


# ---------------------------------------------------------------- sockets and settings


def test_a_unix_socket(publish, tmp_path):
    path = tmp_path / "grpc.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))  # left by a server that was killed
    stale.close()
    base = publish(1)
    for _ in range(2):
        with ModelServer("tiny", base, grpc_socket_path=path) as server:
            for target in (f"unix:{path}", server.address):
                with grpc.insecure_channel(target) as channel:
                    assert ask(channel) == grpc.StatusCode.OK


def test_a_unix_socket_that_can_not_be_opened(publish, tmp_path):
    with pytest.raises(StartError, match="must be able to listen on its address. Received: unix:.*/no/grpc.sock"):
        ModelServer("tiny", publish(1), grpc_socket_path=tmp_path / "no" / "grpc.sock").start()


def test_the_size_of_messages_can_be_limited(publish):
    limit = "grpc.max_receive_message_length=1000,grpc.default_compression_algorithm=0"
    with (
        ModelServer("tiny", publish(1), grpc_channel_arguments=limit, grpc_max_threads=2) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        assert ask(channel) == grpc.StatusCode.OK
        assert ask(channel, image=np.zeros((4, 8, 8, 1), np.float32)) == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert ask(channel) == grpc.StatusCode.OK


def test_large_messages_pass_by_default(publish):
    with (
        ModelServer("tiny", publish(1)) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        assert ask(channel, image=np.zeros((30_000, 8, 8, 1), np.float32)) == grpc.StatusCode.OK  # 7.7 MB


def test_a_port_is_shared_only_on_purpose(server):
    messages = Messages(Service(server._repository))

    def make(**options):
        return make_server(messages, **options)

    first, second = make(shared_port=True), make(shared_port=True)
    (port,) = listen(first, ["127.0.0.1:0"], None)
    assert listen(second, [f"127.0.0.1:{port}"], None) == [port]
    alone = make()
    (port,) = listen(alone, ["127.0.0.1:0"], None)
    for other in (make(), make(shared_port=True)):
        with pytest.raises(StartError, match="must be able to listen on its address"):
            listen(other, [f"127.0.0.1:{port}"], None)


def test_settings_that_can_not_be_read(publish):
    with pytest.raises(StartError, match="`grpc_channel_arguments` must be key=value,key=value. Received: a=1,b"):
        ModelServer("tiny", publish(1), grpc_channel_arguments="a=1,b").start()
    with pytest.raises(ValueError, match="`grpc_max_threads` must be at least 1. Received: 0"):
        ModelServer("tiny", ".", grpc_max_threads=0)
