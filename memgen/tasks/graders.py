"""Graders: from an answer and its reference to a score in [0, 1].

A grader is named by a task's spec, `{"kind": ..., **options}`. The kind `likelihood` generates nothing: its tasks are
scored by held-out token loss (`memgen.evaluation.accuracy`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import regex as timed_re  # type: ignore[import-untyped]  # ships no type information

from memgen.chat import Answer, message_calls, message_text
from memgen.errors import UnknownGrader
from memgen.tasks.answer_text import answered_code, choice_letter, last_number, normalised_phrase
from memgen.tasks.function_calls import call_matches
from memgen.tasks.grader_options import check_options
from memgen.tasks.sandbox import Limits, run_tests

LIKELIHOOD = "likelihood"
_REGEX_SECONDS = 1.0
_MAX_CODE_SECONDS = 120.0


@dataclass(frozen=True)
class Reference:
    """What a held-out item knows about its right answer."""

    message: dict[str, Any]
    """The expert's assistant message."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Of the trajectory; what a grader reads here is in its docstring."""


Grader = Callable[[Answer, Reference], float]


def make_grader(spec: dict[str, Any]) -> Grader:
    """The grader of a task's spec.

    Raises:
        UnknownGrader: the kind is not one of `GRADERS`, or an option is not known to it, missing, or of a wrong value.
    """
    options = {k: v for k, v in spec.items() if k != "kind"}
    kind = spec.get("kind")
    if not isinstance(kind, str) or kind not in GRADERS:
        raise UnknownGrader(f"grader kind {kind!r} is not known; expected one of {grader_kinds()}")
    factory = GRADERS[kind]
    check_options(kind, factory, options)
    return _Made(spec, factory(**options))


class _Made:
    """A grader that other processes can be given: they make it anew from its spec."""

    def __init__(self, spec: dict[str, Any], grade: Grader) -> None:
        self._spec, self._grade = dict(spec), grade

    def __call__(self, answer: Answer, reference: Reference) -> float:
        return self._grade(answer, reference)

    def __reduce__(self) -> tuple[Callable[[dict[str, Any]], Grader], tuple[dict[str, Any]]]:
        return make_grader, (self._spec,)


def grader_kinds() -> list[str]:
    return sorted([*GRADERS, LIKELIHOOD])


def exact(*, ignore_case: bool = False) -> Grader:
    """1 if the texts are equal, runs of white space counting as one space."""

    def grade(answer: Answer, reference: Reference) -> float:
        got, expected = (" ".join(text.split()) for text in (answer.content or "", message_text(reference.message)))
        return float(got.casefold() == expected.casefold() if ignore_case else got == expected)

    return grade


def numeric(*, tolerance: float = 1e-6) -> Grader:
    """1 if the last numbers of both texts agree within a relative tolerance: `"so 1,200"` equals `"#### 1200.0"`.

    Where a text has GSM8K's mark `####`, its number is the one behind that.
    """
    if not 0 <= tolerance < math.inf:
        raise UnknownGrader(f"grader 'numeric': option 'tolerance' is {tolerance!r}; expected 0 or more, and finite")

    def grade(answer: Answer, reference: Reference) -> float:
        got, expected = last_number(answer.content or ""), last_number(message_text(reference.message))
        if got is None or expected is None:
            return 0.0
        return float(abs(got - expected) <= tolerance * max(1.0, abs(expected)))

    return grade


def regex(*, pattern: str, ignore_case: bool = False) -> Grader:
    """With a group in the pattern: 1 if group 1 of the answer's last match equals that of the reference.

    A reference that does not match is compared as a whole; runs of white space count as one space. Without a group:
    1 if the answer matches anywhere. A search that takes longer than a second counts as no match.
    """
    try:
        compiled = timed_re.compile(pattern, timed_re.IGNORECASE if ignore_case else 0)
    except timed_re.error as error:
        raise UnknownGrader(
            f"grader 'regex': option 'pattern' is {pattern!r}: {error}; expected a regular expression"
        ) from error

    def extract(text: str) -> str | None:
        try:
            found = list(compiled.finditer(text, timeout=_REGEX_SECONDS))
        except TimeoutError:
            return None
        return " ".join((found[-1].group(1 if compiled.groups else 0) or "").split()) if found else None

    def grade(answer: Answer, reference: Reference) -> float:
        got = extract(answer.content or "")
        if got is None or not compiled.groups:
            return float(got is not None)
        text = message_text(reference.message)
        expected = extract(text)
        expected = " ".join(text.split()) if expected is None else expected
        return float(got.casefold() == expected.casefold() if ignore_case else got == expected)

    return grade


