"""The rules of the house: who may import what. Read from the source, so that no branch is missed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "lm_eval_steer"

# Rooms by name without the package; a folder's name stands for all in it.
STANDARD_LIBRARY_ONLY = {"errors", "files", "suggest", "paths"}
MAY_IMPORT_LM_EVAL = {
    "model",
    "row_scorer",
    "register",
    "text_task",
    "evaluation",
    "sample_log",
    "sweep.engine",
    "sweep.run",
    "cli",
}
LIGHT = {"sweep.ledger", "stats", "table", "gate", "report", "tune"} | {
    f"sweep.{name}" for name in ("records", "samples", "where", "status", "aside", "claims", "blocks", "cells")
}
HEAVY = {"torch", "lm_eval"}


@dataclass(frozen=True)
class Import:
    """One import statement: the module asked for, and whether loading the file runs it."""

    name: str
    at_load: bool
    line: int

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]


def module_name(path: Path, root: Path = PACKAGE) -> str:
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, module: str, is_package: bool = False) -> list[Import]:
    """Every import of a source text, those in functions and under TYPE_CHECKING too; relative ones resolved.

    ``from a import b`` counts as ``a`` and as ``a.b``, because ``b`` may be a module.
    """
    found: list[Import] = []
    for node, at_load in _statements(ast.parse(source), at_load=True):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, at_load, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: None if is_package else -1]
                above = parents[: len(parents) - (node.level - 1)]
                base = ".".join([*above, base] if base else above)
            found.append(Import(base, at_load, node.lineno))
            found += [Import(f"{base}.{alias.name}", at_load, node.lineno) for alias in node.names]
    return found


def _statements(node: ast.AST, at_load: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        yield child, at_load
        later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for part in child.body:
                yield part, False
                yield from _statements(part, False)
            for part in child.orelse:
                yield part, at_load
                yield from _statements(part, at_load)
        else:
            yield from _statements(child, at_load and not later)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
IMPORTS = {name: imports(path.read_text(), name, path.name == "__init__.py") for name, path in FILES.items()}
MODULES = sorted(FILES)


def lives_in(module: str, rooms: set[str]) -> bool:
    inside = module.removeprefix("lm_eval_steer").removeprefix(".")
    return any(inside == room or inside.startswith(f"{room}.") for room in rooms)


def loaded_with(module: str) -> dict[str, str]:
    """What loading a module loads: each module's name with the module that asks for it. Stops at other packages."""
    asked_by: dict[str, str] = {module: "you"}
    todo = [module]
    while todo:
        name = todo.pop()
        parents = [".".join(name.split(".")[:depth]) for depth in range(1, name.count(".") + 1)]
        for wanted in [*parents, *(entry.name for entry in IMPORTS.get(name, []) if entry.at_load)]:
            if wanted not in asked_by:
                asked_by[wanted] = name
                todo += [wanted] if wanted in FILES else []
    return asked_by


# ------------------------------------------------------------------------------------------------ the rules


@pytest.mark.parametrize("module", [name for name in MODULES if lives_in(name, STANDARD_LIBRARY_ONLY)])
def test_the_ground_floor_needs_the_standard_library_only(module: str) -> None:
    allowed = sys.stdlib_module_names | {"lm_eval_steer"}
    assert [entry for entry in IMPORTS[module] if entry.package not in allowed] == []
    ours = {entry.name for entry in IMPORTS[module] if entry.package == "lm_eval_steer" and entry.name in FILES}
    assert [name for name in ours - {"lm_eval_steer"} if not lives_in(name, STANDARD_LIBRARY_ONLY)] == []


@pytest.mark.parametrize("module", [name for name in MODULES if not lives_in(name, MAY_IMPORT_LM_EVAL)])
def test_lm_eval_stays_in_its_rooms(module: str) -> None:
    assert [entry for entry in IMPORTS[module] if entry.package == "lm_eval"] == []


@pytest.mark.parametrize("module", [name for name in MODULES if lives_in(name, LIGHT)])
def test_judging_needs_neither_torch_nor_lm_eval(module: str) -> None:
    assert [entry for entry in IMPORTS[module] if entry.package in HEAVY] == []
    assert {name: asker for name, asker in loaded_with(module).items() if name.partition(".")[0] in HEAVY} == {}


@pytest.mark.parametrize("module", [name for name in MODULES if lives_in(name, {"cli", "register"})])
def test_the_command_line_loads_heavy_modules_when_a_command_runs_only(module: str) -> None:
    heavy = HEAVY | {"rich", "transformers", "numpy", "datasets", "nnsight"}
    assert {name: asker for name, asker in loaded_with(module).items() if name.partition(".")[0] in heavy} == {}


def test_the_rooms_named_above_that_exist_are_found() -> None:
    for room in ("errors", "register", "cli"):
        assert [name for name in MODULES if lives_in(name, {room})], room
    assert any(entry.package == "lm_eval" for entry in IMPORTS["lm_eval_steer.register"])


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, lm_eval_steer; print(*{'torch', 'lm_eval', 'nnsight', 'numpy', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# ------------------------------------------------------------------------------------------------ the reader itself


def test_the_reader_sees_every_kind_of_import() -> None:
    source = """
import torch.nn as nn
from . import sibling
from ..above import thing
if TYPE_CHECKING:
    import numpy
else:
    import json
try:
    import a
except ImportError:
    def f():
        from b.c import d
class C:
    import e
    g = lambda: __import__
async def h():
    if x:
        import i
"""
    seen = {(entry.name, entry.at_load) for entry in imports(source, "p.q.r")}
    assert seen == {
        ("torch.nn", True),
        *{("p.q", True), ("p.q.sibling", True), ("p.above", True), ("p.above.thing", True)},
        *{("numpy", False), ("json", True), ("a", True), ("b.c", False), ("b.c.d", False), ("e", True), ("i", False)},
    }
    assert [entry.name for entry in imports("from . import x", "p.q", is_package=True)] == ["p.q", "p.q.x"]
