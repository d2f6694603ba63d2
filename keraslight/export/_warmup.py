"""Warmup requests, which TensorFlow Serving replays before a version becomes available.

Source: https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from keraslight._tasks import Head
from keraslight.errors import InvalidArgumentError, MissingDependencyError
from keraslight.export._signatures import examples_signature

MOST_RECORDS = 1000
"""Loading fails if a file has more (`saved_model_warmup_util.cc`)."""


def write_warmup(
    file: Path, name: str, shape: tuple[int, int, int], head: Head, *, embed: bool, batch_sizes: Sequence[int]
) -> None:
    """Writes one request per signature and batch size; InvalidArgumentError if TensorFlow Serving accepts fewer."""
    try:
        from tensorflow_serving.apis import prediction_log_pb2
    except ImportError as error:
        raise MissingDependencyError(
            'Warmup requests need tensorflow-serving-api: pip install "keraslight[export]".'
        ) from error
    logs = [log for size in batch_sizes for log in _logs(prediction_log_pb2, name, shape, head, size, embed)]
    if len(logs) > MOST_RECORDS:
        raise InvalidArgumentError(
            f"Warmup requests must be at most {MOST_RECORDS}, or TensorFlow Serving rejects the version. Received: "
            f"{len(logs)}, for {len(batch_sizes)} allowed batch sizes."
        )
    with tf.io.TFRecordWriter(str(file)) as writer:
        for log in logs:
            writer.write(log.SerializeToString())


def _logs(pb: Any, name: str, shape: tuple[int, int, int], head: Head, size: int, embed: bool) -> Iterator[Any]:
    def predict(signature: str, alias: str, tensor: Any) -> Any:
        log = pb.PredictionLog()
        request = log.predict_log.request
        request.model_spec.name, request.model_spec.signature_name = name, signature
        request.inputs[alias].CopyFrom(tensor)
        return log

    yield predict("serving_default", "images", _grey(size, shape, tf.float32))
    yield predict("serving_uint8", "images", _grey(size, shape, tf.uint8))
    if embed:
        yield predict("embed", "images", _grey(size, shape, tf.float32))
    png = tf.io.encode_png(np.full(shape, 128, np.uint8)).numpy()
    yield predict("encoded", "image_bytes", tf.make_tensor_proto([png] * size))
    if (signature := examples_signature(head)) is None:
        return
    log = pb.PredictionLog()
    request = (log.classify_log if head.ranks else log.regress_log).request
    request.model_spec.name, request.model_spec.signature_name = name, signature
    for _ in range(size):
        example = request.input.example_list.examples.add()
        example.features.feature["image/encoded"].bytes_list.value.append(png)
    yield log


def _grey(size: int, shape: tuple[int, int, int], dtype: tf.DType) -> Any:
    """Grey images in a few bytes: TensorFlow repeats the last value of a tensor with too few values."""
    tensor = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum)
    (tensor.float_val if dtype == tf.float32 else tensor.int_val).append(128)
    for length in (size, *shape):
        tensor.tensor_shape.dim.add(size=length)
    return tensor
