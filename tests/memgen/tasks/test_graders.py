"""Graders with hand-made answers."""

import json
from typing import Any

import pytest

from memgen.errors import UnknownGrader
from memgen.tasks.bfcl import single_calls
from memgen.tasks.function_calls import call_matches
from memgen.tasks.graders import Reference, grader_kinds, make_grader, why_unfit
from memgen.tasks.reasoning import reasoning_trajectories
from memgen.text.answers import Answer


def _said(text: str) -> Reference:
    return Reference({"role": "assistant", "content": text})


@pytest.mark.parametrize(
    ("spec", "answer", "reference", "score"),
    [
        ({"kind": "exact"}, " the  cat\n", "the cat", 1.0),
        ({"kind": "exact"}, "The cat", "the cat", 0.0),
        ({"kind": "exact", "ignore_case": True}, "The cat", "the cat", 1.0),
        ({"kind": "numeric"}, "so it is 1,200.", "1200.0", 1.0),
        ({"kind": "numeric"}, "-3", "3", 0.0),
        ({"kind": "numeric"}, "none", "3", 0.0),
        ({"kind": "numeric", "tolerance": 0.1}, "109", "100", 1.0),
        ({"kind": "numeric", "tolerance": 0}, "100.0", "100", 1.0),
        ({"kind": "numeric"}, "48/2=24, 24+48=72\n#### 72\n(2 steps)", "so\n#### 72", 1.0),
        ({"kind": "numeric"}, "72 in 2 steps", "#### 72", 0.0),
        ({"kind": "numeric"}, "\N{MINUS SIGN}72", "72", 0.0),
        ({"kind": "numeric"}, "0", "0.0000001", 0.0),
        ({"kind": "numeric", "tolerance": 0.1}, "0", "0.05", 0.0),
        ({"kind": "numeric"}, "0.0", "0", 1.0),
        ({"kind": "regex", "pattern": "yes"}, "oh yes, sir", "", 1.0),
        ({"kind": "regex", "pattern": "yes"}, "Yes", "", 0.0),
        ({"kind": "regex", "pattern": "yes", "ignore_case": True}, "Yes", "", 1.0),
        ({"kind": "regex", "pattern": "<a>(.*?)</a>"}, "<a>1</a> no, <a>the  cat</a>", "<a>the cat</a>", 1.0),
        ({"kind": "regex", "pattern": "<a>(.*?)</a>"}, "<a>the cat</a>", "the cat", 1.0),
        ({"kind": "regex", "pattern": "<a>(.*?)</a>"}, "the cat", "the cat", 0.0),
        ({"kind": "regex", "pattern": "<a>(.*?)</a>"}, "<a>The cat</a>", "the cat", 0.0),
        ({"kind": "regex", "pattern": "<a>(.*?)</a>", "ignore_case": True}, "<A>The cat</A>", "the cat", 1.0),
        ({"kind": "choice"}, "The answer is (B)", "B", 1.0),
        ({"kind": "choice"}, "**B**", "The answer is (B)", 1.0),
        ({"kind": "choice"}, "C", "B", 0.0),
        ({"kind": "choice"}, "", "B", 0.0),
        ({"kind": "alias"}, "The Beatles.", "beatles", 1.0),
        ({"kind": "alias"}, "the", "an", 0.0),
        ({"kind": "alias"}, "beatles and others", "beatles", 0.0),
    ],
)
def test_text_graders(spec: dict[str, Any], answer: str, reference: str, score: float) -> None:
    assert make_grader(spec)(Answer(answer), _said(reference)) == score


@pytest.mark.parametrize("number", ["1e999", "9" * 400, "-1e400", "#### " + "9" * 309 + ".5"])
def test_a_number_beyond_all_is_near_none(number: str) -> None:
    grade = make_grader({"kind": "numeric"})
    for answer in ("5", "none", number):
        with pytest.raises(UnknownGrader, match="beyond 1e308"):
            grade(Answer(answer), _said(number))
    assert grade(Answer(number), _said("5")) == 0.0


def test_a_catastrophic_pattern_counts_as_no_match() -> None:
    grade = make_grader({"kind": "regex", "pattern": "^(a+)+$"})
    assert grade(Answer("a" * 20), _said("a" * 20)) == 1.0
    assert grade(Answer("a" * 2000 + "b"), _said("a")) == 0.0


