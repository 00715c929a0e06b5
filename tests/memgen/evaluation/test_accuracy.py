"""Scoring a suite with the tiny base."""

import math
from dataclasses import replace

import pytest
import torch

from memgen.errors import NothingToTrain, PromptTooLong
from memgen.evaluation.accuracy import item_of, score_suite
from memgen.memory.host import AdapterHost
from memgen.training.examples import build_examples
from tests import reference
from tests.memgen.conftest import CONFIG, conversations


def test_exact_scores_are_the_share_of_right_answers(host: AdapterHost) -> None:
    items = [item_of(c["messages"], None, {}) for c in conversations(5)]  # type: ignore[arg-type]
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
    [example] = build_examples(host.backbone.tokenizer, [conversation], max_tokens=500).examples
    scored = score_suite(host, None, [item_of(conversation["messages"], None, {})], {"kind": "likelihood"})  # type: ignore[arg-type]
    with torch.no_grad():
        loss = reference.loss(None, host.backbone.model, list(example.prompt_ids), list(example.target_ids))
    assert scored.score == pytest.approx(math.exp(-float(loss)), rel=1e-5)


@pytest.mark.parametrize("kind", ["likelihood", "exact"])
def test_an_item_that_does_not_fit_beside_the_memory_is_an_error(host: AdapterHost, kind: str) -> None:
    """Whatever the grader, rather than scored at positions that the base does not know."""
    host.create("m", replace(CONFIG, reread_tokens=600))
    long = [{"role": "user", "content": "word " * 100}, {"role": "assistant", "content": "yes"}]
    with pytest.raises(PromptTooLong, match="read again"):
        score_suite(host, "m", [item_of(long, None, {})], {"kind": kind})
    assert score_suite(host, None, [item_of(long, None, {})], {"kind": kind}).score >= 0


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
