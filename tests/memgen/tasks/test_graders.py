"""Graders with hand-made answers."""

import json
from typing import Any

import pytest

from memgen.chat import Answer
from memgen.errors import UnknownGrader
from memgen.tasks.bfcl import single_calls
from memgen.tasks.function_calls import call_matches
from memgen.tasks.graders import Reference, grader_kinds, make_grader
from memgen.tasks.reasoning import reasoning_trajectories


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
    ],
)
def test_text_graders(spec: dict[str, Any], answer: str, reference: str, score: float) -> None:
    assert make_grader(spec)(Answer(answer), _said(reference)) == score


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
    with pytest.raises(UnknownGrader, match=r"'best' is not known; expected one of \['exact'"):
        make_grader({"kind": "best"})
    with pytest.raises(UnknownGrader, match=r"does not take the options \['fuzzy'\]"):
        make_grader({"kind": "exact", "fuzzy": 1})
    with pytest.raises(UnknownGrader, match="no dataset 'nothing'"):
        make_grader({"kind": "reasoning_gym", "dataset": "nothing"})
    assert "likelihood" in grader_kinds()
