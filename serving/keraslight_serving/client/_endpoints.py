"""Where the servers are: one gRPC channel an address, turn by turn, and none that has just failed."""

from __future__ import annotations

import ipaddress
import itertools
import logging
import threading
import time
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from keraslight_serving.client.errors import InvalidInput

logger = logging.getLogger("keraslight_serving.client")

LONGEST_EJECTION = 30.0  # seconds
_OVERLOADS = 3  # so many in a row, and a server is left alone


class Endpoint:
    """An address with its channel.

    `calls` keeps the multi-callables, whose making costs as much as a tenth of a call.
    """

    def __init__(self, address: str, open_channel: Callable[[str], Any]) -> None:
        self.address = address
        self._open_channel = open_channel
        self._channel: Any = None
        self._calls: dict[str, Any] = {}
        self._lock = threading.Lock()
        self.closed: Callable[[], Exception] | None = None  # makes the error of calls since `close`
        self.failures = 0
        self.ejected_until = 0.0

    def call(self, method: Any) -> Any:
        """The channel's callable for a method; opens the channel the first time.

        Raises:
            Exception: the one that `close` was given.
        """
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

    def close(self, error: Callable[[], Exception]) -> Any:
        """Opens no channel any more: calls, such as retries of what is on its way, raise this error.

        Returns:
            the channel if one was opened, to be closed.
        """
        with self._lock:
            self.closed = error
            channel, self._channel = self._channel, None
            self._calls.clear()
        return channel


class Endpoints:
    """The addresses of a client, asked turn by turn. Threads share it.

    An address that can't be reached, or leaves an attempt unanswered, is ejected for 1, 2, 4 ... 30 seconds; three
    times too busy in a row is as bad. When all are ejected, the one that comes back first is asked.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        open_channel: Callable[[str], Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._all = [Endpoint(address, open_channel) for address in addresses]
        self._turns = itertools.count()
        self.closed: Callable[[], Exception] | None = None  # as an Endpoint's
        self._clock = clock
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self):
        return iter(self._all)

    def __str__(self) -> str:
        return ", ".join(endpoint.address for endpoint in self._all)

    def close(self, error: Callable[[], Exception]) -> list[Any]:
        """`Endpoint.close` for all. Returns the channels that were opened, to be closed."""
        self.closed = error
        return [channel for endpoint in self._all if (channel := endpoint.close(error)) is not None]

    def pick(self, avoid: Sequence[Endpoint] = ()) -> Endpoint:
        """The next in turn that is not ejected, and if possible none of `avoid`."""
        if len(self._all) == 1:
            return self._all[0]
        now, turn = self._clock(), next(self._turns)
        in_turn = [self._all[(turn + offset) % len(self._all)] for offset in range(len(self._all))]
        for candidates in (
            [e for e in in_turn if e.ejected_until <= now and e not in avoid],
            [e for e in in_turn if e.ejected_until <= now],
        ):
            if candidates:
                return candidates[0]
        return min(in_turn, key=lambda e: e.ejected_until)

    def succeeded(self, endpoint: Endpoint) -> None:
        if endpoint.failures:
            with self._lock:
                endpoint.failures, endpoint.ejected_until = 0, 0.0

    def failed(self, endpoint: Endpoint, code: grpc.StatusCode, cut_short: bool) -> None:
        """Notes a failed attempt. `cut_short`: it ended for its share of the time, not for the caller's deadline."""
        unreachable = code == grpc.StatusCode.UNAVAILABLE or (code == grpc.StatusCode.DEADLINE_EXCEEDED and cut_short)
        if not unreachable and code != grpc.StatusCode.RESOURCE_EXHAUSTED:
            return
        with self._lock:
            endpoint.failures += 1
            strikes = endpoint.failures if unreachable else endpoint.failures - _OVERLOADS + 1
            if strikes < 1 or len(self._all) == 1:
                return
            seconds = min(2.0 ** (strikes - 1), LONGEST_EJECTION)
            endpoint.ejected_until = self._clock() + seconds
        logger.warning("%s is left alone for %g s: %s", endpoint.address, seconds, code.name)


def addresses_of(target: str | Sequence[str]) -> list[str]:
    """`host:port`, several of them in a list or separated by commas, or a gRPC target such as `dns:///name:port`.

    For REST a URL, `http://host:port` or `https://host:port`, perhaps with a path.

    Raises:
        InvalidInput: there is none, one has no port, or a URL has more than that.
    """
    given = target.split(",") if isinstance(target, str) else list(target)
    addresses = [address.strip() for address in given]
    if not addresses or not all(addresses):
        raise InvalidInput(f"`target` must be host:port, or several. Received: {target!r}")
    for address in addresses:
        if is_url(address):
            _check_url(address)
        elif (
            not address.startswith(("unix:", "dns:", "ipv4:", "ipv6:", "xds:"))
            and not address.rpartition(":")[2].isdigit()
        ):
            raise InvalidInput(f"`target` must be host:port, or several. Received: {address!r}")
    return addresses


def is_url(address: str) -> bool:
    """Whether it is spoken to over REST."""
    return address.startswith(("http://", "https://"))


def _check_url(address: str) -> None:
    try:
        url = urllib.parse.urlsplit(address)
        plain = bool(url.hostname) and url.port != 0 and not (url.username or url.query or url.fragment)
    except ValueError:  # a port that is no number, or half a pair of brackets
        plain = False
    if not plain:
        raise InvalidInput(f"`target` must be http://host:port or https://host:port. Received: {address!r}")


def is_local(address: str) -> bool:
    """Whether nothing that is sent there leaves this machine."""
    if is_url(address):
        host = urllib.parse.urlsplit(address).hostname or ""
    else:
        host = address.rpartition(":")[0].strip("[]").rpartition("/")[2]
    try:
        return address.startswith("unix:") or host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, such as 127.example.org
        return False


def channel_options(max_message_bytes: int, keepalive: float) -> list[tuple[str, Any]]:
    """Options of a channel.

    gRPC servers take more than a ping in five minutes for an attack ("too_many_pings") and close the connection, so
    `keepalive` should stay above 300 seconds unless the server allows more.
    """
    return [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.keepalive_time_ms", round(1000 * keepalive)),
        ("grpc.keepalive_timeout_ms", 20_000),
        # A server that was replaced is found again within two seconds, not within gRPC's two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # A name with several addresses (`dns:///`): turn by turn over those that can be reached.
        ("grpc.lb_policy_name", "round_robin"),
        ("grpc.enable_retries", 0),  # retries are the client's own, with its budget
    ]
