"""Scoring a suite with the tiny base."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from memgen.artifacts.artifact import load_artifact
from memgen.backbone.prompt_cache import PromptCache
from memgen.errors import ChatTemplateError, NothingToTrain, SandboxUnavailable
from memgen.evaluation.accuracy import HeldOutItem, item_of, read_items, score_items, score_suite
from memgen.evaluation.grading import grade_answer
from memgen.generation import engine
from memgen.generation.decoding import Decoding
from memgen.generation.requests import GenerationRequest
from memgen.memory.host import AdapterHost
from memgen.tasks.graders import Reference
from memgen.text.answers import Answer
from memgen.text.profile import BaseProfile
from memgen.training.examples import build_examples
from tests import reference
from tests.memgen.conftest import CONFIG, conversations


def test_exact_scores_are_the_share_of_right_answers(host: AdapterHost) -> None:
    items = [item_of(c["messages"], None, {}) for c in conversations(5)]
    done: list[int] = []
    first = score_suite(host, None, items, {"kind": "exact"}, batch_size=2, on_done=done.append)
    assert done == [2, 4, 5]
    assert all(item.answer for item in first.items)

    # With its own answers as references, the base is always right.
    echoed = [
        item_of([*item.messages, {"role": "assistant", "content": scored.answer}], None, {})
        for item, scored in zip(items, first.items, strict=True)
    ]
    echoes = score_suite(host, None, echoed, {"kind": "likelihood"})
    assert 0 < echoes.score < 1


def test_likelihood_is_the_geometric_mean_probability(host: AdapterHost) -> None:
    conversation = conversations(1)[0]
    [example] = build_examples(host.backbone.profile, [conversation], max_tokens=500).examples
    scored = score_suite(host, None, [item_of(conversation["messages"], None, {})], {"kind": "likelihood"})
    with torch.no_grad():
        loss = reference.loss(None, host.backbone.model, list(example.prompt_ids), list(example.target_ids))
    assert scored.score == pytest.approx(math.exp(-float(loss)), rel=1e-5)


def _item(question: str, answer: str, **metadata: Any) -> HeldOutItem:
    return item_of([{"role": "user", "content": question}, {"role": "assistant", "content": answer}], None, metadata)


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> list[GenerationRequest]:
    """The requests that are answered, in the order in which they join those that are decoded."""
    seen: list[GenerationRequest] = []

    class Noted(Decoding):
        def __init__(self, host: AdapterHost, *, prompts: PromptCache, **options: Any) -> None:
            assert prompts.reused_tokens == 0, "nobody's prompts are known from before"
            super().__init__(host, prompts=prompts, **options)

        def add(self, request: GenerationRequest, **options: Any) -> int:
            seen.append(request)
            return super().add(request, **options)

    monkeypatch.setattr(engine, "Decoding", Noted)
    return seen


@pytest.mark.parametrize("kind", ["likelihood", "exact"])
def test_an_item_that_does_not_fit_beside_the_memory_is_left_out_for_it(host: AdapterHost, kind: str) -> None:
    """Whatever the grader, rather than scored at positions that the base does not know."""
    host.create("m", replace(CONFIG, reread_tokens=600))
    items = [_item("short", "yes"), _item("word " * 100, "yes")]
    woven = score_suite(host, "m", items, {"kind": kind})
    assert [item.left_out for item in woven.items] == [False, True]
    assert "room for 0 new tokens; the expert's answer has 4" in woven.notes[1]
    assert woven.score == woven.items[0].score
    assert woven.items[0].score == pytest.approx(score_suite(host, "m", items[:1], {"kind": kind}).score, rel=1e-4)
    assert not score_suite(host, None, items, {"kind": kind}).notes


@pytest.mark.parametrize("kind", ["likelihood", "exact"])
def test_an_item_that_fits_nobody_is_left_out_for_all(host: AdapterHost, kind: str) -> None:
    host.create("m", CONFIG)
    longest = host.backbone.max_tokens
    items = [_item("short", "yes"), _item("x" * (longest + 1), "yes"), _item("q", "a" * (longest + 1))]
    for memory in (None, "m"):
        scored = score_suite(host, memory, items, {"kind": kind})
        assert [item.left_out for item in scored.items] == [False, True, True]
        assert all(f"the base reads {longest}" in note for note in scored.notes.values())


def test_each_answer_has_a_budget_of_its_own(host: AdapterHost, joined: list[GenerationRequest]) -> None:
    """The longest reference was everybody's budget, with which long prompts did not fit."""
    longest = host.backbone.max_tokens
    items = [_item("a" * (longest - 60), "yes"), _item("q", "b" * (longest - 60)), _item("r", "c" * 40)]
    scored = score_suite(host, None, items, {"kind": "exact"})
    assert not scored.notes
    read = read_items(host, items)
    budgets = {request.prompt_ids: request.sampling.max_new_tokens for request in joined}
    assert budgets[read[0].prompt_ids] == len(read[0].target_ids) + 1 + 8
    assert budgets[read[1].prompt_ids] == longest - len(read[1].prompt_ids), "what room there is"
    assert budgets[read[2].prompt_ids] == 41 + 10 + 8


