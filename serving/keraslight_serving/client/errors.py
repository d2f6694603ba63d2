"""Every error that the client raises on purpose.

    ServingError
    ├── InvalidInput (ValueError)   the input can't be sent, or the model refuses it: not an image, wrong size or dtype
    ├── ModelNotFound               the server has no such model or version
    ├── SignatureNotFound           the model has no such signature
    ├── Unavailable                 no server answers at this address; worth another try
    ├── DeadlineExceeded            no answer in time
    ├── Overloaded                  the server has too much to do, or a message is too large
    ├── Unauthenticated             credentials are missing or don't suffice
    ├── Unsupported                 the server doesn't know this call, or lacks what it needs for it
    ├── ClientClosed                the client was closed, or came along into another process by a fork
    └── InternalError               the server failed; its log has more

All carry `model`, `version`, `code` (grpc.StatusCode), `details` (the server's text) and `attempts`, how often the
request was sent. `code` is None and `attempts` 0 where the client itself refused the input, before anything was sent.
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
        self.model = model
        self.version = version
        self.code = code
        self.details = details or text
        self.attempts = attempts


class InvalidInput(ServingError, ValueError):
    """The input can't be sent, or the model refuses it."""


class ModelNotFound(ServingError):
    """The server has no such model or version."""


class SignatureNotFound(ServingError):
    """The model has no such signature."""


class Unavailable(ServingError):
    """No server answers at this address. Worth another try."""


class DeadlineExceeded(ServingError):
    """No answer in time. The request may have been carried out."""


class Overloaded(ServingError):
    """The server has too much to do, or a message is larger than one side takes."""


class Unauthenticated(ServingError):
    """Credentials are missing or don't suffice."""


class Unsupported(ServingError):
    """The server doesn't know this call, or lacks what it needs for it."""


class ClientClosed(ServingError):
    """The client was closed, or came along into another process by a fork: make a client there."""


class InternalError(ServingError):
    """The server failed. Its log has more."""


_BY_CODE = {
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
    """The error of the table for a failed call."""
    code, details = error.code(), error.details() or "no details"
    asked = f"model {model!r}" + (f" version {version}" if version is not None else "")
    tried = f" after {attempts} attempts" if attempts > 1 else ""
    text = f"{details} ({code.name} from {target}, {asked}{tried})"
    return _BY_CODE.get(code, ServingError)(
        text, model=model, version=version, code=code, details=details, attempts=attempts
    )
