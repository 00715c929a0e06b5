"""Graders: from an answer and its reference to a score in [0, 1].

A grader is named by a task's spec, `{"kind": ..., **options}`. The kind `likelihood` generates nothing: its tasks are
scored by held-out token loss (`memgen.evaluation.accuracy`).

Every kind but `function_call` judges text and ignores no call: it refuses references that call (`why_unfit`), and an
answer that calls is not the text that was expected. Silence is never right, whatever a grader makes of an empty text.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from memgen.errors import ConfigError, UnknownGrader
from memgen.tasks.answer_text import answered_code, choice_letter, last_number, normalised_phrase
from memgen.tasks.function_calls import calls_match, check_possible, same_calls
from memgen.tasks.grader_options import check_options, option_text
from memgen.tasks.gym_scorer import GymScorer
from memgen.tasks.patterns import BoundedPattern
from memgen.tasks.sandbox import Limits, run_tests
from memgen.text.answers import Answer, message_calls, message_text

LIKELIHOOD = "likelihood"
_CALLS = "function_call"
_MAX_CODE_SECONDS = 120.0


@dataclass(frozen=True)
class Reference:
    """What a held-out item knows about its right answer."""

    message: dict[str, Any]
    """The expert's assistant message."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Metadata of the trajectory; what a grader reads here is in its docstring."""


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
    """A grader that can be sent to other processes: they make it anew from its spec."""

    def __init__(self, spec: dict[str, Any], grade: Grader) -> None:
        self._spec, self._grade = dict(spec), grade

    def __call__(self, answer: Answer, reference: Reference) -> float:
        return self._grade(answer, reference)

    def __reduce__(self) -> tuple[Callable[[dict[str, Any]], Grader], tuple[dict[str, Any]]]:
        return make_grader, (self._spec,)


def grader_kinds() -> list[str]:
    return sorted([*GRADERS, LIKELIHOOD])


def grader_options(kind: str) -> str:
    """The options that a kind takes, as Python would write them: `pattern: str, ignore_case: bool = False`."""
    return option_text(GRADERS[kind]) if kind in GRADERS else ""


def why_unfit(spec: Mapping[str, Any], message: Mapping[str, Any]) -> str:
    """Why a grader of the spec can't judge by an expert's message, in plain words; empty if it can."""
    kind, calls = spec.get("kind"), message.get("tool_calls") or ()
    if not calls or kind in (_CALLS, LIKELIHOOD):
        return ""
    named = ", ".join(dict.fromkeys(str(call["function"]["name"]) for call in calls))
    return (
        f"grader {kind!r} judges text, and the expert's turn calls {named}; give such trajectories a task with grader "
        f"{_CALLS!r} or {LIKELIHOOD!r}"
    )


def _of_text(kind: str, judge: Callable[[str, Reference], float]) -> Grader:
    """A grader of an answer's text.

    Raises, when grading:
        UnknownGrader: the expert's turn calls a tool, or `judge` can't read the reference. Whether it does never
            depends on the answer, so that an item is refused for all answers or for none.
    """

    def grade(answer: Answer, reference: Reference) -> float:
        if reason := why_unfit({"kind": kind}, reference.message):
            raise UnknownGrader(reason)
        text = answer.content or ""
        score = judge(text, reference)
        return 0.0 if answer.tool_calls or not text.strip() else score

    return grade


def exact(*, ignore_case: bool = False) -> Grader:
    """1 if the texts are equal, runs of white space counting as one space."""

    def judge(text: str, reference: Reference) -> float:
        got, expected = (" ".join(one.split()) for one in (text, message_text(reference.message)))
        return float(got.casefold() == expected.casefold() if ignore_case else got == expected)

    return _of_text("exact", judge)


def numeric(*, tolerance: float = 1e-6) -> Grader:
    """1 if the last numbers of both texts agree within a relative tolerance: `"so 1,200"` equals `"#### 1200.0"`.

    Where a text has GSM8K's mark `####`, its number is the one behind that.
    """
    if not 0 <= tolerance < math.inf:
        raise UnknownGrader(f"grader 'numeric': option 'tolerance' is {tolerance!r}; expected 0 or more, and finite")

    def judge(text: str, reference: Reference) -> float:
        got, expected = last_number(text), last_number(message_text(reference.message))
        if expected is not None and math.isinf(expected):  # any number is within a share of it
            raise UnknownGrader("grader 'numeric': the reference's number is beyond 1e308; expected one that is less")
        if got is None or expected is None:
            return 0.0
        return float(abs(got - expected) <= tolerance * abs(expected))

    return _of_text("numeric", judge)


def regex(*, pattern: str, ignore_case: bool = False) -> Grader:
    """With a group in the pattern: 1 if group 1 of the answer's last match equals that of the reference.

    A reference that does not match is compared as a whole; runs of white space count as one space. Without a group:
    1 if the answer matches anywhere. A search that takes longer than a second counts as no match.
    """
    try:
        bounded = BoundedPattern(pattern, ignore_case=ignore_case)
    except ConfigError as error:
        raise UnknownGrader(f"grader 'regex': option 'pattern' is {error}") from error

    def judge(text: str, reference: Reference) -> float:
        got = bounded.last(text)
        if got is None or not bounded.has_group:
            return float(got is not None)
        right = message_text(reference.message)
        expected = bounded.last(right)
        expected = " ".join(right.split()) if expected is None else expected
        return float(got.casefold() == expected.casefold() if ignore_case else got == expected)

    return _of_text("regex", judge)


