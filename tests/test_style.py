"""House rules that no linter knows."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = sorted(
    path for package in ("api", "workers", "registry", "memgen") for path in (ROOT / package).rglob("*.py")
)


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


def test_modules_and_functions_stay_small() -> None:
    long_modules = {p.name: n for p in PRODUCT if (n := len(p.read_text().splitlines())) > 320}
    assert long_modules == {}


def test_nothing_is_called_by_what_it_is_not() -> None:
    assert [p.stem for p in PRODUCT if p.stem in ("utils", "helpers", "manager", "base", "common", "misc")] == []


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
