"""The gRPC server: its options, ports and services."""

from collections.abc import Sequence
from concurrent import futures

import grpc

from keraslight_serving.server.base.errors import StartError
from keraslight_serving.server.calls.messages import Messages
from keraslight_serving.server.rpc import handlers, reflection
from keraslight_serving.server.rpc.security import TokenInterceptor, Tokens

_OPTIONS = {"grpc.max_receive_message_length": 2**31 - 1, "grpc.max_send_message_length": 2**31 - 1}

# grpc gives each call a thread before its message has arrived. With few threads, a few clients that send a byte now and
# then would block all others; idle threads cost little. Further calls are rejected with RESOURCE_EXHAUSTED. grpc has no
# deadline for a message that never arrives. Only `max_connection_age_ms` and `.._grace_ms` end such a call, together
# with all others of its connection, so setting them is left to the operator.
OPEN_CALLS = 512


def make_server(
    messages: Messages, *, channel_arguments: str = "", tokens: Tokens | None = None, shared_port: bool = False
) -> grpc.Server:
    """Returns a server for the calls and for reflection, without a port yet.

    With `shared_port`, servers in other processes may listen on the same port; each then gets some of the connections.
    Raises StartError if `channel_arguments` (see `parse_channel_arguments`) can't be parsed.
    """
    options = _OPTIONS | {"grpc.so_reuseport": int(shared_port)} | parse_channel_arguments(channel_arguments)
    server = grpc.server(
        futures.ThreadPoolExecutor(OPEN_CALLS, thread_name_prefix="grpc"),
        maximum_concurrent_rpcs=OPEN_CALLS,
        options=list(options.items()),
        interceptors=[] if tokens is None else [TokenInterceptor(tokens)],
    )
    handlers.add_to_server(messages, server)
    reflection.add_to_server(server)
    return server


def parse_channel_arguments(text: str) -> dict[str, int | str]:
    """Reads `--grpc_channel_arguments`, `key=value,key=value`. A value that looks like an integer is one."""
    found: dict[str, int | str] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not key or not equals:
            raise StartError(f"`grpc_channel_arguments` must be key=value,key=value. Received: {text}")
        try:
            found[key] = int(value)
        except ValueError:
            found[key] = value
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
