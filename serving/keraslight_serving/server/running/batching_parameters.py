"""`--batching_parameters_file`: TensorFlow Serving's BatchingParameters in protobuf's text format."""

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from keraslight_serving.server.base.cpus import available_cpus
from keraslight_serving.wire import serving_pb2 as pb

MODEL_FILE = "batching_params.pbtxt"  # in a version's folder, for `--enable_per_model_batching_parameters`


@dataclass(frozen=True)
class BatchingParameters:
    """How requests are joined. Names and defaults are TensorFlow Serving's."""

    max_batch_size: int = 1000  # maximum rows of a request and, unless large requests are split, of a batch
    batch_timeout_micros: int = 0  # for which a batch that isn't full waits for more
    max_enqueued_batches: int = 10  # maximum in one queue
    num_batch_threads: int = 1  # batches that run at once, over all models
    thread_pool_name: str = "model_server_batch_threads"  # in metrics
    allowed_batch_sizes: tuple[int, ...] = ()  # to the next of which a batch is padded; empty for no padding
    pad_variable_length_inputs: bool = False  # to the largest, where shapes differ after the rows
    enable_large_batch_splitting: bool = False  # whether a request may be split over several batches
    max_execution_batch_size: int = 1000  # maximum rows of a batch


def default_parameters() -> BatchingParameters:
    """Returns the parameters that apply without a file: one batch per CPU runs at once."""
    return _from_message(pb.BatchingParameters())


def read_parameters(path: str | os.PathLike[str]) -> BatchingParameters:
    """Reads a file. Raises ValueError if it can't be read, has unknown fields, or values that contradict each other."""
    message = pb.BatchingParameters()
    try:
        text_format.Parse(Path(path).read_text(encoding="utf-8"), message)
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise ValueError(f"Invalid protobuf file: '{path}': {error}") from error
    return _from_message(message)


def _from_message(message: pb.BatchingParameters) -> BatchingParameters:
    values: dict[str, Any] = {"num_batch_threads": available_cpus()}
    values |= {field.name: getattr(value, "value", value) for field, value in message.ListFields()}  # most are wrapped
    most = values.get("max_batch_size", BatchingParameters.max_batch_size)
    splitting = values.get("enable_large_batch_splitting", False)
    values["max_execution_batch_size"] = values.get("max_execution_batch_size", most) if splitting else most
    found = BatchingParameters(**values | {"allowed_batch_sizes": tuple(message.allowed_batch_sizes)})
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
        return found
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
    return found
