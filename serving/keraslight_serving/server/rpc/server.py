"""The gRPC server: its options, ports and services."""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any, ParamSpec, TypeVar

import grpc
from grpc_health.v1 import health, health_pb2

from keraslight_serving.server.base.budget import Budget
from keraslight_serving.server.base.errors import StartError
from keraslight_serving.server.calls.messages import Messages
from keraslight_serving.server.rpc import handlers, reflection
from keraslight_serving.server.rpc.arrivals import Arrivals
from keraslight_serving.server.rpc.security import TokenInterceptor, Tokens

P = ParamSpec("P")
T = TypeVar("T")

_OPTIONS = {"grpc.max_send_message_length": 2**31 - 1}

# Milliseconds after which a connection without calls is closed; clients reconnect transparently.
IDLE_CONNECTION_MS = 300_000

# grpc gives each call a thread before its message has arrived. With few threads, a few clients that send a byte now and
# then would block all others; idle threads cost little. Further calls are rejected with RESOURCE_EXHAUSTED.
OPEN_CALLS = 512
QUICK_CALLS = 64  # further threads, for health checks and questions about models
QUICK_SECONDS = 5.0  # in which a health check's message must arrive
MOST_CALLS = 4096  # including those that are about to be rejected


class CountingPool(futures.ThreadPoolExecutor):
    """A pool that knows how many tasks it has, `open`."""

    def __init__(self, threads: int, name: str) -> None:
        super().__init__(threads, thread_name_prefix=name)
        self._counting = threading.Lock()
        self.open = 0

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "futures.Future[T]":
        with self._counting:
            self.open += 1
        found = super().submit(fn, *args, **kwargs)
        found.add_done_callback(self._one_less)
        return found

    def _one_less(self, _: object) -> None:
        with self._counting:
            self.open -= 1


class Health(health.HealthServicer):  # type: ignore[misc]  # it is untyped
    """`grpc.health.v1`, whose answers never queue behind other calls: they have a pool of threads of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = futures.ThreadPoolExecutor(QUICK_CALLS, thread_name_prefix="quick")
        self._watching = futures.ThreadPoolExecutor(8, thread_name_prefix="watch")

    def add_to_server(self, server: grpc.Server, arrivals: Arrivals) -> None:
        """Registers the service. Calls whose message doesn't come can't keep others out for long."""

        def check(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            return self.Check(arrivals.first(requests, context, QUICK_SECONDS), context)

        def watch(request: Any, context: grpc.ServicerContext, send_response_callback: Any = None) -> Any:
            return self.Watch(request, context, send_response_callback)

        watch.experimental_non_blocking = True  # type: ignore[attr-defined]  # grpc reads it
        codec = health_pb2.HealthCheckRequest.FromString, health_pb2.HealthCheckResponse.SerializeToString
        by_name: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Check": grpc.stream_unary_rpc_method_handler(handlers.in_pool(check, self.pool), *codec),
            "Watch": grpc.unary_stream_rpc_method_handler(handlers.in_pool(watch, self._watching), *codec),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", by_name),))

    def close(self) -> None:
        for pool in (self.pool, self._watching):
            pool.shutdown(wait=False)


def make_server(
    messages: Messages,
    *,
    checks: Health | None = None,
    budget: Budget | None = None,
    arrivals: Arrivals | None = None,
    max_message: int = 100 * 2**20,
    channel_arguments: str = "",
    tokens: Tokens | None = None,
    shared_port: bool = False,
) -> grpc.Server:
    """Returns a server for the calls, for health checks and for reflection, without a port yet.

    Messages have at most `max_message` bytes once they are decompressed, and large ones together those of `budget`.
    `arrivals`, which the caller starts and closes, limits the wait for them.
    With `shared_port`, servers in other processes may listen on the same port; each then gets some of the connections.
    Raises StartError if `channel_arguments` (see `parse_channel_arguments`) can't be parsed.
    """
    options: dict[str, int | str] = {
        **_OPTIONS,
        "grpc.max_receive_message_length": max_message,
        "grpc.max_connection_idle_ms": IDLE_CONNECTION_MS,
        "grpc.so_reuseport": int(shared_port),
        **parse_channel_arguments(channel_arguments),
    }
    pool, checks = CountingPool(OPEN_CALLS, "grpc"), checks or Health()
    server = grpc.server(
        pool,
        maximum_concurrent_rpcs=MOST_CALLS,
        options=list(options.items()),
        interceptors=[] if tokens is None else [TokenInterceptor(tokens)],
    )
    arrivals, budget = arrivals or Arrivals(None), budget or Budget(2**30)
    calls = handlers.Handlers(messages, budget, arrivals, lambda: pool.open >= OPEN_CALLS, checks.pool)
    server.add_generic_rpc_handlers((calls,))
    checks.add_to_server(server, arrivals)
    reflection.add_to_server(server)
    return server


# Names of channel arguments whose value is a number.
_NUMBERS = re.compile(r"_(length|ms|bytes|size|strikes|streams|data)$|max_|min_|permit_|so_reuseport|enable_")


def parse_channel_arguments(text: str) -> dict[str, int | str]:
    """Reads `--grpc_channel_arguments`, `key=value,key=value`. A value that looks like an integer is one."""
    found: dict[str, int | str] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not key or not equals:
            raise StartError(f"`grpc_channel_arguments` must be key=value,key=value. Received: {text}")
        try:
            found[key] = int(value)
        except ValueError as error:
            # grpc ignores a text where it expects a number: "16M" would be its default.
            if re.match(r"\s*[-+.]?\d", value) or _NUMBERS.search(key):
                rule = f"`{key}` in `grpc_channel_arguments` must be a whole number, without a unit"
                raise StartError(f"{rule}. Received: {value}") from error
            found[key] = value
        else:
            if not -(2**31) <= int(value) < 2**31:
                rule = f"`{key}` in `grpc_channel_arguments` must be a number from -2147483648 to 2147483647"
                raise StartError(f"{rule}. Received: {value}")
    return found


def listen(server: grpc.Server, targets: Sequence[str], credentials: grpc.ServerCredentials | None) -> list[int]:
    """Opens ports, each `host:port` or `unix:path`, and returns their numbers, 1 for a Unix socket."""
    ports = []
    for target in targets:
        try:
            port = server.add_secure_port(target, credentials) if credentials else server.add_insecure_port(target)
            reason = "grpc could not bind it"
        except RuntimeError as error:
            port, reason = 0, str(error)
        if port == 0:
            raise StartError(f"The server must be able to listen on its address. Received: {target}, {reason}")
        ports.append(port)
    return ports
