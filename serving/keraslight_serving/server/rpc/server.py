"""grpc's server around the calls: its options, its ports, and the services that come with it."""

from collections.abc import Sequence
from concurrent import futures

import grpc

from keraslight_serving.server.base.errors import StartError
from keraslight_serving.server.calls.service import Service, add_to_server
from keraslight_serving.server.rpc import reflection as _reflection
from keraslight_serving.server.rpc.security import TokenInterceptor, Tokens

_OPTIONS = {
    "grpc.max_receive_message_length": 2**31 - 1,
    "grpc.max_send_message_length": 2**31 - 1,
}

# grpc gives each call a thread before its message is there: with few of them, as many clients that send a byte now and
# then would keep all others waiting. Idle ones cost little. Beyond, calls are refused: RESOURCE_EXHAUSTED. grpc has no
# deadline for a message that never comes; only `max_connection_age_ms` and `.._grace_ms` end such a call, with all
# others of its connection, so they are left to the operator.
OPEN_CALLS = 512


def make_server(
    service: Service,
    *,
    channel_arguments: str = "",
    tokens: Tokens | None = None,
    shared_port: bool = False,
) -> grpc.Server:
    """A server that answers the calls and reflection, without a port yet.

    Args:
        channel_arguments: `key=value,key=value` of grpc's channel arguments, such as
            `grpc.max_receive_message_length=4194304`.
        tokens: those that callers must have one of.
        shared_port: let other servers, in other processes, listen on the same port; each then gets some of the callers.
    """
    options = _OPTIONS | {"grpc.so_reuseport": int(shared_port)} | parse_channel_arguments(channel_arguments)
    server = grpc.server(
        futures.ThreadPoolExecutor(OPEN_CALLS, thread_name_prefix="grpc"),
        maximum_concurrent_rpcs=OPEN_CALLS,
        options=list(options.items()),
        interceptors=() if tokens is None else (TokenInterceptor(tokens),),
    )
    add_to_server(service, server)
    _reflection.add_to_server(server)
    return server


def parse_channel_arguments(text: str) -> dict[str, int | str]:
    """Reads `--grpc_channel_arguments`: a value is a number if it looks like one.

    Raises:
        StartError: a part without `=`.
    """
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
    """Opens ports. Returns their numbers; 1 for a Unix socket.

    Args:
        targets: `host:port` or `unix:path`.
        credentials: None: without encryption.

    Raises:
        StartError: one of them can't be opened.
    """
    ports = []
    for target in targets:
        try:
            if credentials is None:
                port = server.add_insecure_port(target)
            else:
                port = server.add_secure_port(target, credentials)
        except RuntimeError as error:
            port, reason = 0, str(error)
        else:
            reason = "grpc could not bind it"
        if port == 0:
            raise StartError(f"The server must be able to listen on its address. Received: {target}, {reason}")
        ports.append(port)
    return ports
