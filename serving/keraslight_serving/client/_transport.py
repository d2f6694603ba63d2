"""The seam between the clients and what carries their requests: gRPC, REST, or the fakes of `testing`."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

Headers = tuple[tuple[str, str], ...]


class Pending(Protocol):
    """A request in flight, such as a grpc.Future or a concurrent.futures.Future."""

    def result(self) -> Any:
        """Waits for the response. Raises grpc.RpcError if the request failed."""

    def cancel(self) -> bool: ...

    def add_done_callback(self, fn: Callable[[Any], None], /) -> None: ...


class Call(Protocol):
    """A method of a `Channel` for the blocking client. Threads may share it."""

    def __call__(self, request: Any, *, timeout: float, metadata: Headers, wait_for_ready: bool) -> Any:
        """Sends a protobuf message and waits for the response.

        Raises grpc.RpcError if there is none: DEADLINE_EXCEEDED after `timeout` seconds, CANCELLED if the channel is
        closed. `wait_for_ready`: whether to wait for a server that can't be reached yet instead of failing.
        """

    def future(self, request: Any, *, timeout: float, metadata: Headers, wait_for_ready: bool) -> Pending:
        """Sends a request without waiting."""


class AsyncCall(Protocol):
    """A method of a `Channel` for the asyncio client: like `Call`, but awaited."""

    def __call__(self, request: Any, *, timeout: float, metadata: Headers, wait_for_ready: bool) -> Awaitable[Any]: ...


AnyCall = TypeVar("AnyCall", bound=Call | AsyncCall, covariant=True)


class Channel(Protocol[AnyCall]):
    """Carries requests to one server: a grpc.Channel, a grpc.aio.Channel, or anything with these two methods."""

    def unary_unary(
        self, path: str, /, *, request_serializer: Callable[[Any], bytes], response_deserializer: Callable[[bytes], Any]
    ) -> AnyCall:
        """Returns the callable for a method, given by its path: `/tensorflow.serving.PredictionService/Predict`."""

    def close(self) -> Any:
        """Ends all requests in flight; awaited by the asyncio client. May be called twice."""
