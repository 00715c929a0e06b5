"""Scoring a task's items with the tiny base."""

from dataclasses import replace
from pathlib import Path

import pytest

from memgen.artifacts.artifact import load_artifact
from memgen.errors import NothingToTrain
from memgen.evaluation.accuracy import item_of, read_items, score_suite
from memgen.evaluation.episodes import score_task
from memgen.memory.host import AdapterHost
from memgen.tasks.graders import Reference, make_grader
from memgen.tasks.task import SingleTurn
from tests.memgen.conftest import conversations
from tests.memgen.generation.test_episodes import ScriptedItem, broken


def test_single_turns_score_as_in_a_suite(host: AdapterHost, artifacts: dict[str, Path]) -> None:
    load_artifact(host, "m", artifacts["yes"])
    suite = [item_of(c["messages"], None, {}) for c in conversations(4)]
    expected = score_suite(host, "m", suite, {"kind": "exact"})
    grade = make_grader({"kind": "exact"})
    # The base's own answer is the right one of the first item, so that not all are wrong.
    answer = Reference({"role": "assistant", "content": expected.items[0].answer})
    items = [SingleTurn(str(n), i.messages, grade, answer if n == 0 else i.reference) for n, i in enumerate(suite)]
    [budget] = {item.answer_budget for item in read_items(host, suite)}
    scored = score_task(host, "m", items, max_new_tokens=budget, batch_size=3)
    assert scored.suite.items == (replace(expected.items[0], score=1.0), *expected.items[1:])
    assert scored.suite.score == expected.score + 0.25


def test_turns_are_one_answer_and_their_decisions_counted(host: AdapterHost, artifacts: dict[str, Path]) -> None:
    load_artifact(host, "m", artifacts["yes"])
    scored = score_task(host, "m", [ScriptedItem("a", steps=2), ScriptedItem("b", steps=4)], max_new_tokens=3)
    assert [item.score for item in scored.suite.items] == [0.5, 1.0]
    assert scored.suite.score == 0.75
    assert [len(episode.turns) for episode in scored.episodes] == [2, 4]
    decisions = [d for e in scored.episodes for t in e.turns for d in t.generation.decisions]
    assert len(decisions) >= 6  # each prompt's end is one
    assert scored.invocations.invoked == sum(d.invoked for d in decisions) > 0
    assert scored.invocations.asked == len(decisions)
    assert score_task(host, None, [ScriptedItem("a")], max_new_tokens=3).invocations.rate is None


def test_no_items_are_refused(host: AdapterHost) -> None:
    with pytest.raises(NothingToTrain):
        score_task(host, None, [], max_new_tokens=3)


def test_an_item_that_nobody_can_play_is_left_out(host: AdapterHost) -> None:
    expert = Reference({"role": "assistant", "content": "both"})
    unfit = SingleTurn("u", ({"role": "user", "content": "A or B?"},), make_grader({"kind": "choice"}), expert)
    items = [broken("reset"), ScriptedItem("a", steps=2), broken("step"), unfit]
    scored = score_task(host, None, items, max_new_tokens=3).suite
    assert [item.left_out for item in scored.items] == [True, False, False, True]
    assert (scored.score, [item.score for item in scored.items]) == (0.375, [0.0, 0.5, 0.25, 0.0])
    assert scored.notes.keys() == {0, 2, 3}
