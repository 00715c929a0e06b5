"""House rules that no linter knows."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("api", "workers", "registry", "memgen")
PRODUCT = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def _attributes(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node)


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in PRODUCT}


def test_only_a_transaction_commits(trees: dict[str, ast.Module]) -> None:
    found = [name for name, tree in trees.items() for a in _attributes(tree) if a.endswith(".commit")]
    assert found == []
    begins = {name for name, tree in trees.items() for a in _attributes(tree) if a.endswith("session.begin")}
    assert begins == {"registry/database.py"}


def test_one_module_reads_the_environment(trees: dict[str, ast.Module]) -> None:
    readers = {
        name
        for name, tree in trees.items()
        for a in _attributes(tree)
        if a in ("os.environ", "os.getenv", "os.environb")
    }
    assert readers == {"registry/settings.py"}


def test_every_module_says_what_it_is(trees: dict[str, ast.Module]) -> None:
    silent = [name for name, tree in trees.items() if tree.body and not ast.get_docstring(tree)]
    assert silent == []


MODULE_LINES, FUNCTION_LINES, ARGUMENTS = 320, 60, 8
TYPER_COMMANDS = {
    "api/cli/adapters.py:create",
    "api/cli/analyses.py:analyze",
    "api/cli/chat.py:chat",
    "api/cli/feedback.py:feedback",
    "api/cli/loops.py:create",
    "api/cli/judges.py:run",
    "api/cli/hub.py:push",
    "api/cli/routes.py:ab",
    "api/cli/routes.py:canary",
    "api/cli/schedules.py:change",
    "api/cli/schedules.py:create",
    "api/cli/training.py:train",
    "api/cli/training.py:train_trigger",
}
"""Commands with more options than a function should have arguments: to typer each option is one."""


def _functions(trees: dict[str, ast.Module]) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{name}:{node.name}", node


def _arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many it takes, without `self` and `cls`."""
    every = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
    return len(every) - (bool(every) and every[0].arg in ("self", "cls"))


def test_modules_stay_small() -> None:
    lines = {p.relative_to(ROOT).as_posix(): len(p.read_text().splitlines()) for p in PRODUCT}
    assert {name: count for name, count in lines.items() if count > MODULE_LINES} == {}


def test_functions_stay_short(trees: dict[str, ast.Module]) -> None:
    lengths = {name: (node.end_lineno or 0) - node.lineno + 1 for name, node in _functions(trees)}
    assert {name: length for name, length in lengths.items() if length > FUNCTION_LINES} == {}


def test_functions_take_few_arguments(trees: dict[str, ast.Module]) -> None:
    found = {name: count for name, node in _functions(trees) if (count := _arguments(node)) > ARGUMENTS}
    assert found.keys() == TYPER_COMMANDS, "the exceptions are these, and each still needs to be one"


def test_the_counts_count() -> None:
    """The two tests above on functions of known size."""
    source = "class A:\n    def f(self, a, /, b, *, c):\n        pass\n\nasync def g():\n    x = 1\n    return x\n"
    found = dict(_functions({"m.py": ast.parse(source)}))
    assert {name: _arguments(node) for name, node in found.items()} == {"m.py:f": 3, "m.py:g": 0}
    assert {name: (node.end_lineno or 0) - node.lineno + 1 for name, node in found.items()} == {
        "m.py:f": 2,
        "m.py:g": 3,
    }


SHARED_NAMES = {
    # The row, and the protocol of what a library user brings: both are the glossary's task.
    "Task",
}


def test_a_class_name_has_one_meaning() -> None:
    places: dict[str, list[str]] = {}
    for package in (*PACKAGES, "bench"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    places.setdefault(node.name, []).append(path.relative_to(ROOT).as_posix())
    assert {name for name, found in places.items() if len(found) > 1} == SHARED_NAMES


FRAGMENTS = ("Of ", "That ", "Those ", "From where ", "As above")


def test_docstrings_are_sentences_with_a_subject(trees: dict[str, ast.Module]) -> None:
    """A docstring that begins so hangs on a word that stands elsewhere."""
    texts = [
        (name, node.value.value)
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    assert [(name, text[:60]) for name, text in texts if text.startswith(FRAGMENTS)] == []


LAZY = {
    "api/local/supervisor.py:migrate_database",  # the servers are up before SQLAlchemy is needed
    # torch comes with the first job: a worker of the queue `default` never pays for it
    "workers/main.py:_handlers",
    "workers/main.py:make_handlers",
}


def test_no_import_of_ours_hides_in_a_function(trees: dict[str, ast.Module]) -> None:
    """A circle could hide there. The command line imports late, because it must start fast."""
    late = {
        name
        for name, node in _functions(trees)
        for inner in ast.walk(node)
        if (isinstance(inner, ast.ImportFrom) and (inner.module or "").startswith(PACKAGES))
        or (isinstance(inner, ast.Import) and any(alias.name.startswith(PACKAGES) for alias in inner.names))
    }
    assert {name for name in late if not name.startswith("api/cli/")} == LAZY


def test_nothing_is_called_by_what_it_is_not() -> None:
    assert [p.stem for p in PRODUCT if p.stem in ("utils", "helpers", "manager", "base", "common", "misc")] == []


def test_no_text_is_cut_at_what_python_calls_a_line(trees: dict[str, ast.Module]) -> None:
    """`splitlines` and httpx's `iter_lines` cut at U+2028, U+0085 and others, which JSON strings hold as they are. Cut
    bytes at newlines instead (`registry.json_text.jsonl_lines`)."""
    cutting = ("splitlines", "readlines", "iter_lines", "aiter_lines")
    bench = {p.relative_to(ROOT).as_posix(): ast.parse(p.read_text()) for p in (ROOT / "bench").rglob("*.py")}
    assert [(name, a) for name, tree in (trees | bench).items() for a in _attributes(tree) if a.endswith(cutting)] == []


def test_every_ignore_says_why() -> None:
    """Those of `typed_use.py` do so in its docstring."""
    ignore = re.compile(r"# type: ignore(?!\[[\w, -]+\] +# \w)")
    others = [path for folder in ("bench", "packages", "tests") for path in (ROOT / folder).rglob("*.py")]
    checked = [path for path in (*PRODUCT, *others) if path.name not in ("typed_use.py", Path(__file__).name)]
    assert [str(path) for path in checked if any(map(ignore.search, path.read_text().split("\n")))] == []


def test_no_pickle(trees: dict[str, ast.Module]) -> None:
    found = [
        name
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Import) and any(a.name == "pickle" for a in node.names))
        or (isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.load", "torch.save"))
    ]
    # The public checkpoint's own format; read with weights_only, which unpickles no code.
    assert set(found) <= {"memgen/artifacts/public_files.py"}
    loads = [
        ast.unparse(node)
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]
    assert all("weights_only=True" in call for call in loads)
