"""Families of architectures and their variants by name. Knows no architecture, loads no Keras."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from keraslight.errors import InvalidArgumentError, UnknownModelError


class Variant(NamedTuple):
    """One row of a family's table. A test builds the model and recounts `parameters` and `macs`.

    Args:
        arguments: Keywords that make the builder build this variant.
        input_size: Side of the square input that the figures are for, in pixels.
        parameters: With these channels and classes, without batch-norm statistics.
        macs: Multiply-adds of one image of that size.
        checkpoint: Id of the weights that the defaults are made for, a key of `keraslight.weights.CHECKPOINTS`; None
            where none are published.
        channels: Of the input.
        classes: Of the classifier.
    """

    arguments: Mapping[str, Any]
    input_size: int
    parameters: int
    macs: int
    checkpoint: str | None
    channels: int = 3
    classes: int = 1000


@dataclasses.dataclass(frozen=True)
class Family:
    """A builder with its table."""

    name: str
    prefix: str
    builder: Callable[..., Any]
    variants: Mapping[str, Variant]

    @property
    def paper(self) -> str:
        """The title line of the architecture's module."""
        return inspect.getmodule(self.builder).__doc__.strip().splitlines()[0]

    def full_name(self, variant: str) -> str:
        """`"conv_small"` or `"mobilenet_v4_conv_small"` -> the latter.

        Raises:
            UnknownModelError: the family has no such variant.
        """
        for name in (variant, self.prefix + variant):
            if name in self.variants:
                return name
        choices = ", ".join(repr(name.removeprefix(self.prefix)) for name in self.variants)
        raise UnknownModelError(f"`variant` of {self.name} must be one of {choices}. Received: {variant!r}.")


FAMILIES: dict[str, Family] = {}


def register(variants: Mapping[str, Variant], *, prefix: str) -> Callable[[Callable], Callable]:
    """Registers a builder under every name of its table.

    The decorated builder takes the keywords of a row. What users call takes a variant's name first: its row gives the
    keywords, the name and the input shape, and explicit keywords override them.

    Args:
        variants: Full name -> row; the first is the default.
        prefix: What the short form of a name leaves out, as in `MobileNetV4("conv_small")`.
    """

    def decorate(builder: Callable) -> Callable:
        default = next(iter(variants)).removeprefix(prefix)

        @functools.wraps(builder)
        def build(variant: str = default, **arguments: Any) -> Any:
            name = family.full_name(variant)
            row = variants[name]
            if arguments.get("input_shape") is None:
                arguments["input_shape"] = (row.input_size, row.input_size, row.channels)
            if arguments.get("classes") is None:
                arguments["classes"] = row.classes
            arguments["name"] = arguments.get("name") or name
            return builder(**{**row.arguments, **arguments})

        signature = inspect.signature(builder)
        first = inspect.Parameter("variant", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=str)
        optional = [  # the row gives what the builder needs
            p.replace(default=None) if p.default is p.empty else p for p in signature.parameters.values()
        ]
        build.__signature__ = signature.replace(parameters=[first, *optional])
        family = Family(builder.__name__, prefix, build, variants)
        clash = [name for other in FAMILIES.values() for name in other.variants if name in variants]
        if clash:
            raise InvalidArgumentError(f"Model names must be unique. Received again: {', '.join(clash)}.")
        FAMILIES[family.name] = family
        return build

    return decorate


def find(name: str, aliases: Iterable[str] = ()) -> tuple[Family, str]:
    """The family and the full name of a model.

    Args:
        name: A model's full name, such as `"mobilenet_v4_conv_small"`.
        aliases: Further names, for the hint of the error only.

    Raises:
        UnknownModelError: no model is called so; the text lists the nearest names.
    """
    names = {variant: family for family in FAMILIES.values() for variant in family.variants}
    if name in names:
        return names[name], name
    nearest = difflib.get_close_matches(str(name).lower(), [*names, *aliases], n=3, cutoff=0.4)
    hint = f"The nearest names: {', '.join(nearest)}." if nearest else "`keraslight.list_models()` lists all."
    raise UnknownModelError(f"No model has this name. {hint} Received: {name!r}.")
