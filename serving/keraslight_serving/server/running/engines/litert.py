"""Runs the signatures of a `model.tflite` in LiteRT, with XNNPACK."""

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from keraslight_serving.server.base.call import Call, expired
from keraslight_serving.server.base.errors import invalid
from keraslight_serving.server.running.engines._undeclared import Details, undeclared_signatures
from keraslight_serving.server.running.signatures import declared_shape
from keraslight_serving.wire import serving_pb2 as pb
from keraslight_serving.wire.tensors import TensorError, dtype_enum

# Rows that run at a time. Larger batches go through in slices: an interpreter keeps the memory of its largest batch,
# and on a CPU a row in a batch takes no less time than one alone (small MobileNetV4: 4.7 ms, in a batch of 8 5.5 ms).
SLICE_ROWS = 8


class LiteRTEngine:
    """A pool of interpreters over one file.

    An interpreter serves one request at a time, so that `interpreters` requests run at once and others wait. The first
    one is made (and tried) at once, the rest when they are needed. Each keeps the memory layout of its last request,
    and a request gets one with its own layout where such a one is idle. There is not one for every batch size: each
    packs the weights anew (25 MB for a small MobileNetV4), and laying out for a number of rows that it has had before
    takes 0.1 ms.

    Args:
        path: the .tflite file. Signatures with strings are left out: LiteRT's need TensorFlow's kernels.
        threads: CPU threads of one interpreter.
        interpreters: size of the pool.
        undeclared: give a file that declares no signatures those of `_undeclared.py`.

    Raises:
        OSError: the file can't be read.
        ValueError, RuntimeError: LiteRT can't load the file, or can't run it on zeros.
    """

    name = "litert"

    def __init__(self, path: Path, *, threads: int, interpreters: int, undeclared: bool = True) -> None:
        # Not by its path: LiteRT maps files, and one that is overwritten in place would end the process (SIGBUS).
        self._content = path.read_bytes()
        self._threads, self._undeclared = threads, undeclared
        self._making = threading.Lock()
        first = self._make()
        self.signatures = {name: s for name, s in first.signatures().items() if _is_numeric(s)}
        self._columns = {name: _columns(s) for name, s in self.signatures.items()}
        self._slice_rows = {name: self._most_rows(first, name) for name in self.signatures}
        # Threads of its own, one for each interpreter: they stay on their CPUs. In the callers' threads, which sleep
        # and wake up elsewhere, the same network takes a quarter longer when all CPUs are busy.
        self._pool = ThreadPoolExecutor(interpreters, thread_name_prefix="litert")
        self._idle_lock = threading.Lock()
        self._idle = [first]

    def run(
        self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str], call: Call
    ) -> dict[str, np.ndarray]:
        """Runs a signature. Inputs of another dtype than the file's are cast on their way in, vectors made columns."""
        if columns := self._columns[signature]:
            inputs = {name: a[:, None] if a.ndim == 1 and name in columns else a for name, a in inputs.items()}
        rows = {len(array) for array in inputs.values() if array.ndim}
        if len(rows) > 1:
            raise invalid(f"All inputs must have the same number of rows. Received: {sorted(rows)}")
        running = self._pool.submit(self._run, signature, inputs, outputs, max(rows, default=1), call)
        try:
            return running.result(_seconds_left(call))
        except TimeoutError:
            if running.cancel():
                raise expired() from None
            return running.result()  # it has begun: its memory must stay until it ends

    def close(self) -> None:
        """Lets go of the interpreters and their threads."""
        self._pool.shutdown(wait=False)
        self._idle.clear()

    def _run(
        self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str], total: int, call: Call
    ) -> dict[str, np.ndarray]:
        step = self._slice_rows[signature]
        network = None
        try:
            parts = []
            network = self._take((signature, _shapes(inputs)) if total <= step else None)
            for start in range(0, total, step):
                call.check()
                part = inputs
                if total > step:
                    part = {name: a[start : start + step] if a.ndim else a for name, a in inputs.items()}
                parts.append(network.run(signature, part, outputs))
            if len(parts) > 1:
                parts = [{name: np.concatenate([part[name] for part in parts]) for name in outputs}]
        except (ValueError, RuntimeError) as error:
            # Half-resized tensors would haunt the next request: a new interpreter will take this one's place.
            network = None
            raise invalid(f"LiteRT can't run signature {signature!r} on these inputs: {error}") from error
        finally:
            if network is not None:
                with self._idle_lock:
                    self._idle.append(network)
        return parts[0]

    def _take(self, layout: tuple | None) -> "_Network":
        """An idle interpreter, best one with this layout, else the last that was used; or a new one."""
        with self._idle_lock:
            for i in reversed(range(len(self._idle))):
                if self._idle[i].layout == layout:
                    return self._idle.pop(i)
            if self._idle:
                return self._idle.pop()
        return self._make()

    def _make(self) -> "_Network":
        with self._making:
            return _Network(self._content, self._threads, self._undeclared)

    def _most_rows(self, network: "_Network", signature: str) -> int:
        """How many rows may run at a time; runs the model on zeros, so that a broken one fails here.

        Some files were converted for one image and have that 1 written into a reshape: with more rows they fail, or
        mix them up. Those run row by row, and so do files that take images of any size: there is no size to try.
        """
        declared = self.signatures[signature]
        shapes = {name: declared_shape(info) for name, info in declared.inputs.items()}
        if any(-1 in shape[1:] for shape in shapes.values()):
            return 1

        def zeros(rows: int) -> dict[str, np.ndarray]:
            return {name: np.zeros([rows, *shape[1:]] if shape else [], np.uint8) for name, shape in shapes.items()}

        network.run(signature, zeros(1), list(declared.outputs))
        try:
            two = self._make().run(signature, zeros(2), list(declared.outputs))
        except (ValueError, RuntimeError):
            return 1
        return SLICE_ROWS if all(array.ndim and len(array) == 2 for array in two.values()) else 1


