"""Pairs, given insights, and what the base writes about a pair."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from memgen.errors import ConfigError
from memgen.experience.insights import Pair, pairs_of, written_insights
from memgen.experience.pool import Insight, PastTrajectory, merged_insights
from memgen.generation.distil import Distilled, distil
from memgen.generation.requests import Generation, GenerationRequest, Timings
from memgen.memory.host import AdapterHost

GOOD = PastTrajectory("good", "sums", "2 + 3?", "five", 1.0)
BAD = PastTrajectory("bad", "sums", "2 +  3?", "six", 0.0)
OTHER_GOOD, OTHER_BAD = (replace(t, entry_id=f"{t.entry_id}-2", prompt="4 + 4?") for t in (GOOD, BAD))


def test_pairs_are_the_worst_failure_and_the_best_success_of_a_prompt() -> None:
    middling = replace(GOOD, entry_id="middling", reward=0.5)
    alone = replace(GOOD, entry_id="alone", prompt="9 + 9?")
    foreign = replace(BAD, entry_id="foreign", task="other")
    worse = replace(BAD, entry_id="worse", reward=-1.0)
    assert pairs_of([BAD, foreign, worse], [middling, GOOD, alone]) == (Pair(worse, GOOD),)
    assert pairs_of([replace(GOOD, entry_id="again")], [GOOD]) == (), "a failure that earned as much"
    assert pairs_of([], [middling, GOOD]) == (), "successes of two kinds are no failure"


def test_a_pair_is_of_one_prompt_and_two_rewards() -> None:
    with pytest.raises(ConfigError, match="'bad-2' and 'good' are not of one prompt"):
        Pair(OTHER_BAD, GOOD)
    with pytest.raises(ConfigError, match=r"failure 'good' has reward 1.0, success 'bad' has 0.0"):
        Pair(GOOD, BAD)


def test_written_insights_keep_their_order_without_repeats() -> None:
    found = written_insights("sums", ["Carry the ten.", " ", "Check twice.", "carry  the ten."])
    assert [insight.text for insight in found] == ["Carry the ten.", "Check twice."]
    assert {insight.prompts for insight in found} == {()}
    assert found[0].entry_id != written_insights("other", ["Carry the ten."])[0].entry_id


def test_what_somebody_wrote_comes_first_then_what_most_prompts_led_to() -> None:
    [written] = written_insights("sums", ["Carry the ten."])
    rare = Insight("rare", "sums", "Guess.", ("9?",), ("a", "b"))
    often = Insight("often", "sums", "Check.", ("1?", "2?"), ("c", "d"))
    again = Insight("rare", "sums", "guess.", ("9?", "8?", "7?"), ("b", "e"))
    assert merged_insights([rare, often, written]) == (written, often, rare)
    both = replace(rare, prompts=("9?", "8?", "7?"), sources=("a", "b", "e"))
    assert merged_insights([rare, often, written, again]) == (written, both, often)


def test_the_base_is_asked_about_each_pair(host: AdapterHost) -> None:
    prompts: list[str] = []
    answers = iter(["1. Check twice.\nMore talk.", "\n- check  TWICE.", "Rule: add slowly.", "  \n42"])

    def answer(_: AdapterHost, requests: Sequence[GenerationRequest], **__: object) -> list[Generation]:
        assert {request.memory for request in requests} == {None}
        prompts.extend(host.backbone.tokenizer.decode(request.prompt_ids) for request in requests)
        return [Generation((), next(answers), "stop", (), 1, Timings()) for _ in requests]

    third, fourth = (Pair(replace(BAD, prompt=p), replace(GOOD, prompt=p)) for p in ("7?", "8?"))
    too_long = Pair(replace(BAD, answer="x" * 2000), GOOD)
    found = distil(host, [Pair(BAD, GOOD), Pair(OTHER_BAD, OTHER_GOOD), too_long, third, fourth], generate=answer)

    assert [(i.text, i.prompts, i.sources) for i in found.insights] == [
        ("Check twice.", ("2 + 3?", "4 + 4?"), ("bad", "good", "bad-2", "good-2")),
        ("add slowly.", ("7?",), ("bad", "good")),
    ]
    assert (found.skipped_long, found.skipped_empty) == (1, 1)
    assert "Failed attempt (reward 0):\nsix\n\nSuccessful attempt (reward 1):\nfive\n" in prompts[0]
    assert prompts[0].endswith("assistant\n")


def test_a_real_base_writes_something(host: AdapterHost) -> None:
    """The tiny base writes noise; what counts is that each pair is accounted for."""
    pairs = [Pair(BAD, GOOD), Pair(OTHER_BAD, OTHER_GOOD)]
    found = distil(host, pairs, max_new_tokens=8)
    assert isinstance(found, Distilled)
    assert sum(len(insight.prompts) for insight in found.insights) + found.skipped_empty == 2
    assert found.skipped_long == 0
