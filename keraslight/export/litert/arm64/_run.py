"""Runs .tflite files on emulated ARM64 kernels."""

from __future__ import annotations

import bisect
import dataclasses
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keraslight._notebook import Report
from keraslight.errors import ExportError, InvalidArgumentError, MissingDependencyError
from keraslight.export.litert._report import LiteRTOperator, litert_report
from keraslight.export.litert._run import LiteRTEnds
from keraslight.export.litert.arm64._install import LIBRARY, arm64_problem, command, rig_folder

_CHILD = Path(__file__).with_name("_child.py")
_SPARSE = "_spmm_"  # part of the names of XNNPACK's sparse kernels


@dataclasses.dataclass(frozen=True)
class ARM64Run(Report):
    """What a .tflite file did on emulated ARM64 kernels; `str()` is one line.

    Attributes:
        outputs: Its outputs as float32, (B, ...).
        instructions: Instructions of one run of the interpreter, for the file's batch size.
        functions: The same by function of LiteRT's library, most first; `""` is what is in no function.
        milliseconds: CPU time of that run under emulation, not on a phone: an emulated vector multiplication
            takes some twenty times as long as an emulated load.
        outside: The operators that XNNPACK did not run.
    """

    outputs: npt.NDArray[np.float32]
    instructions: int
    functions: Mapping[str, int]
    milliseconds: float
    outside: tuple[LiteRTOperator, ...]

    @property
    def sparse(self) -> int:
        """Instructions in XNNPACK's sparse kernels; 0 where the file ran as a dense one."""
        return sum(count for name, count in self.functions.items() if _SPARSE in name)

    def __str__(self) -> str:
        kinds = Counter(operator.kind for operator in self.outside)
        outside = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "nothing"
        sparse = f" ({self.sparse / self.instructions:.0%} in sparse kernels)" if self.sparse else ""
        return (
            f"ARM64: {self.instructions / 1e6:.2f} million instructions{sparse}, {self.milliseconds:.0f} ms of "
            f"emulation, outside XNNPACK: {outside}"
        )


def run_on_arm64(path: str | os.PathLike[str], images: npt.NDArray[Any]) -> ARM64Run:
    """Runs a .tflite file by LiteRT's ARM64 build, as if its input and output were float32.

    A phone's kernels are others than this machine's: answers can differ by rounding, and only they run sparse files
    sparsely. The processor is QEMU's Cortex-A76, on one thread.

    Args:
        path: A file as in `litert_runner`.
        images: Float32 images (B, H, W, C), at least one.

    Returns:
        Outputs and counts.

    Raises:
        InvalidArgumentError: `path` is not a file, or there are no images.
        ExportError: The file is not a .tflite file, or the emulated LiteRT can't run it.
        MissingDependencyError: The emulated system is not installed: see `install_arm64`.
    """
    if problem := arm64_problem():
        raise MissingDependencyError(f"Running on ARM64 kernels needs an emulator. Received: {problem}.")
    if len(images) == 0:
        raise InvalidArgumentError("`images` must hold at least one image. Received: none.")
    ends = LiteRTEnds(path)
    with tempfile.TemporaryDirectory() as place:
        inputs, results, counts = (Path(place, name) for name in ("inputs.npy", "results.npz", "counts.txt"))
        np.save(inputs, np.stack([batch for batch, _ in ends.batches(images)]))
        arguments = [str(path), str(inputs), str(ends.source["index"]), str(ends.sink["index"]), str(results), LIBRARY]
        done = subprocess.run(
            [*command(rig_folder(), counts), str(_CHILD), *arguments], capture_output=True, text=True, env={}
        )
        if done.returncode or not results.is_file():
            said = [line for line in done.stderr.splitlines() if line.strip()]
            raise ExportError(
                f"LiteRT must be able to run the file on ARM64. Received: {path}; exit status {done.returncode}: "
                f"{said[-1] if said else 'no message'}"
            )
        found = np.load(results)
        addresses, executed = np.loadtxt(counts, np.int64, ndmin=2).T
    functions = _by_function(addresses - int(found["base"]), executed)
    operators = litert_report(path).operators
    outputs = [ends.floats(raw)[:count] for raw, (_, count) in zip(found["outputs"], ends.batches(images), strict=True)]
    return ARM64Run(
        np.concatenate(outputs),
        int(executed.sum()),
        functions,
        1000 * float(found["seconds"]),
        tuple(operators[index] for index in found["outside"]),
    )


def _by_function(addresses: npt.NDArray[np.int64], executed: npt.NDArray[np.int64]) -> dict[str, int]:
    """Sums up instructions by the function that an address in LiteRT's library belongs to."""
    lines = [line.split(maxsplit=2) for line in (rig_folder() / "symbols.txt").read_text().splitlines()]
    symbols = sorted((int(address, 16), name) for address, kind, name in lines if kind in "tTwW")
    starts = [address for address, _ in symbols]
    totals: Counter[str] = Counter()
    for address, count in zip(addresses, executed, strict=True):
        place = bisect.bisect(starts, address) - 1
        inside = 0 <= place < len(symbols) - 1
        totals[symbols[place][1] if inside else ""] += int(count)
    return dict(totals.most_common())
