"""Runs a notebook from top to bottom, and keeps what its cells show.

    python docs/run_notebook.py docs/tour.ipynb                        # its output is kept in the notebook itself
    python docs/run_notebook.py docs/tour.ipynb --output run.ipynb --parameters '{"adapter": "bot"}'
    python docs/run_notebook.py docs/tour.ipynb --check                # fails if its output is of other code

Cells are plain Python and share their names. A cell shows what it prints and what its last expression gives, as HTML
where that has `_repr_html_`, as in a notebook program. There are no magics, no `display` and no kernel: the thirty
packages of one would be installed for a tour that needs none of them. `parameters` are set after the cell that has this
tag, as papermill does.
"""

import argparse
import ast
import contextlib
import hashlib
import io
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Json = dict[str, Any]
PARAMETERS = "parameters"
DIGEST = "sources_sha256"
"""Of the code that the kept output is of, in the notebook's metadata."""


def code_cells(notebook: Json) -> list[Json]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def sources_digest(notebook: Json) -> str:
    sources = ["".join(cell["source"]) for cell in code_cells(notebook)]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def run(notebook: Json, parameters: Mapping[str, Any]) -> None:
    """Run every cell and put what it shows in its place. What a cell raises is raised."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(code_cells(notebook), start=1):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            result = _execute("".join(cell["source"]), names, f"<cell {number}: {cell['id']}>")
        cell["execution_count"] = number
        cell["outputs"] = [*_stream(printed.getvalue()), *_result(result, number)]
        if PARAMETERS in cell["metadata"].get("tags", ()):
            names.update(parameters)
    notebook["metadata"][DIGEST] = sources_digest(notebook)


def _execute(source: str, names: dict[str, Any], title: str) -> object:
    """What the last expression gives; None where the cell ends with a statement."""
    tree = ast.parse(source, title)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, title, "exec"), names)  # noqa: S102 - running it is the purpose
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), title, "eval"), names)  # noqa: S307 - as above


def _stream(text: str) -> Iterator[Json]:
    if text:
        yield {"output_type": "stream", "name": "stdout", "text": _lines(text)}


def _result(value: object, number: int) -> Iterator[Json]:
    if value is None:
        return
    as_html = getattr(value, "_repr_html_", None)
    data = {"text/plain": _lines(repr(value))} if as_html is None else {"text/html": _lines(as_html())}
    yield {"output_type": "execute_result", "execution_count": number, "metadata": {}, "data": data}


def _lines(text: str) -> list[str]:
    """As notebooks keep texts: line by line, with the ends of lines."""
    return text.splitlines(keepends=True)


def main() -> str | None:
    """Words of what is wrong, or None."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--output", type=Path, help="where it goes with its output; by default where it is")
    parser.add_argument("--parameters", type=json.loads, default={}, help="JSON object of names and values")
    parser.add_argument("--check", action="store_true", help="run nothing; fail if the output is of other code")
    given = parser.parse_args()
    notebook = json.loads(given.notebook.read_text(encoding="utf-8"))
    if given.check:
        is_current = notebook["metadata"].get(DIGEST) == sources_digest(notebook)
        return None if is_current else f"{given.notebook} shows the output of other code; run it again"
    run(notebook, given.parameters)
    text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    (given.output or given.notebook).write_text(text, encoding="utf-8")
    return None


if __name__ == "__main__":
    sys.exit(main())
