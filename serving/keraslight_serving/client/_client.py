"""The blocking client."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any, Literal, overload

from keraslight_serving.client import _blocking
from keraslight_serving.client._base import BaseClient, OnError, Outcome, outcome
from keraslight_serving.client._calls import Metadata
from keraslight_serving.client._retry import Steps, T
from keraslight_serving.client._transport import Call, Channel
from keraslight_serving.client._types import Answer, Classification, ModelMetadata, Threshold, VersionStatus
from keraslight_serving.wire import methods

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from keraslight_serving.client._images import Images


class ClassifierClient(BaseClient[Channel[Call]]):
    """Classifies images on model servers. Threads may share a client. Close it, or use it in a `with`.

    All calls raise a `ServingError` if they fail: see `keraslight_serving.client.errors`.

        ClassifierClient()                                        # model `default` at localhost:8500
        ClassifierClient("models:8500", "pets", version=3)        # version 3 instead of the newest
        ClassifierClient(["a:8500", "b:8500"], "pets")            # two servers in turn
        ClassifierClient("models:8500", retry=Retry(attempts=1))  # no retries
        ClassifierClient("models:443", credentials=tls(), token="secret")
        ClassifierClient("http://localhost:8501")                 # REST instead of gRPC

    Args:
        target: `host:port` of the server. Several, in a list or separated by commas, are used in turn, temporarily
            skipping any that fail; `dns:///name:port` uses all addresses of a name, and asks for them again when a
            connection ends (servers' `grpc.max_connection_age_ms`). URLs, `http://host:port` or
            `https://host:port`, use TensorFlow Serving's REST API (`pip install 'keraslight[rest]'`), for networks
            without gRPC: arrays are much slower, and a new version is noticed only when it rejects an input.
        model: Name of the model on the server.
        version: Version number, or a label such as "stable". None: the newest version that is loaded.
        timeout: Seconds per request, retries included. The first `classify` may have to wait until the server has
            imported TensorFlow, unless the server was started with `--load_saved_model`.
        retry: When to send requests again.
        batch_size: Images per request, at least 1.
        window: Requests with images in flight, at least 1.
        labels: Names of the classes, in order, or the path of a text file with one per line. For models without the
            signature `encoded`; with labels, arrays of the right size are sent as raw pixels, uncompressed.
        credentials: TLS credentials; see `tls`.
        token: Token to send as `authorization: Bearer ...`, or a function that returns it for each call. Tokens are
            sent to other machines only over TLS.
        metadata: Headers of every call: text of printable ASCII characters by name, upper or lower case.
        hooks: Functions that are passed a `CallEvent` after each call; see `keraslight_serving.client.telemetry`.
        keepalive: Seconds without a response after which the connection is checked. Servers close connections that are
            checked more often than every 300 seconds unless configured otherwise.
        max_message_bytes: Size limit of requests and responses.
        channel: Channel to use instead of connecting to `target`: a grpc.Channel, such as one with interceptors, or
            anything that has its `unary_unary` and `close`, such as `testing.FakeChannel`. The client doesn't close it.

    Raises:
        InvalidInput: An argument is out of range.
        Unsupported: `target` is a URL, and httpx is not installed.
    """

    _aio = False

    @overload
    def classify(
        self,
        images: Images,
        top_k: int = 5,
        *,
        threshold: Threshold = None,
        on_error: Literal["raise"] = "raise",
        metadata: Metadata | None = None,
    ) -> list[list[Classification]]: ...

    @overload
    def classify(
        self,
        images: Images,
        top_k: int = 5,
        *,
        threshold: Threshold = None,
        on_error: OnError,
        metadata: Metadata | None = None,
    ) -> list[Outcome]: ...

    def classify(
        self,
        images: Images,
        top_k: int = 5,
        *,
        threshold: Threshold = None,
        on_error: OnError = "raise",
        metadata: Metadata | None = None,
    ) -> list[list[Classification]] | list[Outcome]:
        """Ranks the classes of images.

        Files are sent as they are: the model decodes, resizes and normalizes them (signature `encoded`). For models
        that don't, images are decoded, scaled and cropped here and sent to `serving_default`.

            >>> [ranking] = client.classify("seven.png", top_k=2)
            >>> ranking[0].label
            'seven'

        Args:
            images: An image or an iterable of images, of any of these kinds: a path (str or Path), the bytes of a JPEG,
                PNG, GIF, BMP or WebP file, a binary file object, a PIL image, or an array of shape (height,
                width) or (height, width, 1|3|4) with whole pixels from 0 to 255. An array of shape (images, height,
                width, 1|3|4) is a batch. A directory stands for the image files in it, sorted by path; hidden files
                and others than images are logged.
            top_k: Length of each ranking, at least 1. Models may rank fewer classes.
            threshold: Score above which a class is in the ranking, which may be empty then. "model": the classes' own,
                of a multi-label model that was exported with `thresholds`. None: all classes.
            on_error: "raise" raises the error of the first image that can't be classified; "return" returns an
                `InvalidInput` instead of that image's ranking.
            metadata: Headers of these calls.

        Returns:
            One ranking per image, in their order, best class first. A single image is a batch of one.

        Raises:
            InvalidInput: There are no images, or one is not an image or can't be decoded; the text says which.
            Unsupported: The model doesn't rank classes, such as a regression: use `predict`; or it has no thresholds.
        """
        self._check_on_error(on_error)
        prompt = isinstance(images, Sequence | os.PathLike)  # a generator that downloads images may pause
        with closing(self._in_order(images, top_k, threshold, metadata, prompt=prompt)) as answers:
            return self._check_some([outcome(answer, on_error) for answer in answers])

    def stream(
        self, images: Images, top_k: int = 5, *, threshold: Threshold = None, metadata: Metadata | None = None
    ) -> Iterator[Answer]:
        """Like `classify`, one answer at a time: for more images than fit in memory, or for a progress bar.

            >>> [(answer.source, answer.ranking[0].label) for answer in client.stream(["seven.png"])]
            [('seven.png', 'seven')]

        Args:
            images: Images as for `classify`, read as they are needed.
            top_k: Length of each ranking, at least 1.
            threshold: As for `classify`.
            metadata: Headers of these calls.

        Yields:
            One `Answer` per image, in their order. Images that can't be classified have an `error`.

        Raises:
            ServingError: A request failed for other reasons than a single image.
        """
        yield from self._in_order(images, top_k, threshold, metadata, prompt=False)

    def predict(
        self,
        inputs: Mapping[str, ArrayLike],
        signature: str = methods.DEFAULT_SIGNATURE,
        outputs: Iterable[str] | None = None,
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Runs a signature on tensors.

            >>> sorted(client.predict({"images": np.zeros((1, 8, 8, 1), "float32")}))
            ['probabilities']

        Args:
            inputs: Arrays by name, with the dtypes and shapes that `metadata()` lists. Lists of numbers are converted.
                Strings are lists of bytes or str, or object arrays of them.
            signature: Name of the signature.
            outputs: Names of the outputs to return. None: all.
            timeout: Seconds. None: the client's timeout.
            metadata: Headers of this call.

        Returns:
            Arrays by name, possibly read-only. Strings are object arrays of bytes.

        Raises:
            InvalidInput: The inputs don't match the signature (checked before sending), or the request is too large.
        """
        return self._run(self._rankings.arrays.predict(inputs, signature, outputs, metadata, timeout))

    def metadata(self) -> ModelMetadata:
        """Returns the signatures of the model.

        >>> client.metadata().signatures["serving_default"].inputs["images"].dtype
        'float32'
        """
        return self._run(self._model.metadata())

    def status(self) -> list[VersionStatus]:
        """Returns the states of the model's versions, newest first, or of the client's `version` only.

        >>> [(status.version, status.state) for status in client.status()]
        [(1, 'AVAILABLE')]
        """
        return self._run(self._model.status())

    def models(self) -> dict[str, list[VersionStatus]]:
        """Returns all models of the server, with the states of their versions, newest first.

            >>> list(client.models())
            ['default']

        Raises:
            Unsupported: The server is TensorFlow Serving, which has no such call, or `target` is a URL.
        """
        return self._run(self._model.models())

    def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Waits until the server has loaded the model.

            >>> client.wait_until_ready(timeout=30)

        Args:
            timeout: Seconds to wait for a server that can't be reached or a model that it doesn't have yet.

        Raises:
            Unavailable: The model is not ready in time; the text has the last reason.
        """
        self._run(self._model.wait_until_ready(timeout))

    def close(self) -> None:
        """Closes the connections, except a channel that was passed in. Open and later calls raise `ClientClosed`.

        >>> client.close()
        """
        for channel in self._close():
            channel.close()

    def __enter__(self) -> ClassifierClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _in_order(
        self, images: Images, top_k: int, threshold: Threshold, metadata: Metadata | None, *, prompt: bool
    ) -> Generator[Answer, None, None]:
        """The answers. `prompt`: neither the source of the images nor the caller pauses in between."""
        batches = self._rankings.batches(images, top_k, threshold)
        first = list(itertools.islice(batches, 2))
        all_batches = itertools.chain(first, batches)
        calls = (self._rankings.classify(batch, top_k, threshold, metadata) for batch in all_batches)
        if len(first) < 2:
            way = (self._run(steps) for steps in calls)
        elif prompt and self._rankings.all_files(first[0]):
            self._check_usable()
            way = _blocking.run_in_order(calls, self._window)
        else:
            way = self._in_threads(calls)
        with closing(way):
            for answers in way:
                yield from answers

    def _in_threads(self, calls: Iterable[Steps[T]]) -> Generator[T, None, None]:
        """For images that threads compress or decode, and for pauses, during which retries and deadlines continue."""
        waiting: deque[Future[T]] = deque()
        with ThreadPoolExecutor(self._window, thread_name_prefix="keraslight-client") as pool:
            try:
                for steps in calls:
                    waiting.append(pool.submit(self._run, steps))
                    if len(waiting) >= self._window:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _run(self, steps: Steps[T]) -> T:
        self._check_usable()
        return _blocking.run(steps)
