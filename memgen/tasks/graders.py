"""Graders: from an answer and its reference to a score in [0, 1].

A grader is named by a task's spec, `{"kind": ..., **options}`. The kind `likelihood` generates nothing: its tasks are
scored by held-out token loss (`memgen.evaluation.accuracy`).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from memgen.chat import Answer, message_calls, message_text
from memgen.errors import UnknownGrader
from memgen.tasks.function_calls import call_matches

LIKELIHOOD = "likelihood"
_NUMBER = re.compile(r"[-+]?\d[\d,]*\.?\d*(?:[eE][-+]?\d+)?")


@dataclass(frozen=True)
class Reference:
    """What a held-out item knows about its right answer."""

    message: dict[str, Any]
    """The expert's assistant message."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Of the trajectory; `possible_answers` or `entry` where the grader uses them."""


Grader = Callable[[Answer, Reference], float]


def make_grader(spec: dict[str, Any]) -> Grader:
    """The grader of a task's spec.

    Raises:
        UnknownGrader: the kind is not one of `GRADERS`, or an option is not known to it.
    """
    options = {k: v for k, v in spec.items() if k != "kind"}
    kind = spec.get("kind")
    if kind not in GRADERS:
        raise UnknownGrader(f"grader kind {kind!r} is not known; expected one of {grader_kinds()}")
    try:
        return GRADERS[kind](**options)
    except TypeError as error:
        raise UnknownGrader(f"grader {kind!r} does not take the options {sorted(options)}: {error}") from error


def grader_kinds() -> list[str]:
    return sorted([*GRADERS, LIKELIHOOD])


def exact(*, ignore_case: bool = False) -> Grader:
    """1 if the texts are equal, runs of white space counting as one space."""

    def grade(answer: Answer, reference: Reference) -> float:
        got, expected = (" ".join(text.split()) for text in (answer.content or "", message_text(reference.message)))
        return float(got.casefold() == expected.casefold() if ignore_case else got == expected)

    return grade


def numeric(*, tolerance: float = 1e-6) -> Grader:
    """1 if the last numbers of both texts agree within a relative tolerance: `"so 1,200"` equals `"1200.0"`."""

    def grade(answer: Answer, reference: Reference) -> float:
        got, expected = _last_number(answer.content or ""), _last_number(message_text(reference.message))
        if got is None or expected is None:
            return 0.0
        return float(abs(got - expected) <= tolerance * max(1.0, abs(expected)))

    return grade


def function_call() -> Grader:
    """1 if the answer makes exactly the expected calls, in any order.

    `metadata.possible_answers` (BFCL's form: a list of `{name: {argument: [accepted values]}}`) is used where given,
    else the expert's own calls.
    """

    def grade(answer: Answer, reference: Reference) -> float:
        expected = reference.metadata.get("possible_answers")
        if expected is None:
            expected = [
                {call["name"]: {key: [value] for key, value in call["arguments"].items()}}
                for call in message_calls(reference.message)
            ]
        left = list(expected)
        for call in answer.tool_calls:
            match = next((possible for possible in left if call_matches(call, possible)), None)
            if match is None:
                return 0.0
            left.remove(match)
        return float(not left)

    return grade


def reasoning_gym(*, dataset: str) -> Grader:
    """reasoning-gym's own scorer of `dataset`; `metadata.entry` holds the dataset's entry."""

    def grade(answer: Answer, reference: Reference) -> float:
        entry = reference.metadata.get("entry")
        if not isinstance(entry, dict):
            raise UnknownGrader("grader 'reasoning_gym' needs `metadata.entry` on each trajectory of the task")
        return float(_reasoning_dataset(dataset).score_answer((answer.content or "").strip(), entry))

    _reasoning_dataset(dataset)
    return grade


@cache
def _reasoning_dataset(name: str) -> Any:
    import reasoning_gym as gym  # slow to import, and only its own tasks need it

    try:
        return gym.create_dataset(name, size=1, seed=0)
    except ValueError as error:
        raise UnknownGrader(f"reasoning-gym has no dataset {name!r}: {error}") from error


def _last_number(text: str) -> float | None:
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


GRADERS: dict[str, Callable[..., Grader]] = {
    "exact": exact,
    "numeric": numeric,
    "function_call": function_call,
    "reasoning_gym": reasoning_gym,
}
