"""The import graph of both packages, read from the source, including imports inside functions.

import-linter checks the contracts in pyproject.toml. These tests also find cycles inside a package and print the lines
that cause them.

Rules of the graph:

- `import a.b` is an edge to the module `a.b`, and to the `__init__` of each package on the way there that doesn't
  contain the importing module: Python runs those too.
- `from a import b` is an edge to `a.b` if that is a module, otherwise to `a` itself, which is `a/__init__.py` for a
  package.
- `importlib.import_module("a.b")` is an edge like `import a.b`, and a package that loops over
  `pkgutil.iter_modules(__path__)` imports all its modules.
- Imports under `if TYPE_CHECKING:` don't count as edges, because they never run: two classes may name each other in
  annotations. They do count as uses of a private module, because a reader has to know that module all the same.
"""

import ast
import itertools
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"keraslight": ROOT / "keraslight", "keraslight_serving": ROOT / "serving" / "keraslight_serving"}

KERAS_PRIVATE = {
    "_flatten_layers",
    "_functional",
    "_inbound_nodes",
    "_keras_history",
    "_layers",
    "_nodes",
    "_nodes_by_depth",
    "_operations",
    "_operations_by_depth",
    "_outbound_nodes",
    "_parent_layers",
}
# File -> private attribute -> reason. Only for tf_keras, whose layers tensorflow-model-optimization rewrites.
ALLOWED_PRIVATE: dict[str, dict[str, str]] = {}

# What a layer kind is called outside its own class: its row in graph/kinds.py, and at most three more files.
SCATTERED = ("GRN", "LayerScale", "ChannelSlice")

# Attributes of a layer that conversion once replaced while it traced a model.
PATCHED = ("call", "activation")


class Import(NamedTuple):
    """One import statement's target, as written."""

    module: str
    line: int
    type_checking: bool


class Source(NamedTuple):
    """A module of one of the packages."""

    file: Path
    is_package: bool
    tree: ast.Module


def sources(packages: Mapping[str, Path] = PACKAGES) -> dict[str, Source]:
    """Module name -> source; generated code is left out."""
    found = {}
    for package, folder in packages.items():
        for file in sorted(folder.rglob("*.py")):
            if file.name.endswith(("_pb2.py", "_pb2_grpc.py")):
                continue
            parts = [package, *file.relative_to(folder).with_suffix("").parts]
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            found[name] = Source(file, is_package, ast.parse(file.read_text(encoding="utf-8")))
    return found


@pytest.fixture(scope="module")
def product() -> dict[str, Source]:
    return sources()


def place(source: Source, line: int) -> str:
    file = source.file.relative_to(ROOT) if source.file.is_relative_to(ROOT) else source.file
    return f"{file}:{line}"


def imports(name: str, source: Source) -> Iterator[Import]:
    """Every `import` and `from ... import` of a module, relative ones resolved: `from a import b` gives `a.b`."""
    package = name if source.is_package else name.rpartition(".")[0]

    def walk(node: ast.AST, type_checking: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, type_checking)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1])
                base = f"{above}.{base}" if base else above
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", node.lineno, type_checking)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                yield from walk(child, True)
            for child in node.orelse:
                yield from walk(child, type_checking)
        else:
            called = isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module")
            if called and isinstance(node.args[0], ast.Constant):
                yield Import(node.args[0].value, node.lineno, type_checking)
            for child in ast.iter_child_nodes(node):
                yield from walk(child, type_checking)

    yield from walk(source.tree, False)


