"""The examples in the clients' docstrings are run."""

import ast
import doctest
import inspect
import types

import numpy as np
import pytest
from keraslight_serving.client import AsyncClassifierClient, ClassifierClient
from PIL import Image

CLIENTS = (ClassifierClient, AsyncClassifierClient)
METHODS = [(kind, name) for kind in CLIENTS for name in vars(kind) if not name.startswith("_")]


@pytest.mark.parametrize(("kind", "name"), METHODS, ids=[f"{kind.__name__}.{name}" for kind, name in METHODS])
def test_every_public_method_has_an_example_that_runs(make, kind, name, tmp_path, monkeypatch):
    if make.fake.__name__.startswith("Async") != (kind is AsyncClassifierClient):
        return  # the other client's turn
    Image.new("L", (8, 8)).save(tmp_path / "seven.png")
    monkeypatch.chdir(tmp_path)
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(getattr(kind, name)))
    assert examples
    channel = make.fake(
        [("seven", 0.9), ("one", 0.1)],
        inputs={"images": np.zeros((1, 8, 8, 1), np.float32)},
        outputs={"probabilities": np.float32([[0.9, 0.1]])},
    )
    client = make(channel=channel)
    scope = {"client": getattr(client, "_client", client), "np": np}
    for example in examples:
        run = _in_loop if kind is AsyncClassifierClient else _plain
        found = run(example.source, scope, make)
        printed = "" if found is None else f"{found!r}\n"
        assert printed == example.want, example.source


def _compile(source):
    mode = "eval" if isinstance(ast.parse(source).body[0], ast.Expr) else "exec"
    # A docstring's example may await, as in a notebook.
    return compile(source, "<example>", mode, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def _plain(source, scope, make):
    return eval(_compile(source), scope)


def _in_loop(source, scope, make):
    function = types.FunctionType(_compile(source), scope)
    if not inspect.iscoroutinefunction(function):
        return function()

    async def call():
        return await function()

    return make._runner.run(call())