def choice() -> Grader:
    """1 if the answer settles on the reference's letter, A to Z (`memgen.tasks.answer_text.choice_letter`).

    `metadata.choices`, the texts of A, B, ... in order, bounds the letters and lets an answer give a choice's text.
    """

    def judge(text: str, reference: Reference) -> float:
        choices = reference.metadata.get("choices")
        if choices is not None and not (isinstance(choices, list) and all(isinstance(c, str) for c in choices)):
            raise UnknownGrader(f"grader 'choice': metadata.choices is {choices!r}; expected a list of texts")
        right = message_text(reference.message)
        expected = choice_letter(right, choices)
        if expected is None:
            raise UnknownGrader(
                f"grader 'choice' finds no letter in the reference {right[:80]!r}; expected one like 'B'"
            )
        return float(choice_letter(text, choices) == expected)

    return _of_text("choice", judge)


def alias() -> Grader:
    """1 if the answer is one of `metadata.aliases`, or the reference's text, in TriviaQA's normal form."""

    def judge(text: str, reference: Reference) -> float:
        aliases = reference.metadata.get("aliases", [])
        if not (isinstance(aliases, list) and all(isinstance(one, str) for one in aliases)):
            raise UnknownGrader(f"grader 'alias': metadata.aliases is {aliases!r}; expected a list of texts")
        accepted = [message_text(reference.message), *aliases]
        return float(normalised_phrase(text) in {normalised_phrase(one) for one in accepted} - {""})

    return _of_text("alias", judge)


def code(*, timeout_seconds: float = 10.0, memory_mib: int = 1024) -> Grader:
    """1 if the answer's program passes `metadata.tests` in the sandbox (`memgen.tasks.sandbox`).

    `metadata.test_form` is `script` (default) or `pytest`; `metadata.prompt` is code that the answer completes, and
    `metadata.entry_point` the function's name, where there is one (`memgen.tasks.answer_text.answered_code`).

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

    def judge(text: str, reference: Reference) -> float:
        tests, prompt, entry_point = (_metadata_text(reference, name) for name in ("tests", "prompt", "entry_point"))
        form = reference.metadata.get("test_form", "script")
        if not tests:
            raise UnknownGrader("grader 'code': metadata.tests is empty or missing; expected Python source")
        if form not in ("script", "pytest"):
            raise UnknownGrader(f"grader 'code': metadata.test_form is {form!r}; expected 'script' or 'pytest'")
        program = answered_code(text, prompt=prompt, entry_point=entry_point)
        return float(run_tests(program, tests, form=form, limits=limits).passed)

    return _of_text("code", judge)


def _metadata_text(reference: Reference, name: str) -> str:
    value = reference.metadata.get(name, "")
    if not isinstance(value, str):
        raise UnknownGrader(f"grader 'code': metadata.{name} is {value!r}; expected a text")
    return value


def function_call() -> Grader:
    """1 if the answer makes exactly the expected calls, in any order. Where none is expected, it must say something.

    `metadata.possible_answers` (BFCL's form: a list of `{name: {argument: [accepted values]}}`) is used if present,
    else the expert's own calls.
    """

    def grade(answer: Answer, reference: Reference) -> float:
        possible = reference.metadata.get("possible_answers")
        silent = not answer.tool_calls and not (answer.content or "").strip()
        if possible is None:
            return float(not silent and same_calls(answer.tool_calls, message_calls(reference.message)))
        try:
            check_possible(possible)
        except ConfigError as error:
            raise UnknownGrader(f"grader 'function_call': metadata.possible_answers {error}") from error
        return float(not silent and calls_match(answer.tool_calls, possible))

    return grade


def reasoning_gym(*, dataset: str) -> Grader:
    """reasoning-gym's own scorer of `dataset`; `metadata.entry` holds the dataset's entry.

    Raises, when grading:
        SandboxUnavailable: the scorer evaluates answers as Python, and this system can't isolate it.
    """
    try:
        scorer = _gym_scorer(dataset)
    except ConfigError as error:
        raise UnknownGrader(f"grader 'reasoning_gym': {error}") from error

    def judge(text: str, reference: Reference) -> float:
        entry = reference.metadata.get("entry")
        if not isinstance(entry, dict) or "answer" not in entry:
            raise UnknownGrader(
                "grader 'reasoning_gym' needs `metadata.entry`, as the dataset made it, on each trajectory of the task"
            )
        return scorer(text.strip(), entry)

    return _of_text("reasoning_gym", judge)


@cache
def _gym_scorer(dataset: str) -> GymScorer:
    """Made once: some datasets take a second to make."""
    return GymScorer(dataset)


GRADERS: dict[str, Callable[..., Grader]] = {
    "exact": exact,
    "numeric": numeric,
    "regex": regex,
    "choice": choice,
    "alias": alias,
    "code": code,
    _CALLS: function_call,
    "reasoning_gym": reasoning_gym,
}
