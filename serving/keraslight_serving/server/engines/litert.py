"""Runs the signatures of a `model.tflite` in LiteRT, with XNNPACK."""

import queue
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from keraslight_serving.server._errors import invalid
from keraslight_serving.server._signatures import declared_shape
from keraslight_serving.wire import serving_pb2 as pb
from keraslight_serving.wire.tensors import TensorError, dtype_enum

# Rows that run at a time. Larger batches go through in slices: an interpreter keeps the memory of its largest batch.
SLICE_ROWS = 32


class LiteRTEngine:
    """A pool of interpreters over one file.

    An interpreter serves one request at a time, so that `interpreters` requests run at once and others wait. The first
    one is made (and tried) at once, the rest when they are needed.

    Args:
        path: the .tflite file. Signatures with strings are left out: LiteRT's need TensorFlow's kernels.
        threads: CPU threads of one interpreter.
        interpreters: size of the pool.

    Raises:
        OSError: the file can't be read.
        ValueError, RuntimeError: LiteRT can't load the file, or can't run it on zeros.
    """

    def __init__(self, path: Path, *, threads: int, interpreters: int) -> None:
        # Not by its path: LiteRT maps files, and one that is overwritten in place would end the process (SIGBUS).
        self._content = path.read_bytes()
        self._threads = threads
        self._lock = threading.Lock()
        first = self._interpreter()
        signatures = {name: _signature(first, name) for name in first.get_signature_list()}
        self.signatures = {name: signature for name, signature in signatures.items() if _is_numeric(signature)}
        self._slice_rows = {name: self._most_rows(first, name) for name in self.signatures}
        # Last in, first out: a caller alone keeps meeting the same interpreter, with its memory already laid out.
        self._idle: queue.LifoQueue[Interpreter | None] = queue.LifoQueue()
        for _ in range(interpreters - 1):
            self._idle.put(None)
        self._idle.put(first)

    def run(self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]) -> dict[str, np.ndarray]:
        rows = {len(array) for array in inputs.values() if array.ndim}
        if len(rows) > 1:
            raise invalid(f"All inputs must have the same number of rows. Received: {sorted(rows)}")
        total, step = max(rows, default=1), self._slice_rows[signature]
        interpreter = self._idle.get()
        try:
            interpreter = interpreter or self._interpreter()
            runner = interpreter.get_signature_runner(signature)
            parts = []
            for start in range(0, total, step):
                part = {name: array[start : start + step] if array.ndim else array for name, array in inputs.items()}
                parts.append(runner(**part))
        except (ValueError, RuntimeError) as error:
            # Half-resized tensors would haunt the next request: let a new interpreter take this one's place.
            interpreter = None
            raise invalid(f"LiteRT can't run signature {signature!r} on these inputs: {error}") from error
        finally:
            self._idle.put(interpreter)
        if len(parts) == 1:
            return {name: parts[0][name] for name in outputs}
        return {name: np.concatenate([part[name] for part in parts]) for name in outputs}

    def close(self) -> None:
        """Lets go of the interpreters."""
        while not self._idle.empty():
            self._idle.get()

    def _interpreter(self) -> Interpreter:
        with self._lock:
            return Interpreter(model_content=self._content, num_threads=self._threads)

    def _most_rows(self, interpreter: Interpreter, signature: str) -> int:
        """How many rows may run at a time; runs the model on zeros, so that a broken one fails here.

        Some files were converted for one image and have that 1 written into a reshape: with more rows they fail, or
        mix them up. Those run row by row, and so do files that take images of any size: there is no size to try.
        """
        shapes = {name: declared_shape(info) for name, info in self.signatures[signature].inputs.items()}
        if any(-1 in shape[1:] for shape in shapes.values()):
            return 1
        details = interpreter.get_signature_runner(signature).get_input_details()

        def zeros(rows: int) -> dict[str, np.ndarray]:
            return {
                name: np.zeros([rows, *shape[1:]] if shape else [], details[name]["dtype"])
                for name, shape in shapes.items()
            }

        interpreter.get_signature_runner(signature)(**zeros(1))
        try:
            two = self._interpreter().get_signature_runner(signature)(**zeros(2))
        except (ValueError, RuntimeError):
            return 1
        return SLICE_ROWS if all(array.ndim and len(array) == 2 for array in two.values()) else 1


def _signature(interpreter: Interpreter, name: str) -> pb.SignatureDef:
    """What the file declares, as a SignatureDef whose first dimension, the rows, is free."""
    runner = interpreter.get_signature_runner(name)
    signature = pb.SignatureDef(method_name="tensorflow/serving/predict")
    for details, infos in (
        (runner.get_input_details(), signature.inputs),
        (runner.get_output_details(), signature.outputs),
    ):
        for alias, detail in details.items():
            info = infos[alias]
            info.name = detail["name"]
            try:
                info.dtype = dtype_enum(detail["dtype"])
            except TensorError as error:
                raise ValueError(f"{error}, of {alias!r} in signature {name!r}") from error
            # Outputs whose sizes are computed have no shape_signature.
            shape = detail["shape_signature"] if len(detail["shape_signature"]) else detail["shape"]
            for i, size in enumerate(shape):
                info.tensor_shape.dim.add(size=-1 if i == 0 else int(size))
    return signature


def _is_numeric(signature: pb.SignatureDef) -> bool:
    infos = [*signature.inputs.values(), *signature.outputs.values()]
    return all(info.dtype != pb.DT_STRING for info in infos)
