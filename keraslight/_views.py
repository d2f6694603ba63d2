"""Test-time views: a model that looks at several copies of each image and answers once."""

from collections.abc import Sequence

import keras

from keraslight._tasks import Head, read_head
from keraslight.errors import InvalidArgumentError
from keraslight.graph import is_quantization_aware, remember_task, without_auxiliary
from keraslight.layers import ImageViews, MergeViews
from keraslight.layers.views import check_merge


def views(
    model: keras.Model,
    *,
    scales: Sequence[float] = (1.0,),
    rotations: Sequence[float] = (0.0,),
    flip: bool = False,
    merge: str = "certain",
    task: str | None = None,
    name: str | None = None,
) -> keras.Model:
    """Makes a model that shows a trained one several views of each image and merges its answers.

    All combinations of `scales`, `rotations` and, with `flip`, mirroring are shown as one batch of V views per image,
    so that an answer costs V times as much. It pays where images differ from the training images in size or direction;
    `docs/views.md` has measurements.

    Args:
        model: A functional or sequential model with one input, (B, H, W, C), whose sides and batch may be open, and one
            output, (B, K). It is not changed; the new model shares its weights.
        scales: Factors of the size about the center, above 0. Leave 1.0 in to keep the image as it is among the views.
        rotations: Angles in degrees, counterclockwise. Leave 0.0 in likewise.
        flip: Whether to add all views mirrored left to right.
        merge: `"certain"` takes the answer of the view with the largest probability, and for `multi-label` and `binary`
            models for each score the view that is farthest from one half. `"mean"` averages the probabilities, `"log"`
            their logarithms, and for independent scores their logits. Numbers of a regression have no certainty: they
            need `"mean"`.
        task: What the outputs are, as in `save_servable`. None: what the model's final activation says.
        name: Name of the new model. None: the model's with `_views`.

    Returns:
        A functional model, not compiled, that takes what `model` takes and returns probabilities, also where `model`
        returns logits, or the numbers of a regression. It can be saved, exported and profiled like any other.

    Raises:
        InvalidArgumentError: An argument is out of range, `merge` does not fit the task, the task must be said, or the
            model has other inputs or outputs, a fixed batch size, or no graph.
    """
    if is_quantization_aware(model):
        raise InvalidArgumentError(
            "`model` must be a Keras 3 model: make views of the float model, then quantize. "
            f"Received: the quantization-aware {model.name!r}."
        )
    check_merge(merge)
    model = without_auxiliary(model)
    head = read_head(model, task)
    shapes = [tuple(tensor.shape) for tensor in model.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or len(model.outputs[0].shape) != 2:
        raise InvalidArgumentError(
            "`model` must have one input of images, (B, H, W, C), and one output, (B, K): answers for each pixel would "
            f"lie elsewhere in each view. Received: inputs {shapes}, output {tuple(model.outputs[0].shape)}."
        )
    if shapes[0][0] is not None:
        raise InvalidArgumentError(
            f"`model` must take batches of any size. Received: {model.name!r}, which takes {shapes[0][0]} images."
        )
    copies, merged = view_layers(
        head,
        scales=scales,
        rotations=rotations,
        flip=flip,
        merge=merge,
        whole=not keras.backend.is_float_dtype(model.inputs[0].dtype),
    )
    images = keras.Input(batch_shape=shapes[0], dtype=model.inputs[0].dtype, name="images")
    outputs = model(copies(images))
    if head.activation is not None:
        outputs = keras.layers.Activation(head.activation, dtype="float32", name="probabilities")(outputs)
    made = keras.Model(images, merged(outputs), name=name or f"{model.name}_views")
    remember_task(made, head.task)
    return made


def view_layers(
    head: Head, *, scales: Sequence[float], rotations: Sequence[float], flip: bool, merge: str, whole: bool = False
) -> tuple[ImageViews, MergeViews]:
    """What comes before and behind a model of `head` to answer for views: images, and probabilities or numbers."""
    check_merge(merge)
    if not head.ranks and merge != "mean":
        raise InvalidArgumentError(
            "`merge` must be 'mean' for a regression: its numbers say nothing of how certain they are. "
            f"Received: merge={merge!r}."
        )
    copies = ImageViews(scales, rotations, flip, whole, name="views")
    return copies, MergeViews(copies.count, merge, head.task != "softmax", dtype="float32", name="merged_views")
