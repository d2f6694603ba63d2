"""Runs the signatures of a `model.tflite` in LiteRT, with XNNPACK."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from keraslight_serving.server.base.call import Call, expired
from keraslight_serving.server.base.errors import invalid
from keraslight_serving.server.running.engines._undeclared import Details, undeclared_signatures
from keraslight_serving.server.running.signatures import Arrays, Outputs, Signature
from keraslight_serving.startup import quiet
from keraslight_serving.wire import serving_pb2 as pb
from keraslight_serving.wire.tensors import TensorError, dtype_enum

# Rows that run at a time; larger batches run in slices. An interpreter keeps the memory of its largest batch, and on a
# CPU a row of a batch takes no less time than a row alone (small MobileNetV4: 4.7 ms alone, 5.5 ms in a batch of 8).
SLICE_ROWS = 8

_Layout = tuple[str, tuple[tuple[str, tuple[int, ...]], ...]]  # a signature, and the shape of each input


class LiteRTEngine:
    """A pool of interpreters over one file.

    An interpreter serves one request at a time: `interpreters` requests run at once and others wait. The first
    interpreter is created, and tried on zeros, at once, the others on demand. Each keeps the memory layout of its last
    request, and a request prefers an idle interpreter with its own layout. There is not one per batch size, because
    each packs the weights again (25 MB for a small MobileNetV4), and returning to a batch size it has had before takes
    0.1 ms.

    Signatures with strings are left out: for these, LiteRT needs TensorFlow's kernels. `undeclared`: whether a file
    that declares no signatures gets those of `_undeclared.py`. Unusable files raise OSError, ValueError or
    RuntimeError.
    """

    name = "litert"

    def __init__(self, path: Path, *, threads: int, interpreters: int, undeclared: bool = True) -> None:
        # Not by its path: LiteRT maps files into memory, and overwriting one in place would kill the process (SIGBUS).
        self._content = path.read_bytes()
        self._threads, self._undeclared = threads, undeclared
        self._making = threading.Lock()
        first = self._make()
        self.signatures = {name: s for name, s in first.signatures().items() if _is_numeric(s)}
        # Inputs that are declared as columns, (rows, 1).
        self._columns = {
            name: {alias for alias, (_, shape) in s.inputs.items() if shape is not None and shape[1:] == (1,)}
            for name, s in self.signatures.items()
        }
        with quiet("litert"):
            self._slice_rows = {name: self._most_rows(first, name) for name in self.signatures}
        # One thread per interpreter: threads of the pool stay on their CPUs. In the callers' threads, which sleep and
        # wake up on another CPU, the same network takes a quarter longer when all CPUs are busy.
        self._pool = ThreadPoolExecutor(interpreters, thread_name_prefix="litert")
        self._idle_lock = threading.Lock()
        self._idle = [first]

    def run(self, signature: str, inputs: Arrays, outputs: Sequence[str], call: Call) -> Outputs:
        """See `Engine.run`. Inputs are cast to the file's dtypes; vectors become columns where those are declared."""
        if columns := self._columns[signature]:
            inputs = {name: a[:, None] if a.ndim == 1 and name in columns else a for name, a in inputs.items()}
        rows = {len(array) for array in inputs.values() if array.ndim}
        if len(rows) > 1:
            raise invalid(f"All inputs must have the same number of rows. Received: {sorted(rows)}")
        running = self._pool.submit(self._run, signature, inputs, outputs, max(rows, default=1), call)
        try:
            return running.result(None if call.deadline is None else max(0, call.deadline - time.monotonic()))
        except TimeoutError:
            if running.cancel():
                raise expired() from None
            return running.result()  # it is running: its memory must stay until it ends

    def close(self) -> None:
        """Frees the interpreters and their threads."""
        self._pool.shutdown(wait=False)
        self._idle.clear()

    def _run(self, signature: str, inputs: Arrays, outputs: Sequence[str], total: int, call: Call) -> Outputs:
        step, network, parts = self._slice_rows[signature], None, []
        try:
            network = self._take(_layout(signature, inputs) if total <= step else None)
            for start in range(0, total, step):
                call.check()
                part = inputs
                if total > step:
                    part = {name: a[start : start + step] if a.ndim else a for name, a in inputs.items()}
                parts.append(network.run(signature, part, outputs))
            if len(parts) > 1:
                parts = [{name: np.concatenate([part[name] for part in parts]) for name in outputs}]
        except (ValueError, RuntimeError) as error:
            # Half-resized tensors would break the next request, so a new interpreter takes this one's place.
            network = None
            raise invalid(f"LiteRT can't run signature {signature!r} on these inputs: {error}") from error
        finally:
            if network is not None:
                with self._idle_lock:
                    self._idle.append(network)
        return parts[0]

    def _take(self, layout: _Layout | None) -> "_Network":
        """Takes an idle interpreter, with this layout if possible, else the one used last; or creates one."""
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
        """Returns how many rows may run at a time. Runs the model on zeros, so that a broken one fails here.

        Some files were converted for one image, with that 1 written into a reshape: with more rows they fail, or mix
        them up. Those run row by row, and so do files that take images of any size, since there is no size to try.
        """
        declared = self.signatures[signature]
        shapes = {name: shape or () for name, (_, shape) in declared.inputs.items()}
        if any(-1 in shape[1:] for shape in shapes.values()):
            return 1

        def zeros(rows: int) -> Outputs:
            return {name: np.zeros([rows, *shape[1:]] if shape else [], np.uint8) for name, shape in shapes.items()}

        network.run(signature, zeros(1), list(declared.outputs))
        try:
            two = self._make().run(signature, zeros(2), list(declared.outputs))
        except (ValueError, RuntimeError):
            return 1
        return SLICE_ROWS if all(array.ndim and len(array) == 2 for array in two.values()) else 1


