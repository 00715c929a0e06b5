"""The house rules of sizes, arguments, docstrings and the environment hold in the plugin's package too."""

import ast
from pathlib import Path

from tests.test_style import ARGUMENTS, FRAGMENTS, FUNCTION_LINES, MODULE_LINES, _arguments, _attributes, _functions

SOURCES = Path(__file__).resolve().parents[2] / "packages" / "memgen-vllm" / "src" / "memgen_vllm"
TREES = {path.name: ast.parse(path.read_text()) for path in sorted(SOURCES.glob("*.py"))}


def test_the_package_is_there() -> None:
    assert len(TREES) > 15


def test_sizes_and_arguments() -> None:
    lines = {path.name: len(path.read_text().splitlines()) for path in SOURCES.glob("*.py")}
    assert {name: count for name, count in lines.items() if count > MODULE_LINES} == {}
    found = dict(_functions(TREES))
    long = {name for name, node in found.items() if (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES}
    assert long == set()
    assert {name for name, node in found.items() if _arguments(node) > ARGUMENTS} == set()


def test_docstrings() -> None:
    said = {name: ast.get_docstring(tree) or "" for name, tree in TREES.items()}
    assert [name for name, text in said.items() if not text or text.startswith(FRAGMENTS)] == []


def test_one_module_reads_the_environment() -> None:
    readers = {name for name, tree in TREES.items() for a in _attributes(tree) if a in ("os.environ", "os.getenv")}
    assert readers == {"settings.py"}
