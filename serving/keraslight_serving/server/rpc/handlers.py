"""gRPC's side of the calls: bytes, deadlines, request ids and status codes. `calls/messages.py` does the rest."""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, ParamSpec, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message

from keraslight_serving.server.base.budget import SMALL, Budget, Held
from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import StatusError
from keraslight_serving.server.calls.messages import AnyMethod, Messages
from keraslight_serving.server.rpc.arrivals import Arrivals
from keraslight_serving.server.telemetry.logging import REQUEST_ID, log_request, request_id
from keraslight_serving.wire import methods

P = ParamSpec("P")
R = TypeVar("R")

# A message; with what it takes of the budget, if it is large; or the error if that was too much.
_Received = bytes | tuple[bytes, Held] | StatusError

logger = logging.getLogger("keraslight_serving.server")

# Bytes of UTF-8. Status messages travel in a header, where all but ASCII takes three times its size, and clients reject
# headers of more than 8 KiB, some already from 4 KiB. TensorFlow Serving cuts here, too.
MAX_MESSAGE = 1024

# Seconds. For calls without a deadline grpc reports one in some hundred thousand years, longer than a lock can wait.
YEAR = 365 * 86_400


# The calls that only look something up. They have threads of their own, so that they don't queue behind others.
_QUICK = {methods.GET_MODEL_STATUS, methods.LIST_MODELS, methods.GET_MODEL_METADATA}


class Handlers(grpc.GenericRpcHandler):
    """The calls, for a grpc server. grpc answers all others with UNIMPLEMENTED.

    `full` tells whether the server's threads are all in use; calls are then rejected with RESOURCE_EXHAUSTED, except
    those that run in `quick`. `arrivals` limits the wait for a message. The bytes of large messages are taken from
    `budget` until their call is answered.
    """

    def __init__(
        self,
        messages: Messages,
        budget: Budget,
        arrivals: Arrivals,
        full: Callable[[], bool],
        quick: futures.ThreadPoolExecutor,
    ) -> None:
        self._full = full
        self._by_path: dict[str, tuple[bool, grpc.RpcMethodHandler[Any, Any]]] = {}

        def received(data: bytes) -> _Received:
            """Runs as soon as a message has arrived, so that one too many is gone before the next arrives."""
            try:
                return data if len(data) < SMALL else (data, budget.hold(len(data)))
            except StatusError as error:
                return error

        for method in messages.calls:
            # Bytes in and out: grpc itself would log a traceback for each message that it can't parse.
            handle = _with_first(_with_status(method, messages), arrivals)
            if method in _QUICK:
                in_pool(handle, quick)
            handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_unary_rpc_method_handler(
                handle, request_deserializer=received
            )
            self._by_path[method.path] = method in _QUICK, handler
        # As a stream that is never read: for a unary call, grpc would first receive a message of any size.
        self._refuse: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(in_pool(_refuse, quick))

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":  # quoted: at run time the class is not generic
        found = self._by_path.get(handler_call_details.method)
        if found is None:
            return None
        is_quick, handler = found
        return handler if is_quick or not self._full() else self._refuse


def _with_first(
    handle: "Callable[[_Received, grpc.ServicerContext], bytes]", arrivals: Arrivals
) -> "Callable[[Iterator[_Received], grpc.ServicerContext], bytes]":
    def wait_and_handle(received: Iterator[_Received], context: grpc.ServicerContext) -> bytes:
        return handle(arrivals.first(received, context), context)

    return wait_and_handle


def in_pool(behavior: Callable[P, R], pool: futures.ThreadPoolExecutor) -> Callable[P, R]:
    """Makes grpc run a function that answers calls in a thread of this pool."""
    behavior.experimental_thread_pool = pool  # type: ignore[attr-defined]  # grpc reads it
    return behavior


def _refuse(_: object, context: grpc.ServicerContext) -> Iterator[bytes]:
    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!")


def header(metadata: Any, name: str) -> str | None:
    """Returns the text of a header in gRPC's metadata; None if it is missing or binary."""
    found = dict(metadata).get(name)
    return found if isinstance(found, str) else None


def _with_status(method: AnyMethod, messages: Messages) -> "Callable[[_Received, grpc.ServicerContext], bytes]":
    """Turns whatever a call raises into a status, so that no request can take down its thread or the server.

    The request's id, the caller's own or one generated here, is returned as trailing metadata, `x-request-id`.
    """

    def handle(received: _Received, context: grpc.ServicerContext) -> bytes:
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
            if isinstance(received, StatusError):
                log_request(call, method.name, received.code.name, 0, text=received.text)
                raise received
            data = received if isinstance(received, bytes) else received[0]
            return messages.answer(method, _parse(method, data, call), call).SerializeToString()
        except StatusError as error:
            code, text = error.code, error.text
        except Exception as error:
            logger.exception("%s failed", method.name)
            code, text = grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}"
        context.abort(code, shortened(text))

    return handle


def shortened(text: str) -> str:
    """A status message that fits in a header, as TensorFlow Serving cuts it, but never in the middle of a character."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= MAX_MESSAGE:
        return text
    return encoded[:MAX_MESSAGE].decode(errors="ignore") + "...TRUNCATED"


def _parse(method: AnyMethod, data: bytes, call: Call) -> Message:
    """Raises INTERNAL with the text of grpc's Python servers. TensorFlow Serving, in C++, gives no text."""
    try:
        return cast(Message, method.request.FromString(data))
    except DecodeError:
        error = StatusError(grpc.StatusCode.INTERNAL, "Exception deserializing request!")
        log_request(call, method.name, error.code.name, 0, text=error.text, callers_fault=True)
        raise error from None