class _Network:
    """An interpreter, for one caller at a time. `layout`: what its memory is laid out for; None if unknown.

    A file with at most one signature is run by tensor numbers: inputs are written, and cast, where the interpreter
    reads them, and only requested outputs are copied out. Files with more signatures need runners, which copy each
    input once more.
    """

    def __init__(self, content: bytes, threads: int, undeclared: bool) -> None:
        self._interpreter = Interpreter(model_content=content, num_threads=threads)
        self.layout: _Layout | None = None
        names = list(self._interpreter.get_signature_list())
        self._by_number = len(names) <= 1
        self._details: dict[str, tuple[Details, Details]] = {}  # of the inputs and the outputs, by alias
        if not names and undeclared:
            ends = self._interpreter.get_input_details(), self._interpreter.get_output_details()
            self._details = undeclared_signatures(content, *ends)
        for name in names:
            # Runners must not be kept: while they hold the interpreter, it doesn't give access to its memory.
            runner = self._interpreter.get_signature_runner(name)
            self._details[name] = runner.get_input_details(), runner.get_output_details()

    def signatures(self) -> dict[str, Signature]:
        """Returns what the file declares, with a free first dimension (the rows)."""
        return {name: _signature(name, *ends) for name, ends in self._details.items()}

    def run(self, signature: str, inputs: Arrays, outputs: Sequence[str]) -> Outputs:
        """Raises ValueError or RuntimeError for inputs that don't fit; the object is unusable then."""
        interpreter = self._interpreter
        layout, (details, answers) = _layout(signature, inputs), self._details[signature]
        if not self._by_number:
            runner = interpreter.get_signature_runner(signature)
            found = runner(**{name: array.astype(details[name]["dtype"]) for name, array in inputs.items()})
            self.layout = layout
            return {name: found[name] for name in outputs}
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


def _layout(signature: str, inputs: Arrays) -> _Layout:
    return signature, tuple(sorted((name, array.shape) for name, array in inputs.items()))


def _signature(name: str, inputs: Details, outputs: Details) -> Signature:
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
    return Signature.of(signature)


def _is_numeric(signature: Signature) -> bool:
    return all(dtype != pb.DT_STRING for dtype, _ in (*signature.inputs.values(), *signature.outputs.values()))
