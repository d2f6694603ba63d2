"""What goes wrong in a server.

StatusError   the answer to one request is an error: a gRPC status code and its text
StartError    the server can't start
"""

import grpc

# By number, as TensorFlow's errors and StatusProto have them.
CODES = {code.value[0]: code for code in grpc.StatusCode}


class StatusError(Exception):
    """The answer is an error. Attributes: `code` (grpc.StatusCode), `text`."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text

    def __reduce__(self) -> tuple:  # from a worker to its supervisor
        return StatusError, (self.code, self.text)


class StartError(Exception):
    """The server can't start. The text says why and what was received."""


def invalid(text: str) -> StatusError:
    """INVALID_ARGUMENT, by far the most frequent answer to a bad request."""
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, text)


def not_found(text: str) -> StatusError:
    return StatusError(grpc.StatusCode.NOT_FOUND, text)
