"""gRPC's side of the calls: bytes, deadlines, request ids and status codes. `calls/messages.py` does the rest."""

import logging
import time
from collections.abc import Callable
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError, Message

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import StatusError
from keraslight_serving.server.calls.messages import AnyMethod, Messages
from keraslight_serving.server.telemetry.logging import REQUEST_ID, log_request, request_id

logger = logging.getLogger("keraslight_serving.server")

# Status messages travel in a header, and clients reject headers of more than 8 KiB. TensorFlow Serving cuts here, too.
MAX_MESSAGE = 1024

# Seconds. For calls without a deadline grpc reports one in some hundred thousand years, longer than a lock can wait.
YEAR = 365 * 86_400


def add_to_server(messages: Messages, server: grpc.Server) -> None:
    """Registers the calls. grpc answers all others with UNIMPLEMENTED."""
    for method in messages.calls:
        # Bytes in and out: grpc itself would log a traceback for each message that it can't parse.
        handler: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(_with_status(method, messages))
        by_name = {method.name: handler}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(method.service, by_name),))


def header(metadata: Any, name: str) -> str | None:
    """Returns the text of a header in gRPC's metadata; None if it is missing or binary."""
    found = dict(metadata).get(name)
    return found if isinstance(found, str) else None


def _with_status(method: AnyMethod, messages: Messages) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    """Turns whatever a call raises into a status, so that no request can take down its thread or the server.

    The request's id, the caller's own or one generated here, is returned as trailing metadata, `x-request-id`.
    """

    def handle(data: bytes, context: grpc.ServicerContext) -> bytes:
        remaining = context.time_remaining()
        call = Call(
            id=request_id(header(context.invocation_metadata(), REQUEST_ID)),
            entrypoint="GRPC",
            deadline=None if remaining is None or remaining > YEAR else time.monotonic() + remaining,
            is_active=context.is_active,
            peer=context.peer(),
        )
        context.set_trailing_metadata(((REQUEST_ID, call.id),))
        try:
            return messages.answer(method, _parse(method, data, call), call).SerializeToString()
        except StatusError as error:
            code, text = error.code, error.text
        except Exception as error:
            logger.exception("%s failed", method.name)
            code, text = grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}"
        if len(text) > MAX_MESSAGE:
            text = text[:MAX_MESSAGE] + "...TRUNCATED"
        context.abort(code, text)

    return handle


def _parse(method: AnyMethod, data: bytes, call: Call) -> Message:
    """Raises INTERNAL with the text of grpc's Python servers. TensorFlow Serving, in C++, gives no text."""
    try:
        return cast(Message, method.request.FromString(data))
    except DecodeError:
        error = StatusError(grpc.StatusCode.INTERNAL, "Exception deserializing request!")
        log_request(call, method.name, error.code.name, 0, text=error.text, callers_fault=True)
        raise error from None
