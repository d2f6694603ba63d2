"""The errors that the client raises on purpose.

    ServingError
    ├── InvalidInput (ValueError)
    ├── ModelNotFound
    ├── SignatureNotFound
    ├── Unavailable
    ├── DeadlineExceeded
    ├── Overloaded
    ├── Unauthenticated
    ├── Unsupported
    ├── ClientClosed
    └── InternalError

All have `model`, `version`, `code` (grpc.StatusCode), `details` (the server's text) and `attempts` (how often the
request was sent). If the client itself rejects the input, before anything is sent, `code` is None and `attempts` is 0.
"""

import grpc


class ServingError(Exception):
    """Base class of all errors that the client raises on purpose."""

    def __init__(
        self,
        text: str,
        *,
        model: str | None = None,
        version: int | str | None = None,
        code: grpc.StatusCode | None = None,
        details: str = "",
        attempts: int = 0,
    ) -> None:
        super().__init__(text)
        self.model, self.version, self.code, self.attempts = model, version, code, attempts
        self.details = details or text


class InvalidInput(ServingError, ValueError):
    """The input can't be sent, or the model rejects it: not an image, wrong size or dtype."""


class ModelNotFound(ServingError):
    """The server has no such model or version."""


class SignatureNotFound(ServingError):
    """The model has no such signature."""


class Unavailable(ServingError):
    """No server can be reached at this address. Worth a retry."""


class DeadlineExceeded(ServingError):
    """No response in time. The server may have processed the request nevertheless."""


class Overloaded(ServingError):
    """The server is too busy, or a message exceeds the limit of one side."""


class Unauthenticated(ServingError):
    """Credentials are missing or insufficient."""


class Unsupported(ServingError):
    """The server doesn't support this call, or something it needs isn't installed."""


class ClientClosed(ServingError):
    """The client was closed, or was inherited by a forked process, which needs a client of its own."""


class InternalError(ServingError):
    """The server failed. See its log."""


_BY_CODE: dict[grpc.StatusCode, type[ServingError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.OUT_OF_RANGE: InvalidInput,
    grpc.StatusCode.NOT_FOUND: ModelNotFound,
    grpc.StatusCode.FAILED_PRECONDITION: SignatureNotFound,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: Unauthenticated,
    grpc.StatusCode.UNIMPLEMENTED: Unsupported,
    grpc.StatusCode.INTERNAL: InternalError,
    grpc.StatusCode.UNKNOWN: InternalError,
    grpc.StatusCode.DATA_LOSS: InternalError,
}


def from_rpc_error(
    error: grpc.RpcError, *, target: str, model: str, version: int | str | None, attempts: int = 1
) -> ServingError:
    """Translates a failed gRPC call."""
    code, details = error.code(), error.details() or "no details"
    asked = f"model {model!r}" + (f" version {version}" if version is not None else "")
    tried = f" after {attempts} attempts" if attempts > 1 else ""
    text = f"{details} ({code.name} from {target}, {asked}{tried})"
    kind = _BY_CODE.get(code, ServingError)
    return kind(text, model=model, version=version, code=code, details=details, attempts=attempts)
