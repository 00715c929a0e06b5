"""Calling `memgen` in this process through its entry point, as a shell would see it."""

import contextlib
import io
import json
import sys
from dataclasses import dataclass
from typing import Any
from unittest import mock

from api.cli.main import run


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
    """The one line that a command leaves on stderr when it can't do what was asked; stdout stays empty."""
    done = memgen(*arguments)
    assert (done.code, done.out) == (1, "")
    assert len(done.err.splitlines()) == 1
    return done.err
