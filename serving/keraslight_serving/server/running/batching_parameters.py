"""`--batching_parameters_file`: TensorFlow Serving's BatchingParameters in protobuf's text format."""

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from keraslight_serving.server.base.cpus import available_cpus
from keraslight_serving.wire import serving_pb2 as pb

MODEL_FILE = "batching_params.pbtxt"
"""The file in a version's folder that `--enable_per_model_batching_parameters` reads."""


@dataclass(frozen=True)
class BatchingParameters:
    """How requests are joined. Names and defaults are TensorFlow Serving's.

    Attributes:
        max_batch_size: Maximum rows of a request and, unless large requests are split, of a batch.
        batch_timeout_micros: Microseconds for which a batch that isn't full waits for more.
        max_enqueued_batches: Maximum batches in one queue.
        num_batch_threads: Batches that run at once, over all models.
        thread_pool_name: Name of the threads in metrics.
        allowed_batch_sizes: Sizes to the next of which a batch is padded; empty for no padding.
        pad_variable_length_inputs: Whether inputs whose shapes differ after the rows are padded to the largest.
        enable_large_batch_splitting: Whether a request may be split over several batches.
        max_execution_batch_size: Maximum rows of a batch.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = 1
    thread_pool_name: str = "model_server_batch_threads"
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int = 1000


def default_parameters() -> BatchingParameters:
    """Returns the parameters that apply without a file: one batch per CPU runs at once."""
    return _from_message(pb.BatchingParameters())


def read_parameters(path: str | os.PathLike[str]) -> BatchingParameters:
    """Reads a file.

    Raises:
        ValueError: It can't be read, has unknown fields, or values that contradict each other.
    """
    message = pb.BatchingParameters()
    try:
        text_format.Parse(Path(path).read_text(encoding="utf-8"), message)
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise ValueError(f"Invalid protobuf file: '{path}': {error}") from error
    return _from_message(message)


def _from_message(message: pb.BatchingParameters) -> BatchingParameters:
    def value(name: str, default: Any) -> Any:
        return getattr(message, name).value if message.HasField(name) else default

    largest = value("max_batch_size", BatchingParameters.max_batch_size)
    splitting = value("enable_large_batch_splitting", False)
    found = BatchingParameters(
        max_batch_size=largest,
        batch_timeout_micros=value("batch_timeout_micros", 0),
        max_enqueued_batches=value("max_enqueued_batches", BatchingParameters.max_enqueued_batches),
        num_batch_threads=value("num_batch_threads", available_cpus()),
        thread_pool_name=value("thread_pool_name", BatchingParameters.thread_pool_name),
        allowed_batch_sizes=tuple(message.allowed_batch_sizes),
        pad_variable_length_inputs=message.pad_variable_length_inputs,
        enable_large_batch_splitting=splitting,
        max_execution_batch_size=value("max_execution_batch_size", largest) if splitting else largest,
    )
    _check(found)
    return found


def _check(found: BatchingParameters) -> None:
    for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads", "max_execution_batch_size"):
        if getattr(found, name) < 1:
            raise ValueError(f"{name} must be positive; was {getattr(found, name)}")
    if found.batch_timeout_micros < 0:
        raise ValueError(f"batch_timeout_micros must be non-negative; was {found.batch_timeout_micros}")
    if found.max_execution_batch_size > found.max_batch_size:
        raise ValueError(
            "When enable_large_batch_splitting is true, max_batch_size must be greater than or equal to "
            f"max_execution_batch_size; was {found.max_batch_size}, {found.max_execution_batch_size}"
        )
    sizes = found.allowed_batch_sizes
    if not sizes:
        return
    if found.enable_large_batch_splitting and sizes[-1] != found.max_execution_batch_size:
        raise ValueError(
            "Last entry in allowed_batch_sizes must be equal to max_execution_batch_size; last entry was "
            f"{sizes[-1]}; expected {found.max_execution_batch_size}"
        )
    if not found.enable_large_batch_splitting and sizes[-1] != found.max_batch_size:
        raise ValueError(
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was "
            f"{sizes[-1]}; expected {found.max_batch_size}"
        )
    if sizes[0] < 1 or any(a >= b for a, b in itertools.pairwise(sizes)):
        raise ValueError(f"allowed_batch_sizes entries must be positive and monotonically increasing; was {sizes}")