def test_choices_may_be_answered_by_their_text() -> None:
    grade = make_grader({"kind": "choice"})
    reference = Reference({"role": "assistant", "content": "B"}, {"choices": ["Rome", "Paris"]})
    assert grade(Answer("It is Paris."), reference) == 1.0
    assert grade(Answer("It is Rome."), reference) == 0.0
    assert grade(Answer("The answer is C"), reference) == 0.0
    with pytest.raises(UnknownGrader, match="finds no letter in the reference 'both'"):
        grade(Answer("B"), _said("both"))
    with pytest.raises(UnknownGrader, match="metadata.choices is 'AB'"):
        grade(Answer("B"), Reference({"role": "assistant", "content": "B"}, {"choices": "AB"}))


def test_aliases_are_right_answers_too() -> None:
    reference = Reference(
        {"role": "assistant", "content": "Sunset Boulevard"}, {"aliases": ["Sunset Blvd", "west sunset"]}
    )
    grade = make_grader({"kind": "alias"})
    assert grade(Answer("sunset blvd."), reference) == 1.0
    assert grade(Answer("Sunset"), reference) == 0.0
    for wrong in ("NYC", None, [1969]):
        with pytest.raises(UnknownGrader, match="metadata.aliases is .*; expected a list of texts"):
            grade(Answer("n"), Reference(reference.message, {"aliases": wrong}))


def test_code_is_graded_by_its_tests() -> None:
    grade = make_grader({"kind": "code", "timeout_seconds": 5})
    metadata = {"tests": "assert double(2) == 4"}
    reference = Reference({"role": "assistant", "content": ""}, metadata)
    assert grade(Answer("So:\n```python\ndef double(x):\n    return 2 * x\n```"), reference) == 1.0
    assert grade(Answer("```python\ndef double(x):\n    return x\n```"), reference) == 0.0
    assert grade(Answer(None), reference) == 0.0
    as_pytest = {"tests": "from solution import double\ndef test(): assert double(2) == 4", "test_form": "pytest"}
    assert grade(Answer("def double(x):\n    return 2 * x"), Reference(reference.message, as_pytest)) == 1.0
    assert grade(Answer("def double(x):\n    return x"), Reference(reference.message, as_pytest)) == 0.0
    with pytest.raises(UnknownGrader, match="metadata.tests is empty or missing"):
        grade(Answer("x"), _said(""))
    with pytest.raises(UnknownGrader, match="metadata.test_form is 'unittest'; expected 'script' or 'pytest'"):
        grade(Answer("x"), Reference(reference.message, {**metadata, "test_form": "unittest"}))
    with pytest.raises(UnknownGrader, match="metadata.prompt is 3"):
        grade(Answer("x"), Reference(reference.message, {**metadata, "prompt": 3}))


ACCEPTED = {"f": {"city": ["Paris", "Paris, France"], "days": [3], "unit": ["", "C"], "rate": [2.0], "on": [True]}}


@pytest.mark.parametrize(
    ("arguments", "matches"),
    [
        ({"city": "paris", "days": 3, "rate": 2.0, "on": True}, True),
        ({"city": "Paris France", "days": 3, "rate": 2, "on": True, "unit": "c"}, True),
        ({"city": "Rome", "days": 3, "rate": 2.0, "on": True}, False),
        ({"city": "Paris", "days": "3", "rate": 2.0, "on": True}, False),
        ({"city": "Paris", "days": 3.0, "rate": 2.0, "on": True}, False),
        ({"city": "Paris", "days": 3, "rate": 2.0, "on": 1}, False),
        ({"city": "Paris", "rate": 2.0, "on": True}, False),
        ({"city": "Paris", "days": 3, "rate": 2.0, "on": True, "extra": 1}, False),
        ({"city": "Paris", "days": 3, "rate": 2.0, "on": True, "unit": "F"}, False),
    ],
)
def test_arguments_are_compared_as_bfcl_does(arguments: dict[str, Any], matches: bool) -> None:
    assert call_matches({"name": "f", "arguments": arguments}, ACCEPTED) is matches
    assert not call_matches({"name": "g", "arguments": arguments}, ACCEPTED)


