"""The demo's two tasks: real data of two domains that the base fails and a small memory can learn in minutes.

Both come from wheels: function calls of the Berkeley leaderboard, and needles in haystacks of reasoning-gym. Which
tasks serve was measured (research/method.md).
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from api.http.json_object import JsonObject
from memgen.tasks.bfcl import single_calls
from memgen.tasks.reasoning import reasoning_trajectories

_BFCL_CATEGORIES = ("simple_python", "live_simple", "multiple", "live_multiple")
_BFCL_MAX_CHARACTERS = 800
"""Length of tools and question together; longer calls take more minutes than a demo has."""


@dataclass(frozen=True)
class DemoTask:
    name: str
    about: str
    grader: JsonObject
    holdout_share: float
    trajectories: Callable[[], list[JsonObject]]
    training: JsonObject
    """Fields of TrainingConfig."""
    spoiling: JsonObject | None = None
    """Fields of the training that goes on with this task alone from a memory of another: short, for it is to be
    rejected. None for the first task."""


def tool_calls() -> list[JsonObject]:
    """Expert calls for questions with one or a few functions to choose from."""
    found = [row for category in _BFCL_CATEGORIES for row in single_calls(category)]
    short = [row for row in found if _characters(row) <= _BFCL_MAX_CHARACTERS]
    random.Random(0).shuffle(short)  # noqa: S311 - a fixed order of upload, not a secret
    return short


def names_in_haystacks() -> list[JsonObject]:
    """Short stories of what four to seven people like, each with one name as the answer."""
    return list(
        reasoning_trajectories("needle_haystack", size=1000, seed=7, min_num_statements=4, max_num_statements=7)
    )


def _characters(row: JsonObject) -> int:
    questions = sum(len(message["content"] or "") for message in row["messages"])
    return len(json.dumps(row["tools"])) + questions


DEMO_TASKS = (
    DemoTask(
        name="tool-calls",
        about="Berkeley Function Calling Leaderboard: one call, graded against every accepted value",
        grader={"kind": "function_call"},
        holdout_share=0.165,
        trajectories=tool_calls,
        training={"steps": 70},
    ),
    DemoTask(
        name="needle",
        about="reasoning-gym needle_haystack: one name, graded by reasoning-gym",
        grader={"kind": "reasoning_gym", "dataset": "needle_haystack"},
        holdout_share=0.085,
        trajectories=names_in_haystacks,
        training={"steps": 88},
        spoiling={"steps": 20},
    ),
)
