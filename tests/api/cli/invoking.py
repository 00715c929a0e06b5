"""Calling `memgen` in this process through its entry point, as a shell would see it, or its parsers alone."""

import contextlib
import io
import json
import sys
from dataclasses import dataclass
from typing import Any
from unittest import mock

from typer.main import get_command

from api.cli.main import app, run

LISTING = ("jobs", "versions")
"""Groups that list without a subcommand."""


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Stdout as the one JSON document that `--json` promises."""
        return json.loads(self.out)


def memgen(*arguments: str, stdin: str = "") -> Done:
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "stdin", io.StringIO(stdin)),
    ):
        try:
            run(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


def succeed(*arguments: str, stdin: str = "") -> Done:
    done = memgen(*arguments, stdin=stdin)
    assert done.code == 0, done.err
    return done


def fail(*arguments: str) -> str:
    """The one line that a command leaves on stderr when it can't do what was asked. Stdout stays empty, or has the same
    as the one document of `--json`."""
    done = memgen(*arguments)
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    if "--json" in arguments:
        assert {"code", "detail", "advice"} <= set(done.document["error"])
    else:
        assert done.out == ""
    return done.err


def parse(words: list[str]) -> list[str]:
    """Let the parsers read the words after `memgen`, without running what they mean. Returns the command's path."""
    return _parse(get_command(app), "memgen", words)


def _parse(command: Any, name: str, words: list[str], parent: Any = None) -> list[str]:
    with command.make_context(name, list(words), parent=parent) as context:
        if not hasattr(command, "commands"):
            return [name]
        left = [*context._protected_args, *context.args]
        if not left:  # a group that does something by itself
            return [name]
        found, inner, rest = command.resolve_command(context, left)
        return [name, *_parse(inner, found, rest, context)]


def check_names(words: list[str]) -> None:
    """Assert that words after `memgen`, be they a whole command or its beginning, name a command and its options."""
    found: Any = get_command(app)
    while words and words[0] in getattr(found, "commands", {}):
        found, words = found.commands[words[0]], words[1:]
    assert found.name != "memgen"
    lists = found.name in LISTING and sum(not word.startswith("--") for word in words) <= 1
    assert lists or not getattr(found, "commands", {}) or not words or words[0].isupper()
    taken = {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= taken | {"--help"}