def test_nested_arguments() -> None:
    accepted = {"f": {"where": [{"city": ["Paris"], "zip": ["", "75001"]}], "ids": [[1, 2]]}}
    assert call_matches({"name": "f", "arguments": {"where": {"city": "paris"}, "ids": [1, 2]}}, accepted)
    assert not call_matches({"name": "f", "arguments": {"where": {"zip": "75001"}, "ids": [1, 2]}}, accepted)
    assert not call_matches({"name": "f", "arguments": {"where": {"city": "paris"}, "ids": [2, 1]}}, accepted)


def test_calls_are_graded_against_the_expert_where_no_answers_are_given() -> None:
    grade = make_grader({"kind": "function_call"})
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": "A"}'}}
    reference = Reference({"role": "assistant", "content": None, "tool_calls": [call, call]})
    right = {"name": "f", "arguments": {"x": "a"}}
    assert grade(Answer(None, (right, right)), reference) == 1.0
    assert grade(Answer(None, (right,)), reference) == 0.0
    assert grade(Answer(None, (right, right, right)), reference) == 0.0
    assert grade(Answer("f"), reference) == 0.0


@pytest.mark.parametrize(
    ("expert", "answer", "score"),
    [
        ({"filter": {"ids": [1, 2]}}, {"filter": {"ids": [1, 2]}}, 1.0),
        ({"filter": {"ids": []}}, {"filter": {"ids": []}}, 1.0),
        ({"o": [{"tags": ["a", "b"]}]}, {"o": [{"tags": ["A", "b"]}]}, 1.0),
        ({"o": [{"tags": ["a", "b"]}]}, {"o": [{"tags": ["a"]}]}, 0.0),
        ({"filter": {"ids": [1, 2]}}, {"filter": {"ids": 1}}, 0.0),
        ({"filter": {"ids": 1}}, {"filter": {}}, 0.0),
        ({"q": ""}, {}, 0.0),
        ({}, {"q": ""}, 0.0),
        ({"x": 2.0, "on": True}, {"x": 2, "on": True}, 1.0),
        ({"x": 2, "on": True}, {"x": 2.0, "on": 1}, 0.0),
    ],
)
def test_an_experts_values_stand_for_themselves_alone(
    expert: dict[str, Any], answer: dict[str, Any], score: float
) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": json.dumps(expert)}}
    reference = Reference({"role": "assistant", "content": None, "tool_calls": [call]})
    assert (
        make_grader({"kind": "function_call"})(Answer(None, ({"name": "f", "arguments": answer},)), reference) == score
    )


def test_calls_find_the_answers_that_leave_room_for_the_others() -> None:
    """The first call fits both; taken by the first that fits, the second would find none."""
    metadata = {"possible_answers": [{"f": {"x": [1, 2]}}, {"f": {"x": [1]}}]}
    calls = tuple({"name": "f", "arguments": {"x": x}} for x in (1, 2))
    grade = make_grader({"kind": "function_call"})
    assert grade(Answer(None, calls), Reference({"role": "assistant"}, metadata)) == 1.0
    assert grade(Answer(None, calls[1:] * 2), Reference({"role": "assistant"}, metadata)) == 0.0
    for wrong in ({"f": {"x": [1]}}, [{}], [{"f": {"x": 1}}], [{"f": None}], ["f"]):
        with pytest.raises(UnknownGrader, match=r"metadata.possible_answers .*; expected"):
            grade(Answer(None, calls), Reference({"role": "assistant"}, {"possible_answers": wrong}))


def test_every_expert_call_of_bfcl_is_right_by_its_own_grader() -> None:
    grade = make_grader({"kind": "function_call"})
    count = 0
    for category in ("simple_python", "live_simple", "multiple", "live_multiple"):
        for row in single_calls(category):
            function = row["messages"][-1]["tool_calls"][0]["function"]
            call = {"name": function["name"], "arguments": json.loads(function["arguments"])}
            assert grade(Answer(None, (call,)), Reference(row["messages"][-1], row["metadata"])) == 1.0, row
            count += 1
    assert count > 1800