class _Network:
    """An interpreter, for one caller at a time.

    A file with one signature, or none of its own, is run by the numbers of its tensors: inputs are written (and cast)
    where the interpreter reads them, and only outputs that are asked for are copied out. For the signature runners that
    files with several need, each input is copied once more.

    Attributes:
        layout: the signature and the shapes that memory is laid out for; None: not known.
    """

    def __init__(self, content: bytes, threads: int, undeclared: bool) -> None:
        self._interpreter = Interpreter(model_content=content, num_threads=threads)
        self.layout: tuple | None = None
        names = list(self._interpreter.get_signature_list())
        # Details of the inputs and the outputs, by alias, of the signatures that need no runner.
        self._details: dict[str, tuple[Details, Details]] = {}
        if not names and undeclared:
            ends = self._interpreter.get_input_details(), self._interpreter.get_output_details()
            self._details = undeclared_signatures(content, *ends)
        elif len(names) == 1:
            # Runners must not be kept: they hold the interpreter, which then refuses to show its memory.
            runner = self._interpreter.get_signature_runner(names[0])
            self._details = {names[0]: (runner.get_input_details(), runner.get_output_details())}

    def signatures(self) -> dict[str, pb.SignatureDef]:
        """What the file declares, as SignatureDefs whose first dimension, the rows, is free."""
        if self._details:
            return {name: _signature(name, *ends) for name, ends in self._details.items()}
        found = {}
        for name in self._interpreter.get_signature_list():
            runner = self._interpreter.get_signature_runner(name)
            found[name] = _signature(name, runner.get_input_details(), runner.get_output_details())
        return found

    def run(self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]) -> dict[str, np.ndarray]:
        """Raises ValueError or RuntimeError for inputs that don't fit; the object is of no use then."""
        interpreter = self._interpreter
        if signature not in self._details:
            runner = interpreter.get_signature_runner(signature)
            details = runner.get_input_details()
            answers = runner(**{name: array.astype(details[name]["dtype"]) for name, array in inputs.items()})
            self.layout = (signature, _shapes(inputs))
            return {name: answers[name] for name in outputs}
        details, answers = self._details[signature]
        layout = (signature, _shapes(inputs))
        if layout != self.layout:
            self.layout = None
            for name, array in inputs.items():
                interpreter.resize_tensor_input(details[name]["index"], array.shape)
            interpreter.allocate_tensors()
            self.layout = layout
        for name, array in inputs.items():
            np.copyto(interpreter.tensor(details[name]["index"])(), array, casting="unsafe")
        interpreter.invoke()
        return {name: interpreter.get_tensor(answers[name]["index"]) for name in outputs}


def _columns(signature: pb.SignatureDef) -> frozenset[str]:
    """The inputs that are declared (rows, 1)."""
    return frozenset(name for name, info in signature.inputs.items() if declared_shape(info)[1:] == (1,))


def _shapes(inputs: Mapping[str, np.ndarray]) -> tuple:
    return tuple(sorted((name, array.shape) for name, array in inputs.items()))


def _seconds_left(call: Call) -> float | None:
    return None if call.deadline is None else max(0, call.deadline - time.monotonic())


def _signature(name: str, inputs: Mapping[str, dict], outputs: Mapping[str, dict]) -> pb.SignatureDef:
    signature = pb.SignatureDef(method_name="tensorflow/serving/predict")
    for details, infos in ((inputs, signature.inputs), (outputs, signature.outputs)):
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
