"""Runs the signatures of a SavedModel in TensorFlow, which is imported on first use."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import CODES, StatusError, invalid
from keraslight_serving.server.running.signatures import Arrays, Outputs, Signature
from keraslight_serving.startup import quiet
from keraslight_serving.wire import serving_pb2 as pb


class SavedModelEngine:
    """The `serve` graph of a SavedModel in a TF1 session, as TensorFlow Serving runs it.

    This is several times faster per call than the signature functions of `tf.saved_model.load`, and the error texts are
    TensorFlow Serving's.
    """

    name = "tensorflow"

    def __init__(self, folder: Path, signatures: Mapping[str, Signature]) -> None:
        self._folder, self._signatures = folder, signatures
        self._lock = threading.Lock()
        self._session: _Session | None = None

    @property
    def loaded(self) -> bool:
        """Whether the SavedModel is in memory."""
        return self._session is not None

    def load(self) -> "_Session":
        """Loads the SavedModel unless it is loaded. Raises StatusError if TensorFlow is missing or can't load it."""
        with self._lock:
            if self._session is None:
                self._session = self._open()
            return self._session

    def run(self, signature: str, inputs: Arrays, outputs: Sequence[str], call: Call) -> Outputs:
        """See `Engine.run`; loads the SavedModel on first use."""
        session = self._session
        if session is None:
            session = self.load()
            call.check()  # loading takes seconds
        return session.run(self._signatures[signature].definition, inputs, outputs)

    def close(self) -> None:
        """Closes the session."""
        if self._session is not None:
            self._session.close()

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
            return _Session(tf, self._folder)
        except tf.errors.OpError as error:
            raise StatusError(CODES[error.error_code], error.message) from error
        except (OSError, RuntimeError, ValueError) as error:  # the Python part of tf.compat.v1's loader
            raise StatusError(grpc.StatusCode.UNKNOWN, str(error)) from error


class _Session:
    """A loaded graph and its session. `tf`: the module `tensorflow`."""

    def __init__(self, tf: Any, folder: Path) -> None:
        self._graph = tf.Graph()
        self._errors = tf.errors
        with self._graph.as_default():
            self._session = tf.compat.v1.Session(graph=self._graph)
            try:
                tf.compat.v1.saved_model.loader.load(self._session, ["serve"], str(folder))
            except BaseException:
                self._session.close()
                raise

    def run(self, signature: pb.SignatureDef, inputs: Arrays, outputs: Sequence[str]) -> Outputs:
        # Session.run casts feeds and compares shapes in Python, with other texts than TensorFlow Serving's and four
        # times slower, and so does make_callable. TensorFlow Serving, too, calls the function below them.
        from tensorflow.python.client.pywrap_tf_session import TF_SessionRun_wrapper

        feeds = {self._tensor(signature.inputs[alias].name): array for alias, array in inputs.items()}
        fetches = [self._tensor(signature.outputs[alias].name) for alias in outputs]
        try:
            arrays = TF_SessionRun_wrapper(self._session._session, None, feeds, fetches, [], None)
        except self._errors.OpError as error:
            raise StatusError(CODES[error.error_code], error.message) from error
        except UnicodeDecodeError as error:
            # The error text quotes what was sent ("Could not parse example input, value: ..."), and Python can't decode
            # it. Only inputs contain such bytes, and the exception still holds them.
            raise invalid(error.object.decode(errors="backslashreplace")) from error
        return dict(zip(outputs, arrays, strict=True))

    def close(self) -> None:
        self._session.close()

    def _tensor(self, name: str) -> Any:
        try:
            return self._graph.get_tensor_by_name(name)._as_tf_output()
        except (KeyError, ValueError) as error:  # the initializer's output is an operation
            raise invalid(f"The signature names a tensor that the graph does not have: {error}") from error
