"""Certificates, for both protocols."""

import os
import ssl
import tempfile
from pathlib import Path
from typing import NamedTuple

import grpc

from keraslight_serving.client.errors import InvalidInput


class Tls(NamedTuple):
    """PEM data read by `tls`. None stands for the system's authorities, or for no certificate."""

    ca: bytes | None
    certificate: bytes | None
    key: bytes | None

    def for_grpc(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)

    def for_http(self) -> ssl.SSLContext:
        """Raises InvalidInput if the data is not PEM."""
        try:
            context = ssl.create_default_context(cadata=None if self.ca is None else self.ca.decode("ascii"))
            if self.certificate is not None and self.key is not None:
                with tempfile.TemporaryDirectory() as folder:  # Python reads client certificates only from files
                    certificate, key = Path(folder, "certificate"), Path(folder, "key")
                    certificate.write_bytes(self.certificate)
                    key.write_bytes(self.key)
                    context.load_cert_chain(certificate, key)
        except (ssl.SSLError, ValueError) as error:
            raise InvalidInput(f"`ca`, `certificate` and `key` must be PEM. Received: {error}") from error
        return context


def tls(
    ca: str | os.PathLike[str] | bytes | None = None,
    certificate: str | os.PathLike[str] | bytes | None = None,
    key: str | os.PathLike[str] | bytes | None = None,
) -> Tls:
    """Credentials for a server with TLS, over gRPC or https. Each argument is a path to a PEM file, or its bytes.

        tls()                                  # trust the system's authorities
        tls("ca.pem")                          # trust these certificates only
        tls("ca.pem", "me.pem", "me.key")      # mutual TLS

    Args:
        ca: Certificates to trust. None: the system's.
        certificate: Certificate of this client, for servers that require one (mutual TLS).
        key: Private key of `certificate`; both or neither.

    Returns:
        The value for `ClassifierClient(credentials=...)`.

    Raises:
        InvalidInput: A file can't be read, or only one of `certificate` and `key` is given.
    """
    if (certificate is None) != (key is None):
        given = "certificate" if key is None else "key"
        raise InvalidInput(f"`certificate` and `key` must be given together. Received: `{given}` alone")

    def read(source: str | os.PathLike[str] | bytes | None) -> bytes | None:
        if source is None or isinstance(source, bytes):
            return source
        try:
            return Path(source).read_bytes()
        except OSError as error:
            raise InvalidInput(f"{os.fspath(source)!r} must be a PEM file. Received: {error.strerror}") from error

    return Tls(read(ca), read(certificate), read(key))
