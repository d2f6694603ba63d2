"""Engines: what runs the signatures of a version folder.

litert.py        `model.tflite`, in LiteRT; _undeclared.py finds the signatures of old files
saved_model.py   `saved_model.pb`, in TensorFlow
"""

from collections.abc import Sequence
from typing import Protocol

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.running.signatures import Arrays, Outputs


class Engine(Protocol):
    """Runs signatures. Threads share it. `keraslight_serving.server.testing.FakeEngine` is one for tests."""

    @property
    def name(self) -> str:
        """Name in metrics, such as `litert` or `tensorflow`."""

    def run(self, signature: str, inputs: Arrays, outputs: Sequence[str], call: Call) -> Outputs:
        """Runs one signature for some of its outputs; called by many threads at once.

        `inputs` are complete, have dtypes and shapes that `check_arrays` has accepted, and must not be changed. The
        answer is in memory that no later run overwrites. Work that takes long checks `call` in between.

        Raises StatusError if the graph rejects its inputs, or if the call is over.
        """

    def close(self) -> None:
        """Frees memory and threads. Called once, when no request is running."""
