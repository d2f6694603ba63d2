"""Runs a .tflite file under emulation. A script for the emulated Python, which has NumPy and LiteRT, not keraslight.

Arguments: the file; an .npy of batches as the file takes them; the indices of the input's and the output's tensor; the
.npz to write; the name of LiteRT's library. The .npz holds `outputs` (one per batch), `seconds` (CPU time of one more
run of the first batch, which is also what `_count.c` counts), `outside` (indices of the operators that no delegate
runs) and `base` (where the library is loaded).
"""

import contextlib
import os
import sys
import time

import numpy as np
from ai_edge_litert.interpreter import Interpreter

_MARK = 1_000_000  # a file descriptor that nothing has; see _count.c


def main(path: str, inputs: str, source: int, sink: int, results: str, library: str) -> None:
    interpreter = Interpreter(path, num_threads=1)
    interpreter.allocate_tensors()
    batches = np.load(inputs)
    outputs = []
    for batch in batches:
        interpreter.set_tensor(source, batch)
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(sink))
    interpreter.set_tensor(source, batches[0])
    _mark(b"")
    start = time.process_time()
    interpreter.invoke()
    seconds = time.process_time() - start
    _mark(b"x")
    np.savez(results, outputs=np.stack(outputs), seconds=seconds, outside=_outside(interpreter), base=_base(library))


def _mark(content: bytes) -> None:
    with contextlib.suppress(OSError):
        os.write(_MARK, content)


def _outside(interpreter: Interpreter) -> list[int]:
    """Indices of the operators that run on their own: no delegate writes their outputs, and yet these have memory."""
    operators = interpreter._get_ops_details()
    written = {tensor for entry in operators if entry["op_name"] == "DELEGATE" for tensor in entry["outputs"]}
    return [
        entry["index"]
        for entry in operators
        if entry["op_name"] != "DELEGATE"
        and not any(tensor in written or _is_empty(interpreter, tensor) for tensor in entry["outputs"])
    ]


def _is_empty(interpreter: Interpreter, tensor: int) -> bool:
    try:
        interpreter.get_tensor(tensor)
    except ValueError:
        return True
    return False


def _base(library: str) -> int:
    with open("/proc/self/maps") as maps:
        return min((int(line.split("-")[0], 16) for line in maps if line.rstrip().endswith(library)), default=0)


if __name__ == "__main__":
    file, batches_file, source_index, sink_index, results_file, library_name = sys.argv[1:]
    main(file, batches_file, int(source_index), int(sink_index), results_file, library_name)
