"""The asyncio client."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal, overload

import grpc

from keraslight_serving.client._base import BaseClient, OnError, Outcome, outcome
from keraslight_serving.client._calls import Metadata
from keraslight_serving.client._retry import Attempt, Ended, Steps, T
from keraslight_serving.client._transport import AsyncCall, Channel
from keraslight_serving.client._types import Answer, Classification, ModelMetadata, Threshold, VersionStatus
from keraslight_serving.wire import methods

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from keraslight_serving.client._images import Images


class AsyncClassifierClient(BaseClient[Channel[AsyncCall]]):
    """`ClassifierClient` for asyncio: same arguments, results and errors; `channel` is a grpc.aio.Channel.

    Use a client only in the event loop of its first call, and close it, or use it in an `async with`. Cancelling a task
    cancels its requests. Image files are read in the event loop.
    """

    _aio = True

    @overload
    async def classify(
        self,
        images: Images,
        top_k: int = 5,
        *,
        threshold: Threshold = None,
        on_error: Literal["raise"] = "raise",
        metadata: Metadata | None = None,
    ) -> list[list[Classification]]: ...

    @overload
    async def classify(
        self,
        images: Images,
        top_k: int = 5,
        *,
        threshold: Threshold = None,
        on_error: OnError,
        metadata: Metadata | None = None,
    ) -> list[Outcome]: ...

    async def classify(
        self,
        images: Images,
        top_k: int = 5,
        *,
        threshold: Threshold = None,
        on_error: OnError = "raise",
        metadata: Metadata | None = None,
    ) -> list[list[Classification]] | list[Outcome]:
        """See `ClassifierClient.classify`.

        >>> [ranking] = await client.classify("seven.png", top_k=2)
        >>> ranking[0].label
        'seven'
        """
        self._check_on_error(on_error)
        async with aclosing(self._in_order(images, top_k, threshold, metadata)) as answers:
            return self._check_some([outcome(answer, on_error) async for answer in answers])

    async def stream(
        self, images: Images, top_k: int = 5, *, threshold: Threshold = None, metadata: Metadata | None = None
    ) -> AsyncIterator[Answer]:
        """See `ClassifierClient.stream`.

        >>> [(answer.source, answer.ranking[0].label) async for answer in client.stream(["seven.png"])]
        [('seven.png', 'seven')]
        """
        async with aclosing(self._in_order(images, top_k, threshold, metadata)) as answers:
            async for answer in answers:
                yield answer

    async def predict(
        self,
        inputs: Mapping[str, ArrayLike],
        signature: str = methods.DEFAULT_SIGNATURE,
        outputs: Iterable[str] | None = None,
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> dict[str, NDArray[Any]]:
        """See `ClassifierClient.predict`.

        >>> sorted(await client.predict({"images": np.zeros((1, 8, 8, 1), "float32")}))
        ['probabilities']
        """
        return await self._run(self._rankings.arrays.predict(inputs, signature, outputs, metadata, timeout))

    async def metadata(self) -> ModelMetadata:
        """See `ClassifierClient.metadata`.

        >>> (await client.metadata()).signatures["serving_default"].inputs["images"].dtype
        'float32'
        """
        return await self._run(self._model.metadata())

    async def status(self) -> list[VersionStatus]:
        """See `ClassifierClient.status`.

        >>> [(status.version, status.state) for status in await client.status()]
        [(1, 'AVAILABLE')]
        """
        return await self._run(self._model.status())

    async def models(self) -> dict[str, list[VersionStatus]]:
        """See `ClassifierClient.models`.

        >>> list(await client.models())
        ['default']
        """
        return await self._run(self._model.models())

    async def wait_until_ready(self, timeout: float = 60.0) -> None:
        """See `ClassifierClient.wait_until_ready`.

        >>> await client.wait_until_ready(timeout=30)
        """
        await self._run(self._model.wait_until_ready(timeout))

    async def close(self) -> None:
        """See `ClassifierClient.close`.

        >>> await client.close()
        """
        for channel in self._close():
            await channel.close()

    async def __aenter__(self) -> AsyncClassifierClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _in_order(
        self, images: Images, top_k: int, threshold: Threshold, metadata: Metadata | None
    ) -> AsyncGenerator[Answer, None]:
        batches = self._rankings.batches(images, top_k, threshold)
        first = list(itertools.islice(batches, 2))
        all_batches = itertools.chain(first, batches)
        calls = (self._rankings.classify(batch, top_k, threshold, metadata) for batch in all_batches)
        if len(first) < 2:  # no task for a single request
            for steps in calls:
                for answer in await self._run(steps):
                    yield answer
            return
        waiting: deque[asyncio.Task[list[Answer]]] = deque()
        try:
            for steps in calls:
                waiting.append(asyncio.ensure_future(self._run(steps)))
                if len(waiting) >= self._window:
                    for answer in await waiting[0]:
                        yield answer
                    waiting.popleft()
            for task in waiting:
                for answer in await task:
                    yield answer
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _run(self, steps: Steps[T]) -> T:
        self._check_usable()
        flying: dict[Attempt, asyncio.Task[Ended]] = {}
        ended: Ended | None = None
        try:
            while True:
                attempts, seconds = steps.send(ended)
                ended = None
                for attempt in [attempt for attempt in flying if attempt not in attempts]:
                    flying.pop(attempt).cancel()
                if seconds is None and not flying:
                    ended = await _send(*attempts)  # a lone attempt needs no task
                    continue
                for attempt in attempts:
                    if attempt not in flying:
                        flying[attempt] = asyncio.ensure_future(_send(attempt))
                if not flying:
                    await asyncio.sleep(seconds or 0)
                    continue
                done, _ = await asyncio.wait(flying.values(), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
                if done:
                    ended = done.pop().result()
                    del flying[ended.attempt]
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            steps.close()
            for task in flying.values():
                task.cancel()


async def _send(attempt: Attempt) -> Ended:
    try:
        return Ended(attempt, await attempt.send(attempt.endpoint.call(attempt.method)), None)
    except grpc.RpcError as error:
        return Ended(attempt, None, error)
    except asyncio.CancelledError:
        # Closing the channel ends requests in the same way, but then nobody has cancelled the task.
        task = asyncio.current_task()
        if attempt.endpoint.closed is None or (task is not None and task.cancelling()):
            raise
        raise attempt.endpoint.closed() from None
