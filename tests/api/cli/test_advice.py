"""Commands that errors and advice tell people to type are commands, with options that they take."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.cli.invoking import check_names

ROOT = Path(__file__).resolve().parents[3]


def _texts(path: Path) -> Iterator[str]:
    """Texts of a module as people see them, with `X` for what is filled in."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


ADVISED = sorted(
    {
        command
        for package in ("registry", "workers", "api")
        for path in (ROOT / package).rglob("*.py")
        for text in _texts(path)
        for command in re.findall(r"(?:`|&& )memgen ([^`&]+)", text)
        if not command.startswith("--")
    }
)


@pytest.mark.parametrize("command", ADVISED)
def test_what_is_advised_can_be_typed(command: str) -> None:
    check_names(command.split())
