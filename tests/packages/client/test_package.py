"""The client's package by itself: house rules, what it needs, what it shows to the world."""

import ast
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel

import memgen_client
from tests.packages.client.every_call import methods
from tests.test_style import ARGUMENTS, FRAGMENTS, FUNCTION_LINES, MODULE_LINES, _arguments, _attributes, _functions

FOLDER = Path(__file__).resolve().parents[3] / "packages" / "memgen-client"
SOURCES = FOLDER / "src" / "memgen_client"
TREES = {path.relative_to(SOURCES).as_posix(): ast.parse(path.read_text()) for path in sorted(SOURCES.rglob("*.py"))}


def test_sizes_and_arguments() -> None:
    lines = {name: len((SOURCES / name).read_text().split("\n")) for name in TREES}
    assert {name: count for name, count in lines.items() if count > MODULE_LINES} == {}
    found = dict(_functions(TREES))
    long = {name for name, node in found.items() if (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES}
    assert long == set()
    assert {name for name, node in found.items() if _arguments(node) > ARGUMENTS} == set()


def test_docstrings() -> None:
    said = {name: ast.get_docstring(tree) or "" for name, tree in TREES.items()}
    assert [name for name, text in said.items() if not text or text.startswith(FRAGMENTS)] == []


def test_it_reads_no_environment_and_cuts_no_text_at_what_python_calls_a_line() -> None:
    banned = ("os.environ", "os.getenv", "splitlines", "readlines", "iter_lines")
    assert [(name, a) for name, tree in TREES.items() for a in _attributes(tree) if a.endswith(banned)] == []


def test_it_imports_what_it_declares_and_nothing_else() -> None:
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]
    declared = {each.partition(">")[0].partition("=")[0] for each in project["dependencies"]}
    imported = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else alias.name
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    others = {name.partition(".")[0] for name in imported} - set(sys.stdlib_module_names) - {"memgen_client"}
    assert others == declared == {"anyio", "httpx", "pydantic"}


def test_importing_it_loads_nothing_of_the_service() -> None:
    heavy = "{'torch', 'transformers', 'fastapi', 'sqlalchemy', 'api', 'registry', 'memgen'}"
    code = f"import sys, memgen_client; sys.exit(' '.join({heavy} & set(sys.modules)) or None)"
    environment = os.environ | {"PYTHONPATH": str(SOURCES.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd="/", env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_no_result_is_any() -> None:
    seen: set[object] = set()

    def anys(kind: object, place: str) -> Iterator[str]:
        if kind is Any:
            yield place
        if kind in seen:
            return
        seen.add(kind)
        for inner in get_args(kind):
            yield from anys(inner, f"{place}: {kind}")
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            for name, field in kind.model_fields.items():
                yield from anys(field.annotation, f"{kind.__name__}.{name}")

    found = [each for name, _, method in methods() for each in anys(get_type_hints(method.describe)["return"], name)]
    assert found == []
    assert len(seen) > 200


def test_it_is_typed_and_names_what_it_gives() -> None:
    assert (SOURCES / "py.typed").is_file()
    assert all(hasattr(memgen_client, name) for name in memgen_client.__all__)
