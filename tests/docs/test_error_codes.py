"""The page of error codes against the code: every code that a client can meet has a row, and no row is stale."""

import ast
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import api.app
import api.inference
import memgen.errors
import registry.errors
from api.http.openai_errors import _CODES as OPENAI_CODES
from api.http.openai_errors import openai_invalid_code, openai_status
from api.http.problems import code_of, status_of

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
CARRIERS = {"InvalidJson", "InvalidTrajectory"}
"""Errors whose first argument is their code."""
HTTP_STATUSES = (400, 404, 405, 413, 415)


def _rows(heading: str) -> dict[str, tuple[str, ...]]:
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    cells = (tuple(cell.strip() for cell in line.strip("| ").split(" | ")) for line in section.split("\n"))
    return {row[0].strip("`"): row[1:] for row in cells if row[0].startswith("`")}


CLASSES, VALUES, OPENAI = _rows("Errors of the service"), _rows("Faults of what was sent"), _rows("On OpenAI's paths")


def _kinds(root: type[Exception]) -> Iterator[type[Exception]]:
    for kind in root.__subclasses__():
        if kind.__module__.split(".")[0] in ("api", "registry", "memgen", "workers"):
            yield kind
            yield from _kinds(kind)


KINDS = [
    kind
    for root in (registry.errors.RegistryError, memgen.errors.MemgenError)
    for kind in _kinds(root)
    if not kind.__subclasses__() and kind.__name__ not in CARRIERS
]


def _literal_codes() -> Iterator[str]:
    """Texts in code position: of the carriers' calls, and of what imports warn of."""
    for package in ("registry", "api"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call) or not node.args:
                    continue
                name = getattr(node.func, "id", None)
                first = node.args[0]
                if name in CARRIERS | {"LineWarning"} and isinstance(first, ast.Constant):
                    yield str(first.value)
                elif name == "_refuse_text" and isinstance(node.args[3], ast.Constant):
                    yield str(node.args[3].value)


def test_every_error_has_its_row_and_status() -> None:
    made = {_made(kind): str(status_of(_instance(kind))) for kind in KINDS}
    made |= {f"http_{status}": str(status) for status in HTTP_STATUSES}
    made |= {"invalid_request": "422", "internal_error": "500"}
    assert {code: row[0] for code, row in CLASSES.items()} == made


def test_every_fault_of_a_value_has_its_row() -> None:
    codes = set(_literal_codes())
    assert len(codes) > 30, "the scan finds them"
    # The envelope's fields name their codes by their own names.
    codes |= {f"{name}_invalid" for name in ("trajectory_id", "session_id", "adapter_version")}
    assert set(VALUES) == codes


def test_every_code_of_openai_has_its_row() -> None:
    source = inspect.getsource(inspect.getmodule(openai_invalid_code))
    assert set(OPENAI_CODES.values()) <= set(OPENAI)
    for code in OPENAI:
        stem = re.sub(r"^(integer|decimal)_|_value$", "", code)
        assert stem in source, f"{code} is nothing that the service says"
    for ours, theirs in OPENAI_CODES.items():
        status = CLASSES[ours][0]
        assert OPENAI[theirs][0] == str(openai_status(int(status))), theirs


@pytest.mark.parametrize("rows", [CLASSES, VALUES, OPENAI])
def test_every_row_says_when_and_what_to_do(rows: dict[str, tuple[str, ...]]) -> None:
    assert all(len(row) >= 2 and all(row) for row in rows.values())


def test_all_modules_with_errors_are_loaded() -> None:
    assert api.app.create_app
    assert [module.name for module in pkgutil.iter_modules(api.inference.__path__)]


def _instance(kind: type[Exception]) -> Exception:
    return kind.__new__(kind)


def _made(kind: type[Exception]) -> str:
    return code_of(_instance(kind))
