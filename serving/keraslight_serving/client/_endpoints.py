"""The addresses of the servers: one channel each, used in turn, skipping any that has just failed."""

import ipaddress
import itertools
import logging
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

import grpc

from keraslight_serving.client._transport import Channel
from keraslight_serving.client.errors import InvalidInput
from keraslight_serving.wire.methods import Method

logger = logging.getLogger("keraslight_serving.client")

_HOST_AND_PORT = re.compile(r"(?P<host>\[[^\s\[\]/@]+\]|[^\s:\[\]/@]+)(?::(?P<port>[0-9]{1,9}))?", re.ASCII)
LONGEST_EJECTION = 30.0  # seconds
_TROUBLES = 3  # overloads and overtaken requests in a row after which a server is ejected

C = TypeVar("C", bound=Channel[Any])


class Endpoint(Generic[C]):
    """An address and its channel, which is opened by the first call."""

    def __init__(self, address: str, open_channel: Callable[[str], C]) -> None:
        self.address = address
        self._open_channel = open_channel
        self._channel: C | None = None
        self._calls: dict[str, Any] = {}  # making a callable costs as much as a tenth of a call
        self._lock = threading.Lock()
        self.closed: Callable[[], Exception] | None = None  # makes the error of calls after `close`
        self.troubles = 0  # since the last response, as are the ejections
        self.ejections = 0
        self.ejected_until = 0.0

    def call(self, method: Method[Any, Any]) -> Any:
        """Returns the channel's callable for a method. Raises the error passed to `close` if that has been called."""
        found = self._calls.get(method.path)
        if found is None:
            with self._lock:
                if self.closed is not None:
                    raise self.closed()
                if self._channel is None:
                    self._channel = self._open_channel(self.address)
                found = self._calls[method.path] = self._channel.unary_unary(
                    method.path,
                    request_serializer=method.request.SerializeToString,
                    response_deserializer=method.response.FromString,
                )
        return found

    def close(self, error: Callable[[], Exception]) -> C | None:
        """Makes further calls, such as retries, raise this error. Returns the open channel, for the caller to close."""
        with self._lock:
            self.closed = error
            channel, self._channel = self._channel, None
            self._calls.clear()
        return channel


class Endpoints(Generic[C]):
    """The addresses of a client, used in turn. Threads may share it.

    An address that can't be reached is ejected for 1, 2, 4 ... 30 seconds, and so is one that three times in a row was
    overloaded, exceeded the time for an attempt, or was overtaken by another address that got the same request later.
    Requests that were in flight when an address was ejected belong to the same outage and don't count again. If all
    are ejected, the one that returns first is used.
    """

    def __init__(
        self, addresses: Sequence[str], open_channel: Callable[[str], C], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._all = [Endpoint(address, open_channel) for address in addresses]
        self._turns, self._retry_turns = itertools.count(), itertools.count()
        self.closed: Callable[[], Exception] | None = None  # as in Endpoint
        self._clock = clock
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Endpoint[C]]:
        return iter(self._all)

    def __str__(self) -> str:
        return ", ".join(endpoint.address for endpoint in self._all)

    def close(self, error: Callable[[], Exception]) -> list[C]:
        """Closes all endpoints; returns their open channels, for the caller to close."""
        self.closed = error
        return [channel for endpoint in self._all if (channel := endpoint.close(error)) is not None]

    def pick(self, avoid: Sequence[Endpoint[C]] = (), busy: Sequence[Endpoint[C]] = ()) -> Endpoint[C]:
        """The next endpoint in turn that is not ejected and, if possible, in neither list; rather in `avoid`."""
        if len(self._all) == 1:
            return self._all[0]
        # Retries take turns of their own. With two endpoints, one retry per call would send all calls to the first.
        turn = next(self._retry_turns if avoid else self._turns) % len(self._all)
        in_turn, now = self._all[turn:] + self._all[:turn], self._clock()
        usable = [endpoint for endpoint in in_turn if endpoint.ejected_until <= now]
        if not usable:
            return min(in_turn, key=lambda endpoint: endpoint.ejected_until)
        return min(usable, key=lambda endpoint: 2 * (endpoint in busy) + (endpoint in avoid))

    def succeeded(self, endpoint: Endpoint[C]) -> None:
        if endpoint.troubles or endpoint.ejections:
            with self._lock:
                endpoint.troubles, endpoint.ejections, endpoint.ejected_until = 0, 0, 0.0

    def failed(self, endpoint: Endpoint[C], code: grpc.StatusCode, began: float) -> None:
        """Records the failure of an attempt that began then. DEADLINE_EXCEEDED: the server was too slow."""
        unreachable = code == grpc.StatusCode.UNAVAILABLE
        if not unreachable and code not in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED):
            return
        with self._lock:
            if len(self._all) == 1 or began < endpoint.ejected_until:
                return
            endpoint.troubles += not unreachable
            if not unreachable and not endpoint.ejections and endpoint.troubles < _TROUBLES:
                return
            seconds = min(2.0**endpoint.ejections, LONGEST_EJECTION)
            endpoint.ejections += 1
            endpoint.ejected_until = self._clock() + seconds
        logger.warning("%s is skipped for %g s: %s", endpoint.address, seconds, code.name)