def edges(modules: Mapping[str, Source]) -> dict[str, dict[str, int]]:
    """Module -> module that it imports -> line."""
    graph: dict[str, dict[str, int]] = {name: {} for name in modules}
    for name, source in modules.items():
        found = list(imports(name, source))
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and ast.unparse(node) == "pkgutil.iter_modules(__path__)":
                found += [Import(other, node.lineno, False) for other in modules if other.rpartition(".")[0] == name]
        for target, line, type_checking in found:
            if type_checking:
                continue
            while target and target not in modules:
                target = target.rpartition(".")[0]
            named = (
                target  # itself an edge, also from a submodule; the packages above it are only where Python runs them
            )
            while target:
                inside = name == target or name.startswith(f"{target}.")
                if target in modules and target != name and (target == named or not inside):
                    graph[name].setdefault(target, line)
                target = target.rpartition(".")[0]
    return graph


def components(graph: Mapping[str, Mapping[str, int]]) -> list[list[str]]:
    """The strongly connected components of more than one module (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in graph[node]:
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            at = stack.index(node)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for node in graph:
        if node not in index:
            visit(node)
    return found


def shortest_cycle(graph: Mapping[str, Mapping[str, int]], component: list[str]) -> list[str]:
    """The shortest chain of imports that returns to its start, within a component."""
    best: list[str] = []
    for start in component:
        paths, waiting = {start: [start]}, deque([start])
        while waiting:
            node = waiting.popleft()
            if start in graph[node]:
                chain = [*paths[node], start]
                best = chain if not best or len(chain) < len(best) else best
                break
            for target in graph[node]:
                if target in component and target not in paths:
                    paths[target] = [*paths[node], target]
                    waiting.append(target)
    return best


def cycles(modules: Mapping[str, Source]) -> list[str]:
    """One readable chain for each group of modules that import each other."""
    graph = edges(modules)
    found = []
    for component in components(graph):
        chain = shortest_cycle(graph, component)
        steps = [f"    {a} -> {b}  ({place(modules[a], graph[a][b])})" for a, b in itertools.pairwise(chain)]
        found.append("\n".join([f"{len(component)} modules import each other: {', '.join(component)}", *steps]))
    return found


def owner_of_private(target: str) -> str | None:
    """`a.b._c.d` -> `a.b`, whose modules alone may import it; None if nothing in the path is private."""
    parts = target.split(".")
    for depth, part in enumerate(parts):
        if part.startswith("_") and not part.startswith("__"):
            return ".".join(parts[:depth])
    return None


def foreign_private(modules: Mapping[str, Source], owners: Mapping[str, Source]) -> list[str]:
    """Imports of `pkg._name`, module or name, from outside `pkg`."""
    found = []
    for name, source in modules.items():
        for target, line, _ in imports(name, source):
            if target.partition(".")[0] not in PACKAGES:
                continue
            owner = owner_of_private(target)
            if owner is None:
                continue
            if owner in owners and not owners[owner].is_package:
                owner = owner.rpartition(".")[0]  # a private name of a module belongs to the module's package
            if not (name == owner or name.startswith(f"{owner}.")):
                found.append(f"{place(source, line)}: {name} imports {target}, which is private to {owner}")
    return found


def named_attributes(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Attribute names that code reads or writes, including constant names given to getattr, hasattr and setattr."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr, node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and "attr" in node.func.id:
            for argument in node.args[1:2]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield argument.value, node.lineno


def mentions(tree: ast.AST, name: str) -> bool:
    return any(
        (isinstance(node, ast.Name) and node.id == name)
        or (isinstance(node, ast.Attribute) and node.attr == name)
        or (isinstance(node, ast.alias) and node.name.rpartition(".")[2] == name)
        for node in ast.walk(tree)
    )


def check(found: list[str], title: str = "") -> None:
    """Fails with one finding per line."""
    if found:
        pytest.fail("\n".join([title, *found]).strip(), pytrace=False)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_import_each_other(package):
    found = cycles(sources({package: PACKAGES[package]}))
    check(found)


def test_no_package_imports_another_packages_private_module(product):
    found = foreign_private(product, product)
    check(found)


def test_benchmarks_and_docs_use_public_modules_only(product):
    scripts = sources({"benchmarks": ROOT / "benchmarks", "docs": ROOT / "docs"})
    found = foreign_private(scripts, product)
    check(found)


def test_only_graph_uses_private_attributes_of_keras(product):
    found = []
    for name, source in product.items():
        if name.startswith("keraslight.graph"):
            continue
        allowed = ALLOWED_PRIVATE.get(source.file.relative_to(ROOT).as_posix(), {})
        found += [
            f"{place(source, line)}: {attribute}"
            for attribute, line in named_attributes(source.tree)
            if attribute in KERAS_PRIVATE and attribute not in allowed
        ]
    check(found)


@pytest.mark.parametrize("kind", SCATTERED)
def test_a_layer_kind_is_described_in_one_place(product, kind):
    found = [
        source.file.relative_to(ROOT).as_posix()
        for name, source in product.items()
        if not name.startswith("keraslight.layers") and name != "keraslight.graph.kinds"
        if mentions(source.tree, kind)
    ]
    if len(found) > 3:
        check(found, f"{kind} is named in {len(found)} files:")


def test_conversion_never_patches_a_users_layers(product):
    found = []
    for name, source in product.items():
        if not name.startswith(("keraslight.export", "keraslight.rewrite")):
            continue
        for node in ast.walk(source.tree):
            called = isinstance(node, ast.Call) and ast.unparse(node.func).endswith("setattr")
            stored = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr in PATCHED
            if called or (stored and ast.unparse(node.value) != "self"):
                found.append(f"{place(source, node.lineno)}: {ast.unparse(node)}")
    check(found)


# The tests of this file's own graph reader, on packages written for them.


def write(folder: Path, files: Mapping[str, str]) -> dict[str, Source]:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return sources({"p": folder})


def test_a_cycle_by_an_import_inside_a_function_is_found(tmp_path):
    modules = write(tmp_path, {"__init__.py": "", "a.py": "from p import b", "b.py": "def f():\n    import p.c"})
    assert cycles(modules) == []
    modules = write(tmp_path, {"c.py": "from .a import g"})
    [found] = cycles(modules)
    assert found.splitlines()[0] == "3 modules import each other: p.a, p.b, p.c"
    assert f"    p.b -> p.c  ({tmp_path / 'b.py'}:2)" in found


def test_a_cycle_by_a_package_on_the_way_is_found(tmp_path):
    files = {"__init__.py": "", "x/__init__.py": "from p.y import f", "x/deep.py": "", "y.py": "from p.x import deep"}
    [found] = cycles(write(tmp_path, files))
    assert found.splitlines()[0] == "2 modules import each other: p.x, p.y"


def test_a_submodule_may_be_imported_by_its_package_but_not_import_it_back(tmp_path):
    files = {"__init__.py": "from p.a import f", "a.py": "from p.b import g\nf = g", "b.py": "g = 1"}
    assert cycles(write(tmp_path, files)) == []
    [found] = cycles(write(tmp_path, {"b.py": "from p import f"}))
    assert found.splitlines()[0] == "3 modules import each other: p, p.a, p.b"


def test_a_cycle_by_a_package_that_imports_all_its_modules_is_found(tmp_path):
    files = {"__init__.py": "import pkgutil\nfor m in pkgutil.iter_modules(__path__): ...", "a.py": "from p import b"}
    assert cycles(write(tmp_path, {**files, "b.py": ""})) == []
    [found] = cycles(write(tmp_path, {"b.py": "from p import NAME"}))
    assert found.splitlines()[0] == "3 modules import each other: p, p.a, p.b"


def test_imports_for_annotations_make_no_cycle(tmp_path):
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.a import A"
    assert cycles(write(tmp_path, {"__init__.py": "", "a.py": "import p.b", "b.py": text})) == []


@pytest.mark.parametrize(
    ("target", "owner"),
    [("a.b._c.d", "a.b"), ("a._b._c", "a"), ("a.b.c", None), ("a.__main__", None), ("a.b._name", "a.b")],
)
def test_owner_of_a_private_module(target, owner):
    assert owner_of_private(target) == owner
