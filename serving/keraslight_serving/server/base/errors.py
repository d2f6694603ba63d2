"""The errors of a server."""

import grpc

# By number, as in TensorFlow's errors and in StatusProto.
CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class StatusError(Exception):
    """A request fails, with a gRPC status code and a text for the caller."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text

    def __reduce__(self) -> tuple[type["StatusError"], tuple[grpc.StatusCode, str]]:  # pickled between processes
        return StatusError, (self.code, self.text)


class StartError(Exception):
    """The server can't start. The text says why and what was received."""


def invalid(text: str) -> StatusError:
    """INVALID_ARGUMENT, by far the most frequent error."""
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, text)


def not_found(text: str) -> StatusError:
    """NOT_FOUND: there is no such model, version or file."""
    return StatusError(grpc.StatusCode.NOT_FOUND, text)
