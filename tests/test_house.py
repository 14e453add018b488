"""The measures that keep the package easy to find one's way in, taken from its source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import numpy as np

FOLDER = Path(__file__).resolve().parents[1] / "src" / "ltprompt"
MODULES = sorted(FOLDER.rglob("*.py"))
TREES = {path.relative_to(FOLDER).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST) -> list[Function]:
    return [node for node in ast.walk(tree) if isinstance(node, Function)]


def lines(node: ast.stmt) -> int:
    """Lines from `def` or `class` to the last of the body, decorators apart."""
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def public(body: list[ast.stmt], within: str = "") -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Yield what a module or a class offers by name: neither `_private` nor inside a function, nor a magic method."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield within + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{within}{node.name}.")


def undocumented(tree: ast.Module) -> list[str]:
    """Return what is public and has no docstring, the module itself as ``module``."""
    found = [name for name, node in public(tree.body) if not ast.get_docstring(node)]
    return found if ast.get_docstring(tree) else ["module", *found]


def untyped(tree: ast.Module) -> list[str]:
    """Return the public functions that leave out the type of an argument or of what they return."""
    named = [(name, node) for name, node in public(tree.body) if not isinstance(node, ast.ClassDef)]
    return [name for name, node in named if node.returns is None or not all(_typed(node))]


def _typed(node: Function) -> Iterator[bool]:
    given = node.args
    extra = [argument for argument in (given.vararg, given.kwarg) if argument]
    for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs, *extra):
        yield argument.annotation is not None or argument.arg in ("self", "cls")


def test_a_folder_holds_a_dozen_modules_at_most() -> None:
    folders = {path.parent for path in MODULES}
    counts = {
        folder.relative_to(FOLDER).as_posix(): len([p for p in folder.glob("*.py") if not p.name.startswith("__")])
        for folder in folders
    }
    assert {name: count for name, count in counts.items() if count > 12} == {}


def test_the_top_has_eighteen_names_at_most() -> None:
    names = [p.name for p in FOLDER.iterdir() if p.suffix in ("", ".py") and not p.name.startswith("__")]
    assert len(names) <= 18, sorted(names)
    assert {"classifier.py", "backbone", "errors.py"} <= set(names)


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = grimp.build_graph("ltprompt", cache_dir=None)
    below = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    assert len(list(TopologicalSorter(below).static_order())) == len(MODULES)  # raises CycleError with the circle


def test_what_is_public_is_documented_and_typed() -> None:
    assert {name: found for name, tree in TREES.items() if (found := undocumented(tree))} == {}
    assert {name: found for name, tree in TREES.items() if (found := untyped(tree))} == {}


def test_functions_fit_on_a_screen() -> None:
    lengths = [lines(node) for tree in TREES.values() for node in functions(tree)]
    assert len(lengths) > 500
    assert np.percentile(lengths, 95) <= 30


def test_no_class_is_large() -> None:
    sizes = {
        f"{name}: {node.name}": lines(node)
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    assert {name: size for name, size in sizes.items() if size > 200} == {}


def test_the_measures_find_what_they_look_for() -> None:
    tree = ast.parse(
        '"""Doc."""\n'
        "def f(a, *, b: int) -> int:\n    return a\n"
        "def _g(a): ...\n"
        "class C:\n"
        '    """Doc."""\n'
        "    def m(self, x: int, *rest): ...\n"
        '    def n(self, x: int) -> None:\n        """Doc."""\n'
        "    def __len__(self): ...\n"
    )
    assert undocumented(tree) == ["f", "C.m"]
    assert untyped(tree) == ["f", "C.m"]
    assert undocumented(ast.parse("x = 1")) == ["module"]
    assert [lines(node) for node in functions(tree)] == [2, 1, 1, 2, 1]
