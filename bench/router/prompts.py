"""Prompts for measuring the router: of six served tasks, of nobody's task, and of kinds in between.

All from installed packages, none made up. The router's state, shrinkage, rank and fence were chosen on other prompts:
the served tasks' and the puzzles' by other seeds, the rest by the other half of each source (`_unseen`); no foreign
dataset and no documentation stands in both.
"""

import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from api.cli.demo_story.sources import tool_calls
from memgen.tasks.bfcl import single_calls

T = TypeVar("T")
SEED = 101
_NEEDLE = {"min_num_statements": 4, "max_num_statements": 7}
_PUZZLES: dict[str, tuple[str, dict[str, Any]]] = {
    "needle": ("needle_haystack", _NEEDLE),
    "family": ("family_relationships", {}),
    "number-filtering": ("number_filtering", {}),
    "number-format": ("number_format", {}),
    "word-problems": ("gsm_symbolic", {}),
}
_OTHER_PUZZLES = (
    "acre arc_1d basic_arithmetic binary_alternation caesar_cipher complex_arithmetic count_primes course_schedule "
    "dice futoshiki group_anagrams isomorphic_strings kakurasu largest_island letter_counting list_functions maze "
    "modulo_grid palindrome_generation path_star polynomial_multiplication prime_factorization propositional_logic "
    "quantum_lock rotate_matrix rush_hour sentence_reordering sokoban spiral_matrix sudoku tower_of_hanoi word_ladder"
)
_SIMILAR_PUZZLES = (
    "number_sorting number_sequence aiw leg_counting chain_sum syllogism knights_knaves zebra_puzzles "
    "simple_equations decimal_arithmetic gcd calendar_arithmetic coin_flip simple_geometry time_intervals word_sorting"
)
_MODULES = (
    "bisect bz2 calendar cmath contextlib copy dataclasses difflib email fileinput functools getpass glob hashlib hmac "
    "importlib io locale math multiprocessing pkgutil plistlib random runpy secrets selectors signal sqlite3 ssl "
    "statistics subprocess sysconfig threading timeit tokenize tracemalloc types unicodedata uuid warnings zoneinfo"
)
BEHIND = "behind a system message"
_SYSTEM_MESSAGE = "You are a careful assistant. Answer in as few words as possible."


