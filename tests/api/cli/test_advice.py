"""Commands that errors and advice tell people to type are commands, with options that they take."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from api.cli.main import app

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

LISTING = ("jobs", "versions")
"""Groups that list without a subcommand."""


@pytest.mark.parametrize("command", ADVISED)
def test_what_is_advised_can_be_typed(command: str) -> None:
    words = command.replace("\n", " ").split()
    found: Any = get_command(app)
    while words and words[0] in getattr(found, "commands", {}):
        found = found.commands[words.pop(0)]
    assert found.name != "memgen"
    lists = found.name in LISTING and sum(not word.startswith("--") for word in words) <= 1
    assert lists or not getattr(found, "commands", {}) or not words or words[0].isupper()
    taken = {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= taken | {"--help"}