def addresses_of(target: str | Sequence[str]) -> list[str]:
    """Splits and checks `target`. URLs may have only scheme, host, port and path."""
    addresses = [address.strip() for address in (target.split(",") if isinstance(target, str) else target)]
    if not addresses or not all(addresses):
        raise InvalidInput(f"`target` must be host:port, or several. Received: {target!r}")
    for address in addresses:
        if is_url(address):
            _check_url(address)
            continue
        scheme, hosts = _hosts_and_ports(address)
        for found in hosts:
            if found is None or (not scheme and found["port"] is None):
                raise InvalidInput(f"`target` must be host:port, or several. Received: {address!r}")
            if found["port"] is not None and not 1 <= int(found["port"]) <= 65535:  # gRPC would use it modulo 65536
                raise InvalidInput(f"`target` must have a port from 1 to 65535. Received: {address!r}")
    return addresses


def is_url(address: str) -> bool:
    """Whether the address is one of a REST API."""
    return address.startswith(("http://", "https://"))


def _check_url(address: str) -> None:
    with suppress(ValueError):  # the port is not a number, or a bracket is missing
        url = urllib.parse.urlsplit(address)
        if url.hostname and url.port != 0 and not (url.username or url.query or url.fragment):
            return
    raise InvalidInput(f"`target` must be http://host:port or https://host:port. Received: {address!r}")


def _hosts_and_ports(address: str) -> tuple[str, list[re.Match[str] | None]]:
    """The scheme of a gRPC address, such as `dns:`, and matches with `host` and `port`; None for what is neither."""
    if address.startswith(("unix:", "unix-abstract:", "xds:")):
        return address.partition(":")[0] + ":", []
    found = re.match(r"(?:(?:dns|ipv4|ipv6):(?://[^/]*)?/?)?", address)
    scheme, rest = (found[0], address[found.end() :]) if found else ("", address)
    parts = rest.split(",") if scheme.startswith("ipv") else [rest]
    return scheme, [_HOST_AND_PORT.fullmatch(part) for part in parts]


def is_local(address: str) -> bool:
    """Whether requests to this address stay on this machine."""
    if is_url(address):
        return _is_loopback(urllib.parse.urlsplit(address).hostname or "")
    scheme, hosts = _hosts_and_ports(address)
    if scheme == "xds:" or scheme.strip("/").count("/"):  # `dns://authority/`: whatever that tells
        return False
    return all(found is not None and _is_loopback(found["host"].strip("[]")) for found in hosts)


def _is_loopback(host: str) -> bool:
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, such as 127.example.org
        return False


def channel_options(address: str, max_message_bytes: int, keepalive: float) -> list[tuple[str, Any]]:
    """Options of a gRPC channel. Servers treat more than one ping in five minutes as an attack ("too_many_pings")."""
    return [
        # `http_proxy` and the like are for other machines; a proxy's localhost is another one.
        ("grpc.enable_http_proxy", int(not is_local(address))),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.keepalive_time_ms", round(1000 * keepalive)),
        ("grpc.keepalive_timeout_ms", 20_000),
        # Finds a restarted server within two seconds instead of gRPC's two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # A name with several addresses (`dns:///`): all reachable ones in turn.
        ("grpc.lb_policy_name", "round_robin"),
        ("grpc.enable_retries", 0),  # the client does its own retries, within its budget
    ]
