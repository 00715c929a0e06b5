"""Single function calls of the Berkeley Function Calling Leaderboard, as a `Task` and as expert trajectories.

Only the data files of the wheel `bfcl-eval` (Apache 2.0) are read; its package, which pins an old numpy, is never
imported.
"""

import importlib.util
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from memgen.errors import ConfigError, ModelNotFound
from memgen.tasks.function_calls import call_matches
from memgen.tasks.graders import Reference, make_grader
from memgen.tasks.row_task import DataRow, RowTask, split_by_question
from memgen.tasks.task import SingleTurn
from memgen.text.answers import message_text

CATEGORIES = ("simple_python", "live_simple", "multiple", "live_multiple")
_JSON_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": "string"}


def bfcl(
    *,
    categories: Sequence[str] = CATEGORIES,
    max_characters: int | None = None,
    one_in: int = 5,
    max_new_tokens: int = 128,
) -> RowTask:
    """The task: make the one right call, of one function offered or of several.

    Args:
        max_characters: leave out items whose messages and tools are longer as JSON; None takes all.
        one_in: one question in so many is held out, whatever functions it offers.

    Raises:
        ConfigError: a category is not one of `CATEGORIES`.
        ModelNotFound: the wheel bfcl-eval is not installed.
    """
    if not categories or not set(categories) <= set(CATEGORIES):
        raise ConfigError(f"got the categories {list(categories)}; expected some of {', '.join(CATEGORIES)}")
    grade = make_grader({"kind": "function_call"})

    def make_item(row: DataRow) -> SingleTurn:
        *prompt, answer = row["messages"]
        return SingleTurn(row["trajectory_id"], tuple(prompt), grade, Reference(answer, row["metadata"]), row["tools"])

    rows = [row for category in categories for row in single_calls(category)]
    if max_characters is not None:
        rows = [row for row in rows if len(json.dumps([row["messages"][:-1], row["tools"]])) <= max_characters]
    sides = split_by_question(rows, [_question(row) for row in rows], one_in=one_in)
    return RowTask("bfcl", max_new_tokens, *sides, make_item)


def single_calls(category: str) -> Iterator[dict[str, Any]]:
    """Trajectories of one category (`simple_python`, `live_simple`, `multiple`, `live_multiple`).

    Each has one expected call: messages end with it, and `metadata.possible_answers` holds every accepted value.
    """
    answers = {row["id"]: row["ground_truth"] for row in _rows(f"possible_answer/BFCL_v4_{category}.json")}
    for row in _rows(f"BFCL_v4_{category}.json"):
        truth = answers[row["id"]]
        if len(truth) != 1 or len(row["question"]) != 1:
            continue
        name, accepted = next(iter(truth[0].items()))
        arguments = _first_values(accepted)
        if not call_matches({"name": name, "arguments": arguments}, truth[0]):
            continue  # a few items accept nothing, e.g. an argument with an empty list of values
        call = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
        yield {
            "trajectory_id": f"bfcl-{row['id']}",
            "messages": [
                *row["question"][0],
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "call_0", "type": "function", "function": call}],
                },
            ],
            "tools": [{"type": "function", "function": _openai_schema(f)} for f in row["function"]],
            "reward": 1.0,
            "reward_source": "grader",
            "success": True,
            "metadata": {"possible_answers": [{name: accepted}]},
        }


def _question(row: dict[str, Any]) -> str:
    return "\n".join(message_text(message) for message in row["messages"] if message["role"] == "user")


def _first_values(accepted: dict[str, list[Any]]) -> dict[str, Any]:
    """The first accepted value of each argument; one whose first is "" may be left out, and is."""
    return {key: _plain(options[0]) for key, options in accepted.items() if options and options[0] != ""}


def _plain(value: Any) -> Any:
    """An accepted value as a call would hold it: objects in it list accepted values for each of their own keys."""
    if isinstance(value, dict):
        return _first_values(value) if _is_nested(value) else value
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _is_nested(value: dict[str, Any]) -> bool:
    return bool(value) and all(isinstance(options, list) for options in value.values())


def _openai_schema(value: Any) -> Any:
    """BFCL writes Python's type names; JSON schema has its own."""
    if isinstance(value, dict):
        return {
            k: _JSON_TYPES.get(v, v) if k == "type" and isinstance(v, str) else _openai_schema(v)
            for k, v in value.items()
        }
    if isinstance(value, list):
        return [_openai_schema(item) for item in value]
    return value


def _rows(name: str) -> Iterator[dict[str, Any]]:
    spec = importlib.util.find_spec("bfcl_eval")
    if spec is None or spec.origin is None:
        raise ModelNotFound(
            "the wheel bfcl-eval is not installed; run `pip install --no-deps -r requirements-data.lock`"
        )
    with (Path(spec.origin).parent / "data" / name).open("rb") as lines:
        for line in lines:
            yield json.loads(line)
