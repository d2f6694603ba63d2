"""The public names and signatures of both packages, their commands and flags, compared with a recorded list.

Annotations aren't recorded: only what a call may pass. After an intended change, write the list again:
`python tests/test_public_api.py`, and say in CHANGELOG.md what changed.
"""

import dataclasses
import enum
import importlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

RECORDED = Path(__file__).parent / "public_api.txt"
MODULES = (
    "keraslight",
    "keraslight.analysis",
    "keraslight.analysis.plots",
    "keraslight.architectures",
    "keraslight.blocks",
    "keraslight.catalogue",
    "keraslight.compress",
    "keraslight.detection",
    "keraslight.errors",
    "keraslight.export",
    "keraslight.export.litert",
    "keraslight.export.onnx",
    "keraslight.labels",
    "keraslight.layers",
    "keraslight.preprocessing",
    "keraslight.registry",
    "keraslight.search",
    "keraslight.segmentation",
    "keraslight.training",
    "keraslight.weights",
    "keraslight.zoo",
    "keraslight_serving.client",
    "keraslight_serving.client.errors",
    "keraslight_serving.client.load_test",
    "keraslight_serving.client.telemetry",
    "keraslight_serving.client.testing",
    "keraslight_serving.extras",
    "keraslight_serving.pytest_plugin",
    "keraslight_serving.server",
    "keraslight_serving.testing",
)


def test_public_names_signatures_commands_and_flags_are_as_recorded():
    assert "\n".join(lines()) + "\n" == RECORDED.read_text()


def lines() -> Iterator[str]:
    for name in MODULES:
        module = importlib.import_module(name)
        for public in sorted(public_names(module)):
            yield from described(f"{name}.{public}", getattr(module, public))
    yield from sorted(commands())
    yield from sorted(flags())


def public_names(module: ModuleType) -> list[str]:
    """What `__all__` lists, or what the module itself defines without an underscore."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    own = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    return [name for name, value in own.items() if getattr(value, "__module__", None) == module.__name__]


def described(path: str, value: Any) -> Iterator[str]:
    if isinstance(value, ModuleType):
        yield f"{path}: module"
    elif inspect.isclass(value):
        bases = ", ".join(base.__name__ for base in value.__bases__)
        yield f"{path}({bases}): class{'' if issubclass(value, BaseException) else parameters(value)}"
        if dataclasses.is_dataclass(value):
            yield from (f"{path}.{field.name}: field" for field in dataclasses.fields(value))
        for name, member in sorted(vars(value).items()):
            if name.startswith("_") and name not in ("__call__", "__enter__", "__iter__", "__len__", "__getitem__"):
                continue
            if isinstance(member, FunctionType):
                yield f"{path}.{name}{parameters(member)}"
            elif isinstance(member, classmethod | staticmethod):
                yield f"{path}.{name}{parameters(member.__func__)}: {type(member).__name__}"
            elif isinstance(member, property):
                yield f"{path}.{name}: property"
    elif callable(value):
        yield f"{path}{parameters(value)}"
    else:
        yield f"{path}: {type(value).__name__}"


def parameters(function: Any) -> str:
    """A signature without annotations."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return "(...)"
    plain = [
        parameter.replace(annotation=inspect.Parameter.empty, default=_Default.of(parameter.default))
        for parameter in signature.parameters.values()
    ]
    return str(signature.replace(parameters=plain, return_annotation=inspect.Signature.empty))


@dataclasses.dataclass(frozen=True)
class _Default:
    """A default whose text has no address in memory and no private module."""

    text: str

    def __repr__(self) -> str:
        return self.text

    @classmethod
    def of(cls, value: Any) -> Any:
        if value is inspect.Parameter.empty:
            return value
        if inspect.isclass(value) or inspect.isroutine(value):
            return cls(value.__name__)
        text = repr(value)
        return cls(type(value).__name__ if " at 0x" in text else text)


def commands() -> Iterator[str]:
    """Every option and argument of the `keraslight` command."""
    import typer

    from keraslight.cli.app import app

    def walk(name: str, command: Any) -> Iterator[str]:
        for parameter in command.params:
            annotation = parameter.type_descriptor.annotation if hasattr(parameter, "type_descriptor") else bool
            kind = "|".join(c.value for c in annotation) if _is_enum(annotation) else _type_name(annotation)
            yield (
                f"$ {name} {'/'.join([*parameter.opts, *parameter.secondary_opts])}: {kind}"
                f"{' multiple' if getattr(parameter, 'multiple', False) else ''}"
                f"{' required' if parameter.required else ''} default={parameter.default!r}"
            )
        for sub, inner in getattr(command, "commands", {}).items():
            yield from walk(f"{name} {sub}", inner)

    return walk("keraslight", typer.main.get_command(app))


def _is_enum(annotation: Any) -> bool:
    return inspect.isclass(annotation) and issubclass(annotation, enum.Enum)


def _type_name(annotation: Any) -> str:
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", annotation.__name__ if inspect.isclass(annotation) else str(annotation))


def flags() -> Iterator[str]:
    """Every flag of `python -m keraslight_serving.server`."""
    run = [sys.executable, "-m", "keraslight_serving.server", "--help"]
    environment = {**os.environ, "COLUMNS": "1000"}  # a flag, its value and its help on one line, or on two
    text = subprocess.run(run, capture_output=True, text=True, check=True, env=environment).stdout
    for name, value, rest in re.findall(r"^  --(\w+) (\S+)\s+(.*)$", text, re.MULTILINE):
        default = re.search(r"\(default: ([^()]*)\)$", rest)
        yield f"$ server --{name}={value}{f' default={default[1]}' if default else ''}"


if __name__ == "__main__":
    RECORDED.write_text("\n".join(lines()) + "\n")
