"""Signatures over serialized tf.Examples: what Classify, Regress and MultiInference check, run and answer."""

from collections.abc import Sequence

import grpc
import numpy as np

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import StatusError, invalid
from keraslight_serving.server.running.servable import Servable
from keraslight_serving.wire import methods
from keraslight_serving.wire import serving_pb2 as pb
from keraslight_serving.wire.dtypes import dtype_name
from keraslight_serving.wire.tensors import dtype_enum, shape_text

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


def classify(servable: Servable, name: str, sent: pb.Input, call: Call) -> pb.ClassificationResult:
    """Runs a signature `inputs` -> `classes` (strings), `scores` (floats) or both, each (examples, classes).

    Raises:
        StatusError: INVALID_ARGUMENT, with TensorFlow Serving's texts.
    """
    signature = _find(servable, name)
    _check_classification(signature)
    examples = _examples(sent)
    aliases = [alias for alias in ("classes", "scores") if alias in signature.outputs]
    outputs = _run(servable, name, examples, aliases, call)
    for alias, dtype in (("classes", pb.DT_STRING), ("scores", pb.DT_FLOAT)):
        if alias not in outputs:
            continue
        array = outputs[alias]
        if array.ndim != 2:
            raise invalid(f"Expected Tensor shape: [batch_size num_classes] but got {shape_text(array.shape)}")
        if dtype_enum(array.dtype) != dtype:
            raise invalid(f"Expected {alias} Tensor of {_enum_name(dtype)}. Got: {dtype_name(dtype_enum(array.dtype))}")
        if len(array) != len(examples):
            raise invalid(f"Expected {alias} output batch size of {len(examples)}. Got: {len(array)}")
    widths = [array.shape[1] for array in outputs.values()]
    if len(set(widths)) > 1:
        raise invalid(f"Tensors class and score should match in dim_size(1). Got {widths[0]} vs. {widths[1]}")
    result = pb.ClassificationResult()
    for row in range(len(examples)):
        ranked = result.classifications.add()
        for column in range(widths[0]):
            item = ranked.classes.add()
            if "classes" in outputs:
                item.label = outputs["classes"][row, column].decode(errors="replace")
            if "scores" in outputs:
                item.score = outputs["scores"][row, column]
    return result


def regress(servable: Servable, name: str, sent: pb.Input, call: Call) -> pb.RegressionResult:
    """Runs a signature `inputs` -> `outputs`, floats (examples,) or (examples, 1).

    Raises:
        StatusError: INVALID_ARGUMENT, with TensorFlow Serving's texts.
    """
    _check_regression(_find(servable, name))
    examples = _examples(sent)
    array = _run(servable, name, examples, ["outputs"], call)["outputs"]
    if array.ndim != 1 and (array.ndim != 2 or array.shape[1] != 1):
        raise invalid(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            f"{shape_text(array.shape)}"
        )
    if len(array) != len(examples):
        raise invalid(f"Input batch size did not match output batch size: {len(examples)} vs. {len(array)}")
    if array.dtype != np.float32:
        raise invalid(f"Expected output Tensor of DT_FLOAT.  Got: {_enum_name(dtype_enum(array.dtype))}")
    return pb.RegressionResult(regressions=[pb.Regression(value=value) for value in array.ravel().tolist()])


def check_tasks(tasks: Sequence[pb.InferenceTask], servable: Servable) -> dict[str, pb.InferenceTask]:
    """The tasks of a MultiInference request by signature.

    Raises:
        StatusError: INVALID_ARGUMENT, or UNIMPLEMENTED for another method.
    """
    found: dict[str, pb.InferenceTask] = {}
    for task in tasks:
        if not task.model_spec.name:
            raise invalid("Found ModelSpec with an empty model name.")
        if task.model_spec.name != tasks[0].model_spec.name:
            raise invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        name = task.model_spec.signature_name or methods.DEFAULT_SIGNATURE
        if name in found:
            raise invalid(f"Duplicate evaluation of signature: {name}")
        signature = servable.signatures.get(name)
        if signature is None:
            raise invalid(f"Requested signature not found in model graph: {name}")
        if task.method_name == CLASSIFY:
            _check_classification(signature)
        elif task.method_name == REGRESS:
            _check_regression(signature)
        else:
            raise StatusError(grpc.StatusCode.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}")
        found[name] = task
    return found


def _find(servable: Servable, name: str) -> pb.SignatureDef:
    signature = servable.signatures.get(name)
    if signature is None:
        raise invalid(f"No signature was found with the name: {name}")
    return signature


def _check_classification(signature: pb.SignatureDef) -> None:
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(signature.outputs) not in (1, 2):
        raise invalid(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if "inputs" not in signature.inputs:
        raise invalid(f"No classification inputs found in SignatureDef: {signature}")
    if not {"classes", "scores"} & set(signature.outputs):
        raise invalid(
            'Expected classification signature outputs to contain at least one of "classes" or "scores". '
            f"Signature was: {signature}"
        )


def _check_regression(signature: pb.SignatureDef) -> None:
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(signature.outputs) != 1:
        raise invalid(f"Expected one output Tensor, found {len(signature.outputs)}")
    if "inputs" not in signature.inputs:
        raise invalid(f"No regression inputs found in SignatureDef: {signature}")
    if "outputs" not in signature.outputs:
        raise invalid(f"No regression outputs found in SignatureDef: {signature}")


def _examples(sent: pb.Input) -> np.ndarray:
    """The serialized tf.Examples, shape [N]. A shared context is put before each: protobuf merges what is joined."""
    kind = sent.WhichOneof("kind")
    examples = list(getattr(sent, kind).examples) if kind else []
    if not examples:
        raise invalid("Input is empty.")
    if kind == "example_list_with_context":
        context = sent.example_list_with_context.context
        examples = [context + example for example in examples]
    return np.array(examples, object)


def _run(
    servable: Servable, name: str, examples: np.ndarray, aliases: Sequence[str], call: Call
) -> dict[str, np.ndarray]:
    inputs = {"inputs": examples}
    servable.check(name, inputs)
    return servable.run(name, inputs, aliases, call)


def _enum_name(enum: int) -> str:
    return f"DT_{dtype_name(enum).upper()}"
