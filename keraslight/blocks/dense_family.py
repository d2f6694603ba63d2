"""`register_dense` turns the head of a detector or segmenter into its builder.

A family's file states what is special: a function `(images, maps, *, classes, its own arguments)` that returns the
model's outputs by name. `maps` are tensors that a classifier computed from the images, largest first; which classifier
that is, the builder's caller decides (`keraslight.zoo` for a name). Families without a backbone leave `maps` out.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import KerasTensor

from keraslight import registry
from keraslight.blocks.family import argument_lines
from keraslight.blocks.model import check_head
from keraslight.errors import InvalidArgumentError
from keraslight.registry import Variant

Outputs = dict[str, KerasTensor]
"""A dense model's outputs by name."""

ARGUMENTS = {
    "input_shape": "(height, width, channels), with sides in pixels{sides}. None uses the variant's own input size and "
    "channels.",
    "input_tensor": "Keras tensor to build on instead of a new input.",
    "classes": "Number of classes, at least 1{background}. None uses the variant's own.",
    "name": "Name of the model. None uses the variant's full name, or those of the family and the backbone.",
}
"""The arguments that all builders share, with their documentation."""

BACKGROUND = {
    "detection": " and without the background",
    "segmentation": ", of which the background is one",
}

RETURNS = {
    "detection": "A model (B, H, W, C) float32 -> dict of raw class and box outputs for N places.",
    "segmentation": 'A model (B, H, W, C) float32 -> `{"logits": (B, H, W, classes)}`.',
}


def register_dense(
    variants: Mapping[str, Variant], *, prefix: str, taps: tuple[int, ...] = (), multiple: int = 1
) -> Callable[[Callable[..., Outputs]], Callable[..., keras.Model]]:
    """Registers a family of detectors or segmenters and returns its builder.

    The builder takes the name of a variant, the images, the maps, `classes`, `name` and the family's own arguments;
    those that aren't given come from the variant's row.

    Args:
        variants: Full name -> row. The first one is the default.
        prefix: What the short form of a name leaves out, as in `NanoDetPlus("m_320")`.
        taps: Strides of the maps that the family reads of a classifier that no variant names, largest map first. Empty
            for families without a backbone.
        multiple: Number of pixels by which both sides of an image must be divisible.
    """
    task = next(iter(variants.values())).task

    def decorate(network: Callable[..., Outputs]) -> Callable[..., keras.Model]:
        def build(
            variant: str,
            images: KerasTensor,
            maps: Sequence[KerasTensor] | None = None,
            *,
            classes: int | None = None,
            name: str | None = None,
            **arguments: Any,
        ) -> keras.Model:
            full_name = registry.DENSE[network.__name__].full_name(variant)
            row = variants[full_name]
            check_head(classes, None, None)
            _check_multiple(images.shape[1:], multiple)
            classes = row.classes if classes is None else classes
            tensors = () if maps is None else (tuple(maps),)
            outputs = network(images, *tensors, classes=classes, **{**row.arguments, **arguments})
            (source,) = keras.utils.get_source_inputs(images)
            return keras.Model(source, outputs, name=name or full_name)

        own = [p for p in inspect.signature(network).parameters.values() if p.kind is p.KEYWORD_ONLY]
        own = [p.replace(default=None) if p.default is p.empty else p for p in own if p.name != "classes"]
        build.__name__ = build.__qualname__ = network.__name__
        build.__module__ = network.__module__
        build.__signature__ = inspect.Signature(  # type: ignore[attr-defined] # an attribute that `inspect` looks for
            own, return_annotation="keras.Model"
        )
        build.__doc__ = _documentation(network, task, multiple)
        return registry.register(variants, prefix=prefix, taps=taps)(build)

    return decorate


def _check_multiple(shape: tuple[int | None, ...], multiple: int) -> None:
    if any(side is not None and side % multiple for side in shape[:2]):
        raise InvalidArgumentError(
            f"`input_shape` needs sides that are multiples of {multiple} pixels. Received: {tuple(shape)}."
        )


def _documentation(network: Callable[..., Outputs], task: str, multiple: int) -> str:
    """Completes a family's docstring with the common arguments, its outputs and its errors."""
    doc = inspect.cleandoc(network.__doc__ or "")
    summary, _, own = doc.partition("\n\nArgs:\n")
    returned = RETURNS[task]
    if "\n\nReturns:\n" in own:
        own, _, returned = own.partition("\n\nReturns:\n")
    words = {
        "sides": f" that are multiples of {multiple}, or None (any size)" if multiple > 1 else " or None (any size)",
        "background": BACKGROUND[task],
    }
    lines = argument_lines((name, text.format(**words)) for name, text in ARGUMENTS.items())
    ending = [
        "",
        "Returns:",
        f"    {returned.strip()}",
        "",
        "Raises:",
        "    UnknownModelError: The variant or backbone is unknown.",
        "    InvalidArgumentError: An argument is out of range.",
    ]
    return "\n".join([f"{summary}\n\nArgs:", *([own] if own else []), *lines, *ending])