def test_an_item_that_the_template_refuses_is_left_out(host: AdapterHost, monkeypatch: pytest.MonkeyPatch) -> None:
    turn_ids = BaseProfile.turn_ids

    def refusing(profile: BaseProfile, messages: Any, tools: Any = None) -> Any:
        if messages[0]["content"] == "refused":
            raise ChatTemplateError("roles must alternate")
        return turn_ids(profile, messages, tools)

    monkeypatch.setattr(BaseProfile, "turn_ids", refusing)
    scored = score_suite(host, None, [_item("refused", "a"), _item("b", "b")], {"kind": "exact"})
    assert [item.left_out for item in scored.items] == [True, False]
    assert scored.notes == {0: "the base can't read it: roles must alternate"}


def test_a_reference_that_the_grader_refuses_is_left_out(host: AdapterHost) -> None:
    """And so it is for every subject, whatever it answers."""
    items = [_item("a", "both"), _item("b", "B"), _item("c", "C", choices="no list")]
    scored = score_suite(host, None, items, {"kind": "choice"})
    assert [item.left_out for item in scored.items] == [True, False, True]
    assert "finds no letter in the reference 'both'" in scored.notes[0]


def test_a_suite_of_which_nothing_can_be_judged_scores_0(host: AdapterHost) -> None:
    done: list[int] = []
    scored = score_suite(host, None, [_item("x" * 5000, "y")] * 3, {"kind": "exact"}, on_done=done.append)
    assert (scored.score, len(scored.notes), done) == (0.0, 3, [3])


def test_an_answer_that_the_grader_stumbles_over_is_wrong() -> None:
    """Left out, it would be an answer that nobody holds against the model."""

    def grade(answer: Answer, reference: Reference) -> float:
        return 1 / (answer.content != "crash")

    expert = Reference({"role": "assistant", "content": "x"})
    assert grade_answer(grade, "x", expert).score == 1.0
    stumbled = grade_answer(grade, "crash", expert)
    assert (stumbled.score, stumbled.left_out, stumbled.note) == (0.0, False, "its grading failed: division by zero")
    assert grade_answer(grade, "x", Reference({"role": "assistant", "content": "crash"})).score == 1.0
    assert grade_answer(grade, "crash", Reference({"role": "assistant", "content": "crash"})).left_out


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -0.1, 1.1])
def test_a_score_out_of_range_is_the_graders_fault(score: float) -> None:
    found = grade_answer(lambda answer, reference: score, "x", Reference({"role": "assistant", "content": "x"}))
    assert (found.score, found.left_out) == (0.0, True)
    assert f"the grader's score is {score}" in found.note


def test_what_concerns_all_items_is_an_error() -> None:
    def grade(answer: Answer, reference: Reference) -> float:
        raise SandboxUnavailable("no namespaces here")

    with pytest.raises(SandboxUnavailable):
        grade_answer(grade, "x", Reference({"role": "assistant", "content": "x"}))


def test_who_is_answered_beside_whom_follows_from_the_suite(
    host: AdapterHost, joined: list[GenerationRequest], artifacts: dict[str, Path]
) -> None:
    """Whatever the subject, how a router chose, and whom an item does not fit: in bfloat16 company changes answers."""
    for name, folder in artifacts.items():
        load_artifact(host, name, folder)
    host.create("wide", replace(CONFIG, reread_tokens=600))
    items = read_items(host, [_item("q" * n, "yes") for n in (5, 500, 3, 9, 700, 1, 7, 2000)])
    orders = []
    mixed = ["yes", None, "no", "yes", None, "no", "no", "yes"]
    for memories in ([None] * 8, ["yes"] * 8, mixed, ["wide"] * 8, [None] * 8):
        joined.clear()
        score_items(host, memories, items, {"kind": "exact"}, batch_size=3)
        orders.append([request.prompt_ids for request in joined])
    assert len(orders[0]) == 7
    assert all(order == orders[0] for order in orders)


def test_the_last_supervised_turn_is_the_reference() -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "one"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "two", "weight": 0},
    ]
    item = item_of(messages, None, {"k": 1})
    assert (item.messages, item.reference.message["content"]) == (tuple(messages[:1]), "one")
    with pytest.raises(NothingToTrain):
        item_of(messages[2:], None, {})