def choice() -> Grader:
    """1 if the answer settles on the reference's letter, A to Z (`memgen.tasks.answer_text.choice_letter`).

    `metadata.choices`, the texts of A, B, ... in order, bounds the letters and lets an answer give a choice's text.
    """

    def grade(answer: Answer, reference: Reference) -> float:
        choices = reference.metadata.get("choices")
        if choices is not None and not (isinstance(choices, list) and all(isinstance(c, str) for c in choices)):
            raise UnknownGrader(f"grader 'choice': metadata.choices is {choices!r}; expected a list of texts")
        text = message_text(reference.message)
        expected = choice_letter(text, choices)
        if expected is None:
            raise UnknownGrader(
                f"grader 'choice' finds no letter in the reference {text[:80]!r}; expected one like 'B'"
            )
        return float(choice_letter(answer.content or "", choices) == expected)

    return grade


def alias() -> Grader:
    """1 if the answer is one of `metadata.aliases`, or the reference's text, in TriviaQA's normal form."""

    def grade(answer: Answer, reference: Reference) -> float:
        accepted = [message_text(reference.message), *reference.metadata.get("aliases", ())]
        return float(normalised_phrase(answer.content or "") in {normalised_phrase(text) for text in accepted} - {""})

    return grade


def code(*, timeout_seconds: float = 10.0, memory_mib: int = 1024) -> Grader:
    """1 if the answer's program passes `metadata.tests` in the sandbox (`memgen.tasks.sandbox`).

    `metadata.test_form` is `script` (default) or `pytest`; `metadata.prompt` is code that the answer completes, and
    `metadata.entry_point` the function asked for, where given (`memgen.tasks.answer_text.answered_code`).

    Raises, when grading:
        SandboxUnavailable: this system can't isolate the program.
    """
    if not 0 < timeout_seconds <= _MAX_CODE_SECONDS:
        raise UnknownGrader(
            f"grader 'code': option 'timeout_seconds' is {timeout_seconds!r}; expected more than 0, at most "
            f"{_MAX_CODE_SECONDS:.0f}"
        )
    if not 64 <= memory_mib <= 65536:
        raise UnknownGrader(f"grader 'code': option 'memory_mib' is {memory_mib!r}; expected 64 to 65536")
    limits = Limits(seconds=timeout_seconds, memory_bytes=memory_mib << 20)

    def grade(answer: Answer, reference: Reference) -> float:
        tests, prompt, entry_point = (_metadata_text(reference, name) for name in ("tests", "prompt", "entry_point"))
        form = reference.metadata.get("test_form", "script")
        if not tests:
            raise UnknownGrader("grader 'code': metadata.tests is empty or missing; expected Python source")
        if form not in ("script", "pytest"):
            raise UnknownGrader(f"grader 'code': metadata.test_form is {form!r}; expected 'script' or 'pytest'")
        program = answered_code(answer.content or "", prompt=prompt, entry_point=entry_point)
        return float(run_tests(program, tests, form=form, limits=limits).passed)

    return grade


def _metadata_text(reference: Reference, name: str) -> str:
    value = reference.metadata.get(name, "")
    if not isinstance(value, str):
        raise UnknownGrader(f"grader 'code': metadata.{name} is {value!r}; expected a text")
    return value


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


GRADERS: dict[str, Callable[..., Grader]] = {
    "exact": exact,
    "numeric": numeric,
    "regex": regex,
    "choice": choice,
    "alias": alias,
    "code": code,
    "function_call": function_call,
    "reasoning_gym": reasoning_gym,
}
