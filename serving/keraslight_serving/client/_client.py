"""The blocking client."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import grpc

from keraslight_serving.client._base import BaseClient
from keraslight_serving.client._rankings import Batch
from keraslight_serving.client._retry import Steps
from keraslight_serving.client._together import Together
from keraslight_serving.client._types import Answer, Classification, ModelMetadata, VersionStatus
from keraslight_serving.client.errors import InvalidInput
from keraslight_serving.wire import methods

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

    from keraslight_serving.client._images import ImageLike


class ClassifierClient(BaseClient):
    """Asks model servers about images. May be shared by threads; to be closed, or used in a `with`.

    Args:
        target: `host:port` of the server; several, in a list or separated by commas, are asked turn by turn, and one
            that fails is left alone for a while; `dns:///name:port` asks all addresses of a name. A URL,
            `http://host:port` or `https://host:port`, is asked over TensorFlow Serving's REST API
            (`pip install 'keraslight[rest]'`): for where gRPC can't go. Arrays are much slower there, and a new
            version is noticed only when it refuses an input.
        model: its name there.
        version: None for the newest that is loaded, a number, or a label such as "stable".
        timeout: seconds for each request, its retries included. The first `classify` may have to wait for the server
            to import TensorFlow, unless it was started with `--load_saved_model`.
        retry: when a request is sent again; `Retry(attempts=1)` never.
        batch_size: images in one request at most, at least 1.
        window: requests with images in flight at once, at least 1.
        labels: names of the classes, in order, or the path of a text file with one a line. For models without the
            signature `encoded`; with labels arrays that fit are sent as raw pixels, without being compressed first.
        credentials: for TLS; see `tls`.
        token: sent as `authorization: Bearer ...`, or a function that gives the token for each call. To another
            machine only with `credentials`.
        metadata: headers of each call.
        hooks: functions that are given a `CallEvent` after each call. See `keraslight_serving.client.telemetry`.
        keepalive: seconds of silence in a call after which the connection is checked. Servers hang up if it is below
            300 seconds and they were not told to allow it.
        max_message_bytes: the largest request and response.
        channel: a grpc.Channel to use instead of opening one to `target`: for interceptors, or tests
            (`keraslight_serving.client.testing.FakeChannel`). Whoever passes it closes it.

    Raises:
        InvalidInput: an argument is out of its range.
    """

    def classify(
        self,
        images: ImageLike | Iterable[ImageLike],
        top_k: int = 5,
        *,
        on_error: Literal["raise", "return"] = "raise",
        metadata: Mapping[str, str] | None = None,
    ) -> list[list[Classification]] | list[list[Classification] | InvalidInput]:
        """Names what is on images.

        Files are sent as they are; decoding, resizing and normalizing is the model's work (signature `encoded`). If it
        lacks that, they are decoded, scaled and cut here, and go to `serving_default`.

            >>> [ranking] = client.classify("seven.png", top_k=2)
            >>> ranking[0].label
            'seven'

        Args:
            images: one image or an iterable of them, kinds mixed as you like. An image is a path (str or Path), the
                bytes of a JPEG, PNG, GIF, BMP, WebP or JPEG XL file, a binary file object, a PIL image, or an array of
                shape (height, width) or (height, width, 1|3|4) with whole pixels from 0 to 255. An array of shape
                (images, height, width, 1|3|4) is a batch. A directory stands for the image files in it, sorted.
            top_k: the length of each ranking. It is shorter where the model ranks fewer classes.
            on_error: "return" puts the `InvalidInput` of an image that can't be classified in the place of its
                ranking; "raise" raises the first one.
            metadata: headers of these calls.

        Returns:
            One ranking per image, in their order, best class first. A single image is a batch of one.

        Raises:
            InvalidInput: there are no images, or something is no image, or none that the model can decode; the text
                says which.
            ServingError: see `keraslight_serving.client.errors`.
        """
        if on_error not in ("raise", "return"):
            raise self._calls.invalid(f'`on_error` must be "raise" or "return". Received: {on_error!r}')
        found: list[Any] = []
        # Who makes images one by one, such as a generator that downloads them, may pause between two.
        quick = isinstance(images, Sequence | os.PathLike)
        for answer in self._in_order(images, top_k, metadata, waited_for=quick):
            if answer.error is not None and on_error == "raise":
                raise answer.error
            found.append(answer.error or answer.ranking)
        if not found:
            raise self._calls.invalid("There must be at least one image. Received: none")
        return found

    def stream(
        self,
        images: ImageLike | Iterable[ImageLike],
        top_k: int = 5,
        *,
        metadata: Mapping[str, str] | None = None,
    ) -> Iterator[Answer]:
        """Like `classify`, one answer at a time: for more images than fit in memory, or for a progress bar.

            >>> [(answer.source, answer.ranking[0].label) for answer in client.stream(["seven.png"])]
            [('seven.png', 'seven')]

        Args:
            images, top_k, metadata: as in `classify`. They are read as they are needed.

        Yields:
            An `Answer` an image, in their order; an image that can't be classified has an `error`.

        Raises:
            ServingError: as `classify`, but for errors of single images.
        """
        yield from self._in_order(images, top_k, metadata, waited_for=False)

    def predict(
        self,
        inputs: Mapping[str, ArrayLike],
        signature: str = methods.DEFAULT_SIGNATURE,
        outputs: Iterable[str] | None = None,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> dict[str, np.ndarray]:
        """Runs a signature on tensors as they are.

            >>> sorted(client.predict({"images": np.zeros((1, 8, 8, 1), "float32")}))
            ['probabilities']

        Args:
            inputs: arrays by name, with the dtypes and shapes that `metadata()` lists; lists of numbers become the
                right dtype. Strings as lists of bytes or str, or as object arrays of them.
            signature: which one.
            outputs: the names to answer with. Default: all.
            timeout: seconds, instead of the client's.
            metadata: headers of this call.

        Returns:
            Arrays by name, possibly read-only; strings as object arrays of bytes.

        Raises:
            InvalidInput: the model can't take these inputs (found before anything is sent), or they make too large a
                request.
            ServingError: see `keraslight_serving.client.errors`.
        """
        return self._run(self._tensors.predict(inputs, signature, outputs, metadata, timeout))

    def metadata(self) -> ModelMetadata:
        """Asks for the model's signatures.

            >>> client.metadata().signatures["serving_default"].inputs["images"].dtype
            'float32'

        Raises:
            ServingError: see `keraslight_serving.client.errors`.
        """
        return self._run(self._model.metadata())

    def status(self) -> list[VersionStatus]:
        """Asks for the states of the model's versions, newest first; with `version`, of that one.

            >>> [(status.version, status.state) for status in client.status()]
            [(1, 'AVAILABLE')]

        Raises:
            ServingError: see `keraslight_serving.client.errors`.
        """
        return self._run(self._model.status())

    def models(self) -> dict[str, list[VersionStatus]]:
        """Asks for all models of the server, with the states of their versions, newest first.

            >>> list(client.models())
            ['default']

        Raises:
            Unsupported: the server is TensorFlow Serving, which can't tell, or is asked over REST.
            ServingError: see `keraslight_serving.client.errors`.
        """
        return self._run(self._model.models())

    def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Returns once the server answers and has the model loaded.

            >>> client.wait_until_ready(timeout=30)

        Args:
            timeout: seconds, before which a server that can't be reached or lacks the model is no error.

        Raises:
            Unavailable: not ready in time; the text has the last reason.
            ServingError: see `keraslight_serving.client.errors`.
        """
        self._run(self._model.wait_until_ready(timeout))

    def close(self) -> None:
        """Closes the connections, unless the channel was passed in. Later calls raise `ClientClosed`, as do open ones.

        >>> client.close()
        """
        for channel in self._close():
            channel.close()

    def __enter__(self) -> ClassifierClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------ carrying out the steps

    def _open_channel(self, address: str, credentials: Any, options: list) -> grpc.Channel:
        if credentials is None:
            return grpc.insecure_channel(address, options=options)
        return grpc.secure_channel(address, credentials, options=options)

    def _rest_channel(self, rest: ModuleType) -> type:
        return rest.RestChannel

    def _in_order(
        self,
        images: ImageLike | Iterable[ImageLike],
        top_k: int,
        metadata: Mapping[str, str] | None,
        *,
        waited_for: bool,
    ) -> Iterator[Answer]:
        """The answers. `waited_for`: images are given, and answers taken, without a pause."""

        def steps(batch: Batch) -> Steps:
            return self._rankings.classify(batch, top_k, metadata)

        batches = self._rankings.batches(images, top_k)
        first = list(itertools.islice(batches, 2))
        if len(first) < 2:
            for batch in first:
                yield from self._run(steps(batch))
        elif waited_for and self._rankings.goes_as_it_is(first[0]):
            yield from self._in_this_thread(map(steps, itertools.chain(first, batches)))
        else:
            yield from self._in_threads(map(steps, itertools.chain(first, batches)))

    def _in_this_thread(self, calls: Iterator[Steps]) -> Iterator[Answer]:
        self._check_usable()
        with Together() as together:
            for steps in calls:
                while together.unfinished >= self._window:
                    together.wait()
                together.give(steps)
                while together and together.ready():
                    yield from together.take()
            while together:
                yield from together.take()

    def _in_threads(self, calls: Iterator[Steps]) -> Iterator[Answer]:
        """For images that several threads compress or decode at once, and for a caller who may take a minute over an
        image or an answer, in which retries and deadlines must not stand still."""
        waiting: deque[Future[list[Answer]]] = deque()
        with ThreadPoolExecutor(self._window, thread_name_prefix="keraslight-client") as pool:
            try:
                for steps in calls:
                    waiting.append(pool.submit(self._run, steps))
                    if len(waiting) >= self._window:
                        yield from waiting.popleft().result()
                while waiting:
                    yield from waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _run(self, steps: Steps) -> Any:
        """Carries out the steps, and returns their result."""
        self._check_usable()
        with Together() as together:
            together.give(steps, alone=True)
            return together.take()
