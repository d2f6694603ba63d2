"""Who may connect: TLS, client certificates, tokens.

TLS is gRPC's alone, as in TensorFlow Serving: put a proxy in front of REST. Tokens TensorFlow Serving doesn't have.
"""

import hmac
import os
import ssl
from collections.abc import Callable
from concurrent import futures
from pathlib import Path

import grpc

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import StartError, StatusError
from keraslight_serving.server.base.text_proto import read_text_proto
from keraslight_serving.server.telemetry.logging import REQUEST_ID, log_request, request_id
from keraslight_serving.wire import serving_pb2 as pb

# Kubernetes' probes and load balancers ask without a token, and learn nothing but up or down.
_OPEN = "/grpc.health.v1.Health/"


def ssl_credentials(path: str | os.PathLike) -> grpc.ServerCredentials:
    """Reads `--ssl_config_file`, an SSLConfig in protobuf's text format.

        server_key: "-----BEGIN PRIVATE KEY-----\\n..."
        server_cert: "-----BEGIN CERTIFICATE-----\\n..."
        custom_ca: "-----BEGIN CERTIFICATE-----\\n..."   # of the clients
        client_verify: true                              # a client must show a certificate that custom_ca has signed

    Raises:
        StartError: the file can't be parsed, or these are no PEM texts that belong together.
    """
    config = read_text_proto("ssl_config_file", path, pb.SSLConfig())
    for field in ("server_key", "server_cert", "custom_ca"):
        text = getattr(config, field)
        if (text or field != "custom_ca") and "-----BEGIN " not in text:
            raise StartError(
                f"`{field}` in `ssl_config_file` must be PEM text, the content of the file and not its path. "
                f"Received: {path}, where it {'is something else' if text else 'is missing'}"
            )
    if config.client_verify and not config.custom_ca:
        raise StartError(f"`client_verify` in `ssl_config_file` needs `custom_ca`. Received: {path}, without it")
    for field in ("server_cert", "custom_ca"):
        try:
            if getattr(config, field):
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=getattr(config, field))
        except ssl.SSLError as error:
            raise StartError(
                f"`{field}` in `ssl_config_file` must be certificates. Received: {path}, {error}"
            ) from error
    credentials = grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
        require_client_auth=config.client_verify,
    )
    # grpc looks at the key when it opens a port, and then can't tell a bad key from a port that is taken.
    try:
        grpc.server(futures.ThreadPoolExecutor(1)).add_secure_port("127.0.0.1:0", credentials)
    except RuntimeError as error:
        raise StartError(
            f"`server_key` in `ssl_config_file` must be the private key of `server_cert`. Received: {path}, another key"
        ) from error
    return credentials


REFUSAL = "The call needs `authorization: Bearer TOKEN` with a token that the server knows."


class Tokens:
    """The tokens of `--auth_token_file`, one a line. Any of them will do, so that a new one can replace an old one.

    Raises:
        StartError: the file can't be read, or holds none.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        try:
            lines = Path(path).read_bytes().splitlines()
        except OSError as error:
            raise StartError(f"`auth_token_file` must be a readable file. Received: {path}, {error}") from error
        self._tokens = [line.strip() for line in lines if line.strip()]
        if not self._tokens:
            raise StartError(f"`auth_token_file` must hold a token a line. Received: {path}, without one")

    def allow(self, authorization: str | None) -> bool:
        """Whether the value of an `authorization` header, in HTTP or gRPC, is `Bearer` and one of the tokens."""
        scheme, _, token = (authorization or "").partition(" ")
        sent = token.strip().encode(errors="surrogateescape")
        # All are compared, whatever the first ones gave: the time that it takes must not tell how near a guess is.
        matches = [hmac.compare_digest(sent, known) for known in self._tokens]
        return scheme.lower() == "bearer" and any(matches)

    def authorize(self, authorization: str | None) -> None:
        """Raises a StatusError, UNAUTHENTICATED, for a header that is not allowed: for REST."""
        if not self.allow(authorization):
            raise StatusError(grpc.StatusCode.UNAUTHENTICATED, REFUSAL)


class TokenInterceptor(grpc.ServerInterceptor):
    """Answers UNAUTHENTICATED to calls without a token, but for health checks, before their message is read."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def intercept_service(
        self, continuation: Callable, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        metadata = dict(handler_call_details.invocation_metadata)
        method = handler_call_details.method
        if method.startswith(_OPEN) or self._tokens.allow(metadata.get("authorization")):
            return continuation(handler_call_details)

        def refuse(_, context: grpc.ServicerContext) -> None:
            call = Call(id=request_id(metadata.get(REQUEST_ID)), entrypoint="GRPC", peer=context.peer())
            context.set_trailing_metadata(((REQUEST_ID, call.id),))
            code = grpc.StatusCode.UNAUTHENTICATED
            log_request(call, method.rpartition("/")[2], code.name, 0, text=REFUSAL)
            context.abort(code, REFUSAL)

        # As a stream, of which nothing is asked for: else grpc would take in a message of any size first.
        return grpc.stream_stream_rpc_method_handler(refuse)
