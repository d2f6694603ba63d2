"""Runs the signatures of a SavedModel in TensorFlow, which is imported at the first need."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import grpc
import numpy as np

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import CODES, StatusError, invalid
from keraslight_serving.wire import serving_pb2 as pb


class SavedModelEngine:
    """A SavedModel in a TF1 session, as TensorFlow Serving runs it.

    Several times faster per call than the signature functions of `tf.saved_model.load`, and its error texts are
    TensorFlow Serving's.

    Args:
        folder: holds `saved_model.pb` and `variables/`.
        signatures: those of its `serve` graph.
    """

    name = "tensorflow"

    def __init__(self, folder: Path, signatures: Mapping[str, pb.SignatureDef]) -> None:
        self._folder = folder
        self._signatures = signatures
        self._lock = threading.Lock()
        self._session = None

    @property
    def loaded(self) -> bool:
        return self._session is not None

    def load(self) -> None:
        """Loads the SavedModel, unless that is done.

        Raises:
            StatusError: tensorflow is not installed, or can't load the folder.
        """
        with self._lock:
            if self._session is None:
                self._session = self._open()

    def run(
        self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str], call: Call
    ) -> dict[str, np.ndarray]:
        if not self.loaded:
            self.load()
            call.check()  # that took seconds
        return self._session.run(self._signatures[signature], inputs, outputs)

    def close(self) -> None:
        if self._session is not None:
            self._session.close()

    def _open(self) -> "_Session":
        try:
            import tensorflow as tf
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
        except (OSError, RuntimeError, ValueError) as error:  # what tf.compat.v1's loader raises in Python
            raise StatusError(grpc.StatusCode.UNKNOWN, str(error)) from error


class _Session:
    """A loaded graph and its session."""

    def __init__(self, tf, folder: Path) -> None:
        self._graph = tf.Graph()
        self._errors = tf.errors
        with self._graph.as_default():
            self._session = tf.compat.v1.Session(graph=self._graph)
            try:
                tf.compat.v1.saved_model.loader.load(self._session, ["serve"], str(folder))
            except BaseException:
                self._session.close()
                raise

    def run(self, signature: pb.SignatureDef, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]) -> dict:
        # Session.run casts feeds and compares shapes in Python, with other texts than TensorFlow Serving's and four
        # times slower; make_callable goes the same way. The call under them is what TensorFlow Serving calls, too.
        from tensorflow.python.client.pywrap_tf_session import TF_SessionRun_wrapper

        feeds = {self._tensor(signature.inputs[alias].name): array for alias, array in inputs.items()}
        fetches = [self._tensor(signature.outputs[alias].name) for alias in outputs]
        try:
            arrays = TF_SessionRun_wrapper(self._session._session, None, feeds, fetches, [], None)
        except self._errors.OpError as error:
            raise StatusError(CODES[error.error_code], error.message) from error
        except UnicodeDecodeError as error:
            # The text of a refusal quotes what was sent ("Could not parse example input, value: ..."), and Python can't
            # make a str of it. Only inputs bring such bytes, and the error still holds them.
            raise invalid(error.object.decode(errors="backslashreplace")) from error
        return dict(zip(outputs, arrays, strict=True))

    def close(self) -> None:
        self._session.close()

    def _tensor(self, name: str):
        try:
            return self._graph.get_tensor_by_name(name)._as_tf_output()
        except (KeyError, ValueError) as error:  # the initializer's output is an operation
            raise invalid(f"The signature names a tensor that the graph does not have: {error}") from error
