"""The asyncio client."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import grpc

from keraslight_serving.client._base import BaseClient
from keraslight_serving.client._rankings import Batch
from keraslight_serving.client._retry import Ended, Start, Steps, Stop
from keraslight_serving.client._types import Answer, Classification, ModelMetadata, VersionStatus
from keraslight_serving.client.errors import InvalidInput
from keraslight_serving.wire import methods

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

    from keraslight_serving.client._images import ImageLike


class AsyncClassifierClient(BaseClient):
    """`ClassifierClient` for asyncio: the same arguments, answers and errors; `channel` is a grpc.aio.Channel.

    To be used in the event loop of its first call, and closed, or used in an `async with`. Cancelling a task cancels
    its requests. Image files are read in the event loop.
    """

    async def classify(
        self,
        images: ImageLike | Iterable[ImageLike],
        top_k: int = 5,
        *,
        on_error: Literal["raise", "return"] = "raise",
        metadata: Mapping[str, str] | None = None,
    ) -> list[list[Classification]] | list[list[Classification] | InvalidInput]:
        """As `ClassifierClient.classify`.

        >>> [ranking] = await client.classify("seven.png", top_k=2)
        >>> ranking[0].label
        'seven'
        """
        if on_error not in ("raise", "return"):
            raise self._calls.invalid(f'`on_error` must be "raise" or "return". Received: {on_error!r}')
        found: list[Any] = []
        async for answer in self.stream(images, top_k, metadata=metadata):
            if answer.error is not None and on_error == "raise":
                raise answer.error
            found.append(answer.error or answer.ranking)
        if not found:
            raise self._calls.invalid("There must be at least one image. Received: none")
        return found

    async def stream(
        self,
        images: ImageLike | Iterable[ImageLike],
        top_k: int = 5,
        *,
        metadata: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Answer]:
        """As `ClassifierClient.stream`.

        >>> [(answer.source, answer.ranking[0].label) async for answer in client.stream(["seven.png"])]
        [('seven.png', 'seven')]
        """
        async for batch in self._in_order(self._rankings.batches(images, top_k), top_k, metadata):
            for answer in batch:
                yield answer

    async def predict(
        self,
        inputs: Mapping[str, ArrayLike],
        signature: str = methods.DEFAULT_SIGNATURE,
        outputs: Iterable[str] | None = None,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> dict[str, np.ndarray]:
        """As `ClassifierClient.predict`.

        >>> sorted(await client.predict({"images": np.zeros((1, 8, 8, 1), "float32")}))
        ['probabilities']
        """
        return await self._run(self._tensors.predict(inputs, signature, outputs, metadata, timeout))

    async def metadata(self) -> ModelMetadata:
        """As `ClassifierClient.metadata`.

        >>> (await client.metadata()).signatures["serving_default"].inputs["images"].dtype
        'float32'
        """
        return await self._run(self._model.metadata())

    async def status(self) -> list[VersionStatus]:
        """As `ClassifierClient.status`.

        >>> [(status.version, status.state) for status in await client.status()]
        [(1, 'AVAILABLE')]
        """
        return await self._run(self._model.status())

    async def models(self) -> dict[str, list[VersionStatus]]:
        """As `ClassifierClient.models`.

        >>> list(await client.models())
        ['default']
        """
        return await self._run(self._model.models())

    async def wait_until_ready(self, timeout: float = 60.0) -> None:
        """As `ClassifierClient.wait_until_ready`.

        >>> await client.wait_until_ready(timeout=30)
        """
        await self._run(self._model.wait_until_ready(timeout))

    async def close(self) -> None:
        """As `ClassifierClient.close`.

        >>> await client.close()
        """
        for channel in self._close():
            await channel.close()

    async def __aenter__(self) -> AsyncClassifierClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # ------------------------------------------------------------ carrying out the steps

    def _open_channel(self, address: str, credentials: Any, options: list) -> grpc.aio.Channel:
        if credentials is None:
            return grpc.aio.insecure_channel(address, options=options)
        return grpc.aio.secure_channel(address, credentials, options=options)

    def _rest_channel(self, rest: ModuleType) -> type:
        return rest.AsyncRestChannel

    async def _in_order(
        self, batches: Iterator[Batch], top_k: int, metadata: Mapping[str, str] | None
    ) -> AsyncIterator[list[Answer]]:
        first = list(itertools.islice(batches, 2))
        if len(first) < 2:  # no task for a single request
            for batch in first:
                yield await self._run(self._rankings.classify(batch, top_k, metadata))
            return
        waiting: deque[asyncio.Task[list[Answer]]] = deque()
        try:
            for batch in itertools.chain(first, batches):
                waiting.append(asyncio.ensure_future(self._run(self._rankings.classify(batch, top_k, metadata))))
                if len(waiting) >= self._window:
                    yield await waiting[0]
                    waiting.popleft()
            while waiting:
                yield await waiting[0]
                waiting.popleft()
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _run(self, steps: Steps) -> Any:
        """Carries out the steps, and returns their result."""
        self._check_usable()
        tickets = itertools.count()
        lone: tuple[int, Start] | None = None  # not sent yet: if nothing else happens meanwhile, sent without a task
        flying: dict[asyncio.Task[Ended], int] = {}
        answer: Any = None
        try:
            while True:
                step = steps.send(answer)
                answer = None
                if isinstance(step, Start):
                    answer = next(tickets)
                    if flying or lone is not None:
                        for ticket, start in [*([lone] if lone else []), (answer, step)]:
                            flying[asyncio.ensure_future(_attempt(ticket, start))] = ticket
                        lone = None
                    else:
                        lone = (answer, step)
                elif isinstance(step, Stop):
                    for task in [task for task, ticket in flying.items() if ticket == step.ticket]:
                        del flying[task]
                        task.cancel()
                elif lone is not None and step.seconds is None:
                    (ticket, start), lone = lone, None
                    answer = await _attempt(ticket, start)
                else:
                    if lone is not None:
                        flying[asyncio.ensure_future(_attempt(*lone))] = lone[0]
                        lone = None
                    if not flying:
                        await asyncio.sleep(step.seconds or 0)
                        continue
                    done, _ = await asyncio.wait(flying, timeout=step.seconds, return_when=asyncio.FIRST_COMPLETED)
                    if done:
                        task = done.pop()
                        del flying[task]
                        answer = task.result()
        except StopIteration as end:
            return end.value
        finally:
            steps.close()
            for task in flying:
                task.cancel()


async def _attempt(ticket: int, start: Start) -> Ended:
    try:
        response = await start.endpoint.call(start.method)(
            start.request, timeout=start.timeout, metadata=start.metadata, wait_for_ready=start.wait_for_ready
        )
    except grpc.RpcError as error:
        return Ended(ticket, None, error)
    except asyncio.CancelledError:
        # So ends a request whose channel is closed, too, but then nobody has cancelled the task.
        if start.endpoint.closed is None or asyncio.current_task().cancelling():
            raise
        raise start.endpoint.closed() from None
    return Ended(ticket, response, None)
