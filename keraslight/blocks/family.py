"""`register` turns a family's network into its public builder.

A family's file states what is special: a function `(images, *, its own arguments) -> Network`. Everything else is the
same for all families and is added here once: the variant, the arguments of `ARGUMENTS`, their documentation, and the
signature that `help` shows.
"""

import functools
import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
from keras import KerasTensor, layers

from keraslight import registry
from keraslight.blocks.model import Head, Network, check_head, image_input
from keraslight.errors import InvalidArgumentError
from keraslight.registry import Variant

ARGUMENTS = {
    "input_shape": "(height, width, channels), with sides of at least {min_size} pixels or None (any size) and at "
    "least 1 channel. None uses the variant's own input size and channels.",
    "input_tensor": "Keras tensor to build on instead of a new input.",
    "include_top": "Whether to end in the classifier. Otherwise the model returns its last feature map.",
    "classes": "Number of classes, at least 1. None uses the variant's own.",
    "classifier_activation": 'Activation of the classifier, such as "softmax" or "sigmoid". None returns logits.',
    "pooling": 'Pooling of the last feature map if there is no top: None, "avg" or "max".',
    "features_only": "Whether to return the last feature map of each resolution instead, as a dict with keys "
    '"stride_2", "stride_4" and so on.',
    "dropout": "Dropout rate before the classifier, in [0, 1).",
    "name": "Name of the model. None uses the variant's full name.",
}
"""The arguments that all builders share, in the order of the signature, with their documentation."""

POOLINGS = {"avg": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D}

_ENDING = """
Returns:
    A model (B, H, W, C) float32 -> (B, classes).

Raises:
    UnknownModelError: The family has no such variant.
    InvalidArgumentError: An argument is out of range.
"""


def register(
    variants: Mapping[str, Variant], *, prefix: str, dropout: float = 0.0, min_size: int = 32, before: str = "drop_path"
) -> Callable[[Callable[..., Network]], Callable[..., keras.Model]]:
    """Registers a family under every name in its table and returns its public builder.

    The decorated function takes the images and, as keywords, the arguments in a row of the table and the family's other
    arguments. The builder takes the name of a variant first, then the same keywords and those of `ARGUMENTS`. Explicit
    keywords override the variant's row. The family's docstring documents its own arguments, and may document common
    ones that differ.

    Args:
        variants: Full name -> row. The first one is the default.
        prefix: What the short form of a name leaves out, as in `MobileNetV4("conv_small")`.
        dropout: Default of the builder's `dropout`.
        min_size: Smallest side of an image, in pixels.
        before: The family's argument that the common ones, except `name`, precede in the signature. If it has none of
            that name, they come last.
    """
    default, first = next(iter(variants.items()))
    short = default.removeprefix(prefix)

    def decorate(network: Callable[..., Network]) -> Callable[..., keras.Model]:
        @functools.wraps(network)
        def build(variant: str = short, **arguments: Any) -> keras.Model:
            full_name = registry.FAMILIES[network.__name__].full_name(variant)
            common = {name: arguments.pop(name) for name in ARGUMENTS if name in arguments}
            row = variants[full_name]
            own = functools.partial(network, **{**row.arguments, **arguments})
            return _build(own, row, full_name, min_size, dropout, **common)

        # What `help` and editors show: the variant, the family's own arguments and, among them, the common ones.
        own = list(inspect.signature(network).parameters.values())[1:]  # without the images
        own = [p.replace(default=None) if p.default is p.empty else p for p in own]  # the variant's row has them
        place = next((i for i, parameter in enumerate(own) if parameter.name == before), len(own))
        defaults = {"classes": first.classes, "dropout": dropout}
        declared = dict(inspect.signature(_build).parameters)
        declared["dropout"] = declared["dropout"].replace(annotation=float)
        *common, name = [declared[n].replace(default=defaults.get(n, declared[n].default)) for n in ARGUMENTS]
        variant = inspect.Parameter("variant", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=short, annotation="str")
        build.__signature__ = inspect.Signature(  # type: ignore[attr-defined] # an attribute that `inspect` looks for
            [variant, *own[:place], *common, *own[place:], name], return_annotation="keras.Model"
        )
        build.__doc__ = _documentation(network, variants, prefix, min_size)
        return registry.register(variants, prefix=prefix)(build)

    return decorate