@dataclass(frozen=True)
class RouterPrompt:
    """Messages of a prompt, and its tools if it has any."""

    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] | None = None

    def behind(self, system_message: str) -> "RouterPrompt":
        """The same prompt behind this system message instead of its own."""
        own = [m for m in self.messages if m["role"] != "system"]
        return RouterPrompt(({"role": "system", "content": system_message}, *own), self.tools)

    def as_second_turn(self) -> "RouterPrompt":
        """The same prompt behind a greeting and its answer."""
        first = [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Hello! How can I help you?"}]
        return RouterPrompt((*first, *self.messages), self.tools)


def served_tasks(count: int) -> dict[str, list[RouterPrompt]]:
    """`count` prompts of each of six tasks: function calls, four procedural puzzles, word problems."""
    puzzles = {task: _puzzles(name, count, **options) for task, (name, options) in _PUZZLES.items()}
    return {"tool-calls": _calls()[:count], **puzzles}


def foreign() -> dict[str, list[RouterPrompt]]:
    """Prompts of no served task, by kind."""
    puzzles = [p for name in _OTHER_PUZZLES.split() for p in _puzzles(name, 4) if len(p.messages[0]["content"]) < 900]
    return {
        "other puzzles": _some(puzzles, 90),
        "questions": _some(_questions(), 80),
        **ordinary_text(),
    }


def ordinary_text() -> dict[str, list[RouterPrompt]]:
    """The foreign prompts that are mostly prose."""
    return {
        "conversation": _some(_conversation(), 60),
        "package descriptions": _some(_descriptions(), 80),
        "docstrings": _some(_docstrings(), 80),
    }


def similar() -> dict[str, list[RouterPrompt]]:
    """Foreign prompts that look like a served task: near puzzles, and BFCL's questions with their tools taken away."""
    return {
        "similar puzzles": [p for name in _SIMILAR_PUZZLES.split() for p in _puzzles(name, 6)],
        "questions without their tools": [RouterPrompt(p.messages) for p in _some(_long_calls(), 60)],
    }


def unusual() -> dict[str, dict[str, list[RouterPrompt]]]:
    """Prompts of served tasks that differ from those they were learned from: kind -> task -> prompts."""
    calls = _calls()[-40:]
    swapped = [RouterPrompt(one.messages, other.tools) for one, other in zip(calls, calls[1:] + calls[:1], strict=True)]
    fresh = {task: prompts[-30:] for task, prompts in served_tasks(190).items()}
    return {
        "10 to 15 statements in place of 4 to 7": {
            "needle": _puzzles("needle_haystack", 40, min_num_statements=10, max_num_statements=15)
        },
        "tools that do not fit the question": {"tool-calls": swapped},
        "as the second turn of a conversation": {t: [p.as_second_turn() for p in own[:10]] for t, own in fresh.items()},
        BEHIND: {task: [p.behind(_SYSTEM_MESSAGE) for p in own] for task, own in fresh.items()},
    }


def _puzzles(name: str, count: int, **options: Any) -> list[RouterPrompt]:
    import reasoning_gym as gym  # slow to import

    return [_user(entry["question"]) for entry in gym.create_dataset(name, size=count, seed=SEED, **options)]


def _calls() -> list[RouterPrompt]:
    return _unseen(RouterPrompt(tuple(row["messages"][:-1]), tuple(row["tools"])) for row in tool_calls())


def _long_calls() -> list[RouterPrompt]:
    """Calls that are too long for the demo's task, and so for the task that the router learns."""
    rows = [row for row in single_calls("live_multiple") if len(json.dumps(row["tools"])) > 800]
    return _unseen(RouterPrompt(tuple(row["messages"][:-1]), tuple(row["tools"])) for row in rows)


def _questions() -> list[RouterPrompt]:
    """First turns of BFCL's agents, which bring no tools of their own."""
    names = ("BFCL_v4_memory.json", "BFCL_v4_web_search.json", "BFCL_v4_multi_turn_base.json")
    return _unseen(_user(row["question"][0][0]["content"]) for name in names for row in _bfcl_rows(name))


def _conversation() -> list[RouterPrompt]:
    """People who tell an assistant about themselves, some hundred words at a time."""
    names = [f"memory_prereq_conversation/memory_{who}.json" for who in ("customer", "finance", "healthcare")]
    names += [f"memory_prereq_conversation/memory_{who}.json" for who in ("notetaker", "student")]
    rows = [row for name in names for row in _bfcl_rows(name)]
    return _unseen(_user(turn[0]["content"][:1200]) for row in rows for turn in row["question"])


def _bfcl_rows(name: str) -> list[dict[str, Any]]:
    spec = importlib.util.find_spec("bfcl_eval")
    if spec is None or spec.origin is None:
        raise SystemExit("the wheel bfcl-eval is not installed; run `make setup`")
    text = (Path(spec.origin).parent / "data" / name).read_bytes()
    return [json.loads(line) for line in text.split(b"\n") if line]


def _descriptions() -> list[RouterPrompt]:
    """Paragraphs of the installed packages' descriptions, every second one with a request."""
    packages = sorted(importlib.metadata.distributions(), key=lambda package: package.name.lower())
    prompts = []
    for package in _unseen(packages):
        text = package.metadata.get("Description") or str(package.metadata.get_payload() or "")  # type: ignore[attr-defined]  # a Message, typed as less
        paragraphs = [p.strip() for p in re.split(r"\n\s*\n", text) if 120 < len(p.strip()) < 900]
        prompts += [_user(f"Summarize this text.\n\n{p}" if n % 2 else p) for n, p in enumerate(paragraphs[:4])]
    return prompts


def _docstrings() -> list[RouterPrompt]:
    prompts = []
    for module in _MODULES.split():
        functions = sorted(vars(importlib.import_module(module)).items())
        found = [(n, inspect.getdoc(f) or "") for n, f in functions if inspect.isroutine(f) and not n.startswith("_")]
        texts = [(name, text) for name, text in found if 80 < len(text) < 900]
        prompts += [_user(f"What does `{module}.{n}` do? Its documentation says:\n\n{text}") for n, text in texts[:3]]
    return prompts


def _user(text: str) -> RouterPrompt:
    return RouterPrompt(({"role": "user", "content": text},))


def _unseen(items: Iterable[T]) -> list[T]:
    """Every second one: the others were used to choose the method."""
    return list(items)[1::2]


def _some(items: list[T], count: int) -> list[T]:
    return random.Random(SEED).sample(items, min(count, len(items)))  # noqa: S311 - a fixed choice, not a secret
