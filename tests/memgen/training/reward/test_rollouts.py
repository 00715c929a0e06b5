"""Rollouts by the engine, and their log probabilities computed again by the training forward."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from memgen.artifacts.artifact import load_artifact
from memgen.backbone.prompt_cache import PromptCache
from memgen.errors import ConfigError
from memgen.generation.episodes import PlaySettings
from memgen.generation.requests import Decision
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.tasks.graders import Reference
from memgen.tasks.task import Observation, SingleTurn
from memgen.text.answers import Answer
from memgen.training.examples import Example
from memgen.training.forward import supervised_nll
from memgen.training.layout import insertions_of
from memgen.training.reward.rollouts import Group, RolledTurn, example_of, places_of_step, roll_out, seed_of
from tests.memgen.conftest import SHAPES

SAMPLING = Sampling(24, temperature=1.0, trigger_temperature=1.0)


def length_of(answer: Answer, _: Reference) -> float:
    return float(len(answer.content or ""))


def questions(count: int) -> list[SingleTurn]:
    reference = Reference({"role": "assistant", "content": "x"})
    return [
        SingleTurn(f"q{n}", ({"role": "user", "content": f"say {n}" + "!" * n},), length_of, reference)
        for n in range(count)
    ]


class Counting:
    """An environment of three turns that asks for the next number, whatever is said, and rewards each with one."""

    item_id = "counting"
    tools = None
    expert = None
    max_turns = 3

    def open(self) -> "Counting":
        opened = Counting()
        opened.turn = 0
        return opened

    def reset(self) -> Observation:
        return Observation(({"role": "user", "content": "one"},))

    def step(self, answer: Answer) -> Observation:
        self.turn += 1
        return Observation(({"role": "user", "content": f"and {self.turn}"},), 1.0, done=self.turn == 3)

    def close(self) -> None:
        pass


def turns_of(groups: list[Group]) -> list[RolledTurn]:
    return [turn for group in groups for rollout in group.rollouts for turn in rollout.turns]


@SHAPES
@pytest.mark.parametrize("max_insertions", [0, 3])
@pytest.mark.parametrize("trigger", ["always", "head", "lora"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_training_forward_repeats_the_engines_logprobs(
    host: AdapterHost,
    random_artifact: Callable[..., Path],
    shape: dict[str, Any],
    max_insertions: int,
    trigger: str,
    temperature: float,
) -> None:
    """The golden test: wherever the trigger wove or did not, both read the same tokens and latents."""
    memory = load_artifact(host, "m", random_artifact(**shape, max_insertions=max_insertions, trigger=trigger))
    with torch.no_grad():
        for parameter in memory.trigger_head.parameters() if trigger != "always" else ():
            parameter.zero_()  # even odds
    prompts = PromptCache(host.backbone.decoder, 10**9)
    sampling = replace(SAMPLING, temperature=temperature)
    groups = roll_out(host, "m", questions(3), sampling, group_size=4, seed=1, settings=PlaySettings(prompts=prompts))
    turns = turns_of(groups)
    examples = [example_of(turn, memory.config) for turn in turns]
    nll, rows = supervised_nll(host, "m", examples, prompts, temperature=temperature)

    assert rows.tolist() == [n for n, turn in enumerate(turns) for _ in turn.token_ids]
    expected = torch.tensor([value for turn in turns for value in turn.logprobs])
    torch.testing.assert_close(-nll.detach(), expected, atol=2e-4, rtol=1e-4)
    # It would not hold with the memory left out, so the latents matter; nor, after skips, at the usual places.
    bare, _ = supervised_nll(host, None, examples, prompts, temperature=temperature)
    assert not torch.allclose(-bare, expected, atol=0.05)
    if trigger != "always":
        skipped = [0 not in e.insertions for e in examples]
        assert {True, False} == set(skipped)
        usual = [Example(e.prompt_ids, e.target_ids) for e in examples]
        elsewhere, _ = supervised_nll(host, "m", usual, prompts, temperature=temperature)
        assert not torch.allclose(-elsewhere.detach(), expected, atol=0.05)
    if max_insertions:
        assert any(max(e.insertions, default=0) > 0 for e in examples)


@SHAPES
def test_so_it_does_for_later_turns(
    host: AdapterHost, random_artifact: Callable[..., Path], shape: dict[str, Any]
) -> None:
    memory = load_artifact(host, "m", random_artifact(**shape, max_insertions=2))
    prompts = PromptCache(host.backbone.decoder, 10**9)
    turns = turns_of(
        roll_out(host, "m", [Counting()], SAMPLING, group_size=3, seed=4, settings=PlaySettings(prompts=prompts))
    )
    assert len(turns) == 9
    nll, _ = supervised_nll(host, "m", [example_of(turn, memory.config) for turn in turns], prompts)
    expected = torch.tensor([value for turn in turns for value in turn.logprobs])
    torch.testing.assert_close(-nll.detach(), expected, atol=2e-4, rtol=1e-4)


@SHAPES
def test_given_insertions_equal_the_usual_ones_if_they_are_the_same(
    host: AdapterHost, random_artifact: Callable[..., Path], shape: dict[str, Any]
) -> None:
    memory = load_artifact(host, "m", random_artifact(**shape, max_insertions=2))
    prompts = PromptCache(host.backbone.decoder, 0)
    usual = [Example((5, 6, 7, 8), (68, 11, 69, 12, 70, 2)), Example((9,), (71, 2))]
    placed = [replace(usual[0], insertions=(3, 0, 1)), replace(usual[1], insertions=(0, 1))]
    one, _ = supervised_nll(host, "m", usual, prompts)
    other, _ = supervised_nll(host, "m", placed, prompts)
    torch.testing.assert_close(one, other)
    with pytest.raises(ConfigError, match=r"insertions at \[2\]; an answer of 2 tokens has room from 0 on"):
        insertions_of(replace(usual[1], insertions=(0, 2)), memory.config, None)


def test_an_answer_that_ends_has_its_end_token(host: AdapterHost) -> None:
    turns = turns_of(roll_out(host, None, questions(4), replace(SAMPLING, max_new_tokens=200), group_size=4, seed=0))
    ended = [turn for turn in turns if turn.token_ids[-1] in host.backbone.stop_token_ids]
    assert len(ended) > 0
    assert all(len(turn.token_ids) == 200 for turn in turns if turn not in ended)
    assert all(len(turn.logprobs) == len(turn.token_ids) for turn in turns)
    assert all(not host.backbone.stop_token_ids & set(turn.token_ids[:-1]) for turn in turns)


def test_groups_hold_the_samples_of_an_item(host: AdapterHost) -> None:
    groups = roll_out(host, None, questions(3), SAMPLING, group_size=4, seed=0, settings=PlaySettings(batch_size=5))
    assert [[r.item_id for r in group.rollouts] for group in groups] == [["q0"] * 4, ["q1"] * 4, ["q2"] * 4]
    assert {r.task for group in groups for r in group.of_task("t").rollouts} == {"t"}
    for group in groups:
        assert len({r.turns[0].prompt_ids for r in group.rollouts}) == 1
        assert len({r.turns[0].token_ids for r in group.rollouts}) == 4
        assert group.rewards == tuple(r.reward for r in group.rollouts)


def test_rollouts_repeat_by_their_seed(host: AdapterHost, random_artifact: Callable[..., Path]) -> None:
    load_artifact(host, "m", random_artifact(max_insertions=3, trigger="head"))

    def tokens(seed: int, batch_size: int) -> list[tuple[int, ...]]:
        groups = roll_out(
            host, "m", questions(2), SAMPLING, group_size=3, seed=seed, settings=PlaySettings(batch_size=batch_size)
        )
        return [turn.token_ids for turn in turns_of(groups)]

    assert tokens(1, 6) == tokens(1, 4)
    assert tokens(1, 6) != tokens(2, 6)
    assert len({seed_of(1, n, m) for n in range(9) for m in range(9)}) == 81


def test_a_groups_prompt_is_read_once_and_later_turns_from_where_they_part(host: AdapterHost) -> None:
    prompts = PromptCache(host.backbone.decoder, 10**9)
    sampling = replace(SAMPLING, max_new_tokens=4)
    [group] = roll_out(host, None, [Counting()], sampling, group_size=3, seed=0, settings=PlaySettings(prompts=prompts))
    assert group.rewards == (3.0, 3.0, 3.0)
    assert [len(rollout.turns) for rollout in group.rollouts] == [3, 3, 3]
    first = len(group.rollouts[0].turns[0].prompt_ids) - 1
    assert prompts.reused_tokens >= 2 * first + 6 * first
    # Each turn draws anew.
    assert len({turn.token_ids for turn in turns_of([group])}) > 6


def test_another_distribution_is_refused(host: AdapterHost) -> None:
    for change in ({"top_p": 0.9}, {"top_k": 5}, {"repetition_penalty": 1.1}):
        with pytest.raises(ConfigError, match="rollouts are drawn from the model's own distribution"):
            roll_out(host, None, questions(1), replace(SAMPLING, **change), group_size=2, seed=0)


def test_where_the_engine_wove_in_counts_of_answer_tokens(
    random_artifact: Callable[..., Path], host: AdapterHost
) -> None:
    cache = load_artifact(host, "a", random_artifact(form="cache")).config
    embedding = load_artifact(host, "b", random_artifact(form="embedding")).config
    places = [(0, True), (2, False), (5, True)]

    def turn(first: int) -> RolledTurn:
        decisions = tuple(Decision(first + n, 0.5, invoked, 3 * invoked) for n, invoked in places)
        return RolledTurn((1, 2, 3, 4), tuple(range(8)), (), decisions)

    assert example_of(turn(3), cache).insertions == (0, 5)
    assert example_of(turn(4), embedding).insertions == (0, 5)
    assert example_of(RolledTurn((1,), (2,), (), ()), cache).insertions is None


def test_every_epoch_plays_every_item_once() -> None:
    drawn = [n for step in range(6) for n in places_of_step(6, 4, 5, step)]
    epochs = [drawn[n : n + 6] for n in range(0, 24, 6)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