def test_reasoning_gym_grades_its_own_answers() -> None:
    rows = list(reasoning_trajectories("family_relationships", size=5, seed=3))
    grade = make_grader({"kind": "reasoning_gym", "dataset": "family_relationships"})
    for row in rows:
        reference = Reference(row["messages"][-1], row["metadata"])
        assert grade(Answer(row["messages"][-1]["content"]), reference) == 1.0
        assert grade(Answer("nobody"), reference) < 1.0
    assert rows == list(reasoning_trajectories("family_relationships", size=5, seed=3))


def test_unknown_graders_are_named() -> None:
    with pytest.raises(
        UnknownGrader, match=r"'best' is not known; expected one of \['alias', 'choice', 'code', 'exact'"
    ):
        make_grader({"kind": "best"})
    with pytest.raises(UnknownGrader, match=r"does not take the options \['fuzzy'\]"):
        make_grader({"kind": "exact", "fuzzy": 1})
    with pytest.raises(
        UnknownGrader, match=r"missing a required argument: 'pattern'; expected pattern: str, ignore_case"
    ):
        make_grader({"kind": "regex"})
    with pytest.raises(UnknownGrader, match=r"\['x'\].*expected none"):
        make_grader({"kind": "choice", "x": 1})
    with pytest.raises(UnknownGrader, match=r"\['exact'\] is not known"):
        make_grader({"kind": ["exact"]})
    with pytest.raises(UnknownGrader, match="nothing"):
        make_grader({"kind": "reasoning_gym", "dataset": "nothing"})
    with pytest.raises(UnknownGrader, match="composite"):
        make_grader({"kind": "reasoning_gym", "dataset": "composite"})
    assert "likelihood" in grader_kinds()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "numeric", "tolerance": "0.1"}, r"'tolerance' is '0.1' \(str\); expected float"),
        ({"kind": "numeric", "tolerance": True}, r"'tolerance' is True \(bool\); expected float"),
        ({"kind": "numeric", "tolerance": None}, r"'tolerance' is None \(NoneType\); expected float"),
        ({"kind": "numeric", "tolerance": -1}, "'tolerance' is -1; expected 0 or more"),
        ({"kind": "numeric", "tolerance": float("nan")}, "'tolerance' is nan; expected 0 or more"),
        ({"kind": "exact", "ignore_case": 1}, r"'ignore_case' is 1 \(int\); expected bool"),
        ({"kind": "regex", "pattern": 3}, r"'pattern' is 3 \(int\); expected str"),
        ({"kind": "regex", "pattern": "(a"}, r"'pattern' is '\(a'.*expected a regular expression"),
        ({"kind": "regex", "pattern": "(?:(?:a{1000}){1000}){1000}"}, "'pattern' is .* stand for 1002002000 atoms"),
        ({"kind": "regex", "pattern": "a" * 3000}, "'pattern' is 3000 characters long; expected at most 2000"),
        ({"kind": "regex", "pattern": "(" * 999 + ")" * 999}, "'pattern' is .*; expected a regular expression"),
        ({"kind": "code", "timeout_seconds": 1000}, "'timeout_seconds' is 1000; expected more than 0, at most 120"),
        ({"kind": "code", "timeout_seconds": 0}, "'timeout_seconds' is 0"),
        ({"kind": "code", "memory_mib": 1.5}, r"'memory_mib' is 1.5 \(float\); expected int"),
        ({"kind": "code", "memory_mib": 1}, "'memory_mib' is 1; expected 64"),
        ({"kind": "reasoning_gym", "dataset": 7}, r"'dataset' is 7 \(int\); expected str"),
    ],
)
def test_wrong_values_of_options_are_named(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownGrader, match=f"grader '{spec['kind']}': option {message}"):
        make_grader(spec)