def _build(
    network: Callable[[KerasTensor], Network],
    row: Variant,
    full_name: str,
    min_size: int,
    own_dropout: float,
    *,
    input_shape: tuple[int | None, int | None, int] | None = None,
    input_tensor: KerasTensor | None = None,
    include_top: bool = True,
    classes: int | None = None,
    classifier_activation: str | None = "softmax",
    pooling: str | None = None,
    features_only: bool = False,
    dropout: float | None = None,
    name: str | None = None,
) -> keras.Model:
    check_head(classes, classifier_activation, dropout)
    if pooling is not None and pooling not in POOLINGS:
        raise InvalidArgumentError(f"`pooling` must be one of {(None, *POOLINGS)}. Received: {pooling!r}.")
    top_only = {
        "classes": classes is not None,
        "classifier_activation": classifier_activation not in ("softmax", None),
        "dropout": bool(dropout),
    }
    has_top = include_top and not features_only
    ignored = [name for name, given in top_only.items() if given and not has_top]
    if ignored:
        raise InvalidArgumentError(
            f"`{ignored[0]}` is for models with a top. "
            f"Received: {', '.join(ignored)}, with include_top={include_top}, features_only={features_only}."
        )
    if pooling is not None and (include_top or features_only):
        raise InvalidArgumentError(
            "`pooling` is for models without a top: pass include_top=False. "
            f"Received: pooling={pooling!r}, include_top={include_top}, features_only={features_only}."
        )
    shape = (row.input_size, row.input_size, row.channels) if input_shape is None else input_shape
    images = image_input(shape, input_tensor, min_size=min_size)
    features, x, top, needs_top = network(images)
    if needs_top and (features_only or not include_top):
        raise InvalidArgumentError(
            f"`{needs_top}` needs a model with its top. "
            f"Received: {needs_top}=True, include_top={include_top}, features_only={features_only}."
        )
    if features_only:
        x = features
    elif include_top:
        dropout = own_dropout if dropout is None else dropout
        x = top(x, Head(row.classes if classes is None else classes, classifier_activation, dropout))
    elif pooling is not None:
        x = POOLINGS[pooling](name="pool")(x)
    # A given input tensor may have been computed from the model's input. As a list, Keras would warn about every call
    # with a bare tensor.
    (source,) = keras.utils.get_source_inputs(images)
    return keras.Model(source, x, name=name or full_name)


def _documentation(network: Callable[..., Network], variants: Mapping[str, Variant], prefix: str, min_size: int) -> str:
    """Completes a family's docstring: the variant first, then its own arguments, then the common ones."""
    summary, _, own = inspect.cleandoc(network.__doc__ or "").partition("\n\nArgs:\n")
    names = ", ".join(f'"{name.removeprefix(prefix)}"' for name in variants)
    variant = f"Name of the variant, short or full: {names}. It sets the arguments whose default is None."
    common = [(n, text.format(min_size=min_size)) for n, text in ARGUMENTS.items() if f"\n    {n}: " not in f"\n{own}"]
    return "\n".join(
        [f"{summary}\n\nArgs:", *argument_lines([("variant", variant)]), own, *argument_lines(common), _ENDING.rstrip()]
    )


def argument_lines(texts: Iterable[tuple[str, str]]) -> list[str]:
    """Formats pairs (argument, documentation) as lines of a docstring's `Args` section."""
    return [
        textwrap.fill(f"{name}: {text}", 116, initial_indent="    ", subsequent_indent="        ")
        for name, text in texts
    ]
