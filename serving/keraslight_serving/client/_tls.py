"""Certificates, as both protocols can be given them."""

from __future__ import annotations

import os
import ssl
import tempfile
from pathlib import Path
from typing import NamedTuple

import grpc

from keraslight_serving.client.errors import InvalidInput


class Tls(NamedTuple):
    """What `tls` has read, PEM; None for the system's authorities, or no certificate."""

    ca: bytes | None
    certificate: bytes | None
    key: bytes | None

    def for_grpc(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)

    def for_http(self) -> ssl.SSLContext:
        """Raises InvalidInput where the PEM is none."""
        try:
            context = ssl.create_default_context(cadata=None if self.ca is None else self.ca.decode("ascii"))
            if self.certificate is not None and self.key is not None:
                with tempfile.TemporaryDirectory() as folder:  # Python reads a certificate of ours from files only
                    certificate, key = Path(folder, "certificate"), Path(folder, "key")
                    certificate.write_bytes(self.certificate)
                    key.write_bytes(self.key)
                    context.load_cert_chain(certificate, key)
        except (ssl.SSLError, ValueError) as error:
            raise InvalidInput(f"`ca`, `certificate` and `key` must be PEM. Received: {error}") from error
        return context


def tls(
    ca: str | os.PathLike | bytes | None = None,
    certificate: str | os.PathLike | bytes | None = None,
    key: str | os.PathLike | bytes | None = None,
) -> Tls:
    """Credentials for a server with TLS, over gRPC or https.

    Args:
        ca: the certificates to trust, PEM, as a path or bytes. None: the system's.
        certificate, key: of this client, for a server that asks for one (mutual TLS); both or neither.

    Returns:
        What `ClassifierClient(credentials=...)` takes.

    Raises:
        InvalidInput: a file can't be read, or one of `certificate` and `key` is missing.
    """
    if (certificate is None) != (key is None):
        given = "certificate" if key is None else "key"
        raise InvalidInput(f"`certificate` and `key` must be given together. Received: `{given}` alone")

    def read(source: str | os.PathLike | bytes | None) -> bytes | None:
        if source is None or isinstance(source, bytes):
            return source
        try:
            return Path(source).read_bytes()
        except OSError as error:
            raise InvalidInput(f"{os.fspath(source)!r} must be a PEM file. Received: {error.strerror}") from error

    return Tls(read(ca), read(certificate), read(key))