_CALLED = {"name": "go", "arguments": {"to": "B"}}
_CALL = {"id": "1", "type": "function", "function": {"name": "go", "arguments": '{"to": "B"}'}}
EXPERTS: dict[str, dict[str, Any]] = {
    "text": {"role": "assistant", "content": "B"},
    "call": {"role": "assistant", "content": None, "tool_calls": [_CALL]},
    "text and call": {"role": "assistant", "content": "B", "tool_calls": [_CALL]},
    "white space": {"role": "assistant", "content": " \n"},
}
ANSWERS = {
    "the text": Answer("B"),
    "another text": Answer("C"),
    "the call": Answer(None, (_CALLED,)),
    "another call": Answer(None, ({"name": "go", "arguments": {"to": "C"}},)),
    "the text and the call": Answer("B", (_CALLED,)),
    "the text and another call": Answer("B", ({"name": "stay", "arguments": {}},)),
    "silence": Answer(None),
    "white space": Answer(" \n"),
}
_METADATA = {
    "tests": "pass",
    "prompt": "def f():\n    pass\n",
    "entry": {"question": "", "answer": "B", "metadata": {}},
    "aliases": ["b"],
}
TEXT_GRADERS: list[dict[str, Any]] = [
    {"kind": "exact"},
    {"kind": "numeric"},
    {"kind": "regex", "pattern": ".*"},
    {"kind": "regex", "pattern": "(.*)"},
    {"kind": "choice"},
    {"kind": "alias"},
    {"kind": "code"},
    {"kind": "reasoning_gym", "dataset": "number_sorting"},
]


def test_the_table_below_has_every_kind() -> None:
    assert {spec["kind"] for spec in TEXT_GRADERS} == set(grader_kinds()) - {"likelihood", "function_call"}


@pytest.mark.parametrize("spec", TEXT_GRADERS, ids=lambda spec: f"{spec['kind']}{spec.get('pattern', '')}")
@pytest.mark.parametrize("expert", ["call", "text and call"])
def test_a_grader_of_texts_refuses_an_expert_that_calls(spec: dict[str, Any], expert: str) -> None:
    """Whatever is answered: neither is any call right, nor silence."""
    pytest.importorskip("reasoning_gym") if spec["kind"] == "reasoning_gym" else None
    reference = Reference(EXPERTS[expert], _METADATA)
    for answer in ANSWERS.values():
        with pytest.raises(UnknownGrader, match=f"grader '{spec['kind']}' judges text, and the expert's turn calls go"):
            make_grader(spec)(answer, reference)
    assert why_unfit(spec, reference.message)
    assert not why_unfit(spec, EXPERTS["text"])


@pytest.mark.parametrize("spec", TEXT_GRADERS, ids=lambda spec: f"{spec['kind']}{spec.get('pattern', '')}")
@pytest.mark.parametrize("expert", ["text", "white space"])
def test_a_grader_of_texts_counts_neither_calls_nor_silence(spec: dict[str, Any], expert: str) -> None:
    pytest.importorskip("reasoning_gym") if spec["kind"] == "reasoning_gym" else None
    if spec["kind"] == "choice" and expert == "white space":
        return  # it refuses a reference without a letter
    grade, reference = make_grader(spec), Reference(EXPERTS[expert], _METADATA)
    for name in ("the call", "another call", "the text and the call", "the text and another call", "silence"):
        assert grade(ANSWERS[name], reference) == 0.0, name
    assert grade(ANSWERS["white space"], reference) == 0.0
    if expert == "text" and spec["kind"] in ("exact", "regex", "choice", "alias"):
        assert grade(ANSWERS["the text"], reference) == 1.0


RIGHT = {
    "text": {"the text", "another text"},
    "white space": {"the text", "another text"},
    "call": {"the call", "the text and the call"},
    "text and call": {"the call", "the text and the call"},
}
"""By expert, what the grader of calls takes; the text beside a call is free, and where none is expected any text is."""


@pytest.mark.parametrize("expert", EXPERTS)
@pytest.mark.parametrize("possible", [False, True])
def test_the_grader_of_calls(expert: str, possible: bool) -> None:
    calls = EXPERTS[expert].get("tool_calls", ())
    metadata = {"possible_answers": [{"go": {"to": ["B"]}} for _ in calls]} if possible else {}
    grade = make_grader({"kind": "function_call"})
    right = {name for name, answer in ANSWERS.items() if grade(answer, Reference(EXPERTS[expert], metadata))}
    assert right == RIGHT[expert]
    assert not why_unfit({"kind": "function_call"}, EXPERTS[expert])
    assert not why_unfit({"kind": "likelihood"}, EXPERTS[expert])
