"""Load on a model server, and the latency under it.

Closed and open loops answer two questions. The closed loop keeps a number of requests in flight and measures how many
responses per second the server can give. The open loop sends at a fixed rate, as independent users do, and measures how
long they wait. Its latencies count from the moment when a request was due, not when it could be sent: a server that
stalls for a second delays all requests of that second, and ignoring that ("coordinated omission") makes the worst
percentiles look ten times better than they are.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from keraslight_serving.extras import require

require("keraslight_serving.client.load_test", "server", "numpy")

import numpy as np
from numpy.typing import NDArray

from keraslight_serving.client._async_client import AsyncClassifierClient
from keraslight_serving.client._images import prepare
from keraslight_serving.client.errors import InvalidInput, ServingError

if TYPE_CHECKING:
    from keraslight_serving.client._images import Images


@dataclass(frozen=True)
class LoadReport:
    """Result of a load test.

    Attributes:
        seconds: Time from the first request to the last response.
        latencies: Seconds of each successful request, in the order in which they were due.
        errors: Number of failed requests by name of the error.
    """

    seconds: float
    latencies: NDArray[np.float64] = field(repr=False)
    errors: dict[str, int]

    @property
    def rate(self) -> float:
        """Successful requests per second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    def percentiles(self, percents: Sequence[float] = (50, 90, 95, 99, 99.9, 100)) -> dict[float, float]:
        """Seconds within which so many percent of the requests succeeded.

        A failed request never does: infinity if fewer than so many percent succeeded. NaN if there were no requests.
        """
        succeeded, failed = len(self.latencies), sum(self.errors.values())
        if not succeeded:
            return dict.fromkeys(percents, float("inf" if failed else "nan"))
        slowest_last = np.append(self.latencies, np.full(failed, self.latencies.max()))
        values = np.percentile(slowest_last, percents).tolist()
        # Rounded, as 0.9 * 100 could be more than 90.
        enough = [round(percent * (succeeded + failed), 6) <= 100 * succeeded for percent in percents]
        return {p: value if fits else float("inf") for p, value, fits in zip(percents, values, enough, strict=True)}


async def load_test(
    client: AsyncClassifierClient,
    images: Images,
    *,
    rate: float | None = None,
    concurrency: int = 8,
    seconds: float = 10.0,
    seed: int = 0,
    on_answer: Callable[[], object] | None = None,
) -> LoadReport:
    """Classifies images, one per request, over and over, and measures the latency.

    Args:
        client: Client of the server to test. `Retry(attempts=1)` shows every failure.
        images: Images as for `classify`; read once, sent in turn.
        rate: Requests per second of the open loop, at random times (a Poisson process). None: the closed loop.
        concurrency: Requests in flight in the closed loop, at least 1.
        seconds: Time during which requests are sent; the last responses are awaited.
        seed: Seed of the random times.
        on_answer: Function to call after each request, for a progress bar.

    Raises:
        InvalidInput: There are no images, one is not an image, or a number is not above 0.
        ServingError: The first request, which isn't measured, fails.
    """
    for name, value in (("rate", rate), ("concurrency", concurrency), ("seconds", seconds)):
        if value is not None and value <= 0:
            raise InvalidInput(f"`{name}` must be above 0. Received: {value}")
    prepared = list(prepare(images))
    if error := next((image.error for image in prepared if image.error), None):
        raise error
    if not prepared:
        raise InvalidInput("There must be at least one image. Received: none")
    await client.classify(prepared[0].data, top_k=1)  # connects, and makes the server load what it needs
    in_turn = itertools.cycle(image.data for image in prepared)
    latencies: list[tuple[float, float]] = []
    errors: Counter[str] = Counter()

    async def one(due: float) -> None:
        try:
            await client.classify(next(in_turn), top_k=1)
        except ServingError as error:
            errors[type(error).__name__] += 1
        else:
            latencies.append((due, time.perf_counter() - due))
        if on_answer is not None:
            on_answer()

    began = time.perf_counter()

    async def worker() -> None:
        while (now := time.perf_counter()) - began < seconds:
            await one(now)

    if rate is None:
        await asyncio.gather(*(worker() for _ in range(concurrency)))
    else:
        gaps = np.random.default_rng(seed).exponential(1 / rate, size=int(2 * rate * seconds) + 10)
        due, tasks = np.cumsum(gaps), []
        for moment in due[due < seconds]:
            await asyncio.sleep(max(0.0, began + moment - time.perf_counter()))
            tasks.append(asyncio.ensure_future(one(began + moment)))
        await asyncio.gather(*tasks)
    ended = time.perf_counter() - began
    return LoadReport(ended, np.array([latency for _, latency in sorted(latencies)]), dict(errors))
