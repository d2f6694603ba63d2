"""Who may connect: TLS, client certificates, tokens.

As in TensorFlow Serving, only gRPC has TLS: for REST, use a proxy. TensorFlow Serving has no tokens.
"""

import hmac
import os
import ssl
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import StartError, StatusError
from keraslight_serving.server.base.followed import Followed
from keraslight_serving.server.base.text_proto import read_text_proto
from keraslight_serving.server.rpc.handlers import header
from keraslight_serving.server.telemetry.logging import REQUEST_ID, log_request, request_id
from keraslight_serving.wire import serving_pb2 as pb

# Kubernetes' probes and load balancers have no token, and learn no more than up or down.
_OPEN = "/grpc.health.v1.Health/"
REFUSAL = "The call needs `authorization: Bearer TOKEN` with a token that the server knows."


def ssl_credentials(path: str | os.PathLike[str]) -> grpc.ServerCredentials:
    """Reads `--ssl_config_file`, an SSLConfig in protobuf's text format; again when it changes, except `client_verify`.

        server_key: "-----BEGIN PRIVATE KEY-----\\n..."
        server_cert: "-----BEGIN CERTIFICATE-----\\n..."
        custom_ca: "-----BEGIN CERTIFICATE-----\\n..."   # for client certificates
        client_verify: true                              # clients must present a certificate signed by custom_ca

    Raises StartError if the file can't be parsed, or if its fields are not PEM texts that belong together.
    """
    config = Followed(path, lambda: _read_ssl_config(path))
    verify = config.value.client_verify
    given = [config.value]  # what grpc has

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        """Called for each connection. Returns None for no change."""
        if config.value is given[0]:
            return None
        given[0] = config.value
        return _certificates(given[0])

    return grpc.dynamic_ssl_server_credentials(
        _certificates(config.value),
        fetch,  # type: ignore[arg-type]  # None is documented
        require_client_authentication=verify,
    )


def _certificates(config: pb.SSLConfig) -> grpc.ServerCertificateConfiguration:
    pairs = [(config.server_key.encode(), config.server_cert.encode())]
    return grpc.ssl_server_certificate_configuration(pairs, config.custom_ca.encode() or None)


def _read_ssl_config(path: str | os.PathLike[str]) -> pb.SSLConfig:
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
    # grpc reads the key only when it opens a port, and then reports a bad key like a port that is in use.
    try:
        grpc.server(futures.ThreadPoolExecutor(1)).add_secure_port("127.0.0.1:0", credentials)
    except RuntimeError as error:
        raise StartError(
            f"`server_key` in `ssl_config_file` must be the private key of `server_cert`. Received: {path}, another key"
        ) from error
    return config


class Tokens:
    """The tokens of `--auth_token_file`, one per line, as it is now. Each is valid, so that tokens can be rotated."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._tokens = Followed(path, lambda: self._read(path))

    @staticmethod
    def _read(path: str | os.PathLike[str]) -> list[bytes]:
        try:
            lines = Path(path).read_bytes().splitlines()
        except OSError as error:
            raise StartError(f"`auth_token_file` must be a readable file. Received: {path}, {error}") from error
        tokens = [line.strip() for line in lines if line.strip()]
        if not tokens:
            raise StartError(f"`auth_token_file` must hold one token per line. Received: {path}, without one")
        return tokens

    def allow(self, authorization: str | None) -> bool:
        """Whether an `authorization` header, in HTTP or gRPC, is `Bearer` and one of the tokens."""
        scheme, _, token = (authorization or "").partition(" ")
        sent = token.strip().encode(errors="surrogateescape")
        # All are compared, even after a match: the time taken must not reveal how close a guess is.
        matches = [hmac.compare_digest(sent, known) for known in self._tokens.value]
        return scheme.lower() == "bearer" and any(matches)

    def authorize(self, authorization: str | None) -> None:
        """Raises UNAUTHENTICATED for an `authorization` header that is not allowed."""
        if not self.allow(authorization):
            raise StatusError(grpc.StatusCode.UNAUTHENTICATED, REFUSAL)


class TokenInterceptor(grpc.ServerInterceptor):
    """Rejects calls without a token (UNAUTHENTICATED) before their message is read; health checks need none."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":  # quoted: at run time the class is not generic
        metadata, method = handler_call_details.invocation_metadata, handler_call_details.method
        if method.startswith(_OPEN) or self._tokens.allow(header(metadata, "authorization")):
            return continuation(handler_call_details)

        def refuse(_: object, context: grpc.ServicerContext) -> Iterator[bytes]:
            call = Call(id=request_id(header(metadata, REQUEST_ID)), entrypoint="GRPC", peer=context.peer())
            context.set_trailing_metadata(((REQUEST_ID, call.id),))
            log_request(call, method.rpartition("/")[2], "UNAUTHENTICATED", 0, text=REFUSAL)
            context.abort(grpc.StatusCode.UNAUTHENTICATED, REFUSAL)

        # As a stream that is never read: for a unary call, grpc would first receive a message of any size.
        return grpc.stream_stream_rpc_method_handler(refuse)
