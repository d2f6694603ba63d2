"""Runs the signatures of a SavedModel in TensorFlow, which is imported on first use."""

import contextlib
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import grpc

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import CODES, StatusError, invalid
from keraslight_serving.server.running.engines._stoppable import LOOK_SECONDS, StoppableRuns, session_config
from keraslight_serving.server.running.signatures import Arrays, Outputs, Signature
from keraslight_serving.startup import quiet
from keraslight_serving.wire import serving_pb2 as pb


class SavedModelEngine:
    """The `serve` graph of a SavedModel in a TF1 session, as TensorFlow Serving runs it.

    This is several times faster per call than the signature functions of `tf.saved_model.load`, and the error texts are
    TensorFlow Serving's.
    """

    name = "tensorflow"

    def __init__(self, folder: Path, signatures: Mapping[str, Signature], *, runs: int = 4) -> None:
        self._folder, self._signatures, self._runs = folder, signatures, runs
        self._lock = threading.Lock()
        self._loading: Future[_Session] | None = None

    @property
    def loaded(self) -> bool:
        """Whether the SavedModel is in memory."""
        return self._session is not None

    @property
    def _session(self) -> "_Session | None":
        loading = self._loading
        return loading.result() if loading is not None and loading.done() and loading.exception() is None else None

    def load(self) -> "_Session":
        """Loads the SavedModel unless it is loaded. Raises StatusError if TensorFlow is missing or can't load it."""
        return self._load().result()

    def run(self, signature: str, inputs: Arrays, outputs: Sequence[str], call: Call) -> Outputs:
        """See `Engine.run`; loads the SavedModel on first use, which the call doesn't wait for beyond its deadline."""
        session = self._session
        if session is None:
            loading = self._load()
            while not wait([loading], timeout=LOOK_SECONDS).done:
                call.check()
            session = loading.result()
            call.check()  # loading takes seconds
        return session.run(self._signatures[signature].definition, inputs, outputs, call)

    def close(self) -> None:
        """Closes the session, and frees its graph."""
        with self._lock:
            loading = self._loading
        if loading is not None and loading.exception() is None:
            loading.result().close()

    def _load(self) -> "Future[_Session]":
        """Returns the session that is loaded or being loaded in its own thread; after a failure, a new attempt."""
        with self._lock:
            if self._loading is None or (self._loading.done() and self._loading.exception() is not None):
                self._loading = Future()
                # Not a daemon, as in Versions: a process that exits in the middle of a load would be aborted.
                threading.Thread(target=self._open_into, args=(self._loading,), name="load", daemon=False).start()
            return self._loading

    def _open_into(self, loading: "Future[_Session]") -> None:
        try:
            loading.set_result(self._open())
        except BaseException as error:
            loading.set_exception(error)

    def _open(self) -> "_Session":
        try:
            with quiet("tensorflow"):
                import tensorflow as tf

                tf.config.list_physical_devices()  # looks for GPUs now, while the lines about it are left out
        except ImportError as error:
            raise StatusError(
                grpc.StatusCode.UNIMPLEMENTED,
                "This signature runs in TensorFlow, which the server does not have: pip install tensorflow. "
                f"Received: {error}",
            ) from error
        try:
            with quiet("tensorflow sessions"), _without_deprecation(tf):
                return _Session(tf, self._folder, self._runs)
        except tf.errors.OpError as error:
            raise StatusError(CODES[error.error_code], error.message) from error
        except (OSError, RuntimeError, ValueError) as error:  # the Python part of tf.compat.v1's loader
            raise StatusError(grpc.StatusCode.UNKNOWN, str(error)) from error


@contextlib.contextmanager
def _without_deprecation(tf: Any) -> Iterator[None]:
    """Leaves out the warning that the loader into a session is deprecated: see `SavedModelEngine` for why."""

    def other(record: logging.LogRecord) -> bool:
        return "is deprecated and will be removed" not in record.getMessage()

    logger = tf.get_logger()
    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)


class _Session:
    """A loaded graph and its session, which executes `runs` at once. `tf`: the module `tensorflow`."""

    def __init__(self, tf: Any, folder: Path, runs: int) -> None:
        self._graph = tf.Graph()
        self._errors = tf.errors
        with self._graph.as_default():
            self._session = tf.compat.v1.Session(graph=self._graph, config=session_config(tf, runs))
            try:
                tf.compat.v1.saved_model.loader.load(self._session, ["serve"], str(folder))
                self._runs = StoppableRuns(tf, self._session, runs)
                self._session._extend_graph()
            except BaseException:
                self._session.close()
                raise

    def run(self, signature: pb.SignatureDef, inputs: Arrays, outputs: Sequence[str], call: Call) -> Outputs:
        feeds = {self._tensor(signature.inputs[alias].name)._as_tf_output(): array for alias, array in inputs.items()}
        # In the same order for all callers: TensorFlow plans, and keeps, an execution for each order it is given.
        fetches = {alias: self._tensor(signature.outputs[alias].name) for alias in sorted(outputs)}
        try:
            arrays = self._runs.run(feeds, list(fetches.values()), call)
        except self._errors.OpError as error:
            raise StatusError(CODES[error.error_code], error.message) from error
        except UnicodeDecodeError as error:
            # The error text quotes what was sent ("Could not parse example input, value: ..."), and Python can't decode
            # it. Only inputs contain such bytes, and the exception still holds them.
            raise invalid(error.object.decode(errors="backslashreplace")) from error
        found = dict(zip(fetches, arrays, strict=True))
        return {alias: found[alias] for alias in outputs}

    def close(self) -> None:
        self._runs.close()
        self._session.close()
        # A graph and its operations refer to each other: without this, they stay until a full garbage collection.
        from tensorflow.python.framework.ops import dismantle_graph

        dismantle_graph(self._graph)

    def _tensor(self, name: str) -> Any:
        try:
            return self._graph.get_tensor_by_name(name)
        except (KeyError, ValueError) as error:  # the initializer's output is an operation
            raise invalid(f"The signature names a tensor that the graph does not have: {error}") from error
