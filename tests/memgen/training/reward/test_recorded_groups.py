"""Groups for off-policy training out of uploaded trajectories."""

from typing import Any

import pytest

from memgen.backbone.loading import Backbone
from memgen.text.profile import BaseProfile
from memgen.training.reward.recorded_groups import groups_of_trajectories


@pytest.fixture
def profile(backbone: Backbone) -> BaseProfile:
    return backbone.profile


def conversation(question: str, *answers: str, reward: float | None = 1.0, **rest: Any) -> dict[str, Any]:
    messages = []
    for answer in answers:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "tools": None, "reward": reward, **rest}


def test_trajectories_of_one_prompt_become_a_group(profile: BaseProfile) -> None:
    found = groups_of_trajectories(
        profile,
        [
            conversation("a", "one", reward=1.0, trajectory_id="t1", task="letters"),
            conversation("b", "two", reward=0.5),
            conversation("a", "three", "four", reward=0.0, task="letters"),
            conversation("b", "five", reward=0.25),
        ],
        max_tokens=500,
    )
    assert [group.rewards for group in found.groups] == [(1.0, 0.0), (0.5, 0.25)]
    first, second = found.groups[0].rollouts
    assert (first.item_id, first.task, second.item_id, second.task) == ("t1", "letters", "2", "letters")
    assert [profile.tokenizer.decode(turn.token_ids) for turn in second.turns] == ["three<|im_end|>", "four<|im_end|>"]
    assert first.turns[0].prompt_ids == second.turns[0].prompt_ids
    assert profile.tokenizer.decode(second.turns[1].prompt_ids).endswith(
        "three<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
    )
    assert all(turn.logprobs == () and turn.decisions == () for turn in second.turns)


def test_other_tools_are_another_prompt(profile: BaseProfile) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    found = groups_of_trajectories(
        profile, [conversation("a", "one"), {**conversation("a", "two", reward=0.0), "tools": [tool]}], max_tokens=500
    )
    assert found.groups == ()
    assert found.skipped_alone == 2


def test_other_tasks_and_other_questions_behind_a_shared_opening_are_other_prompts(
    profile: BaseProfile,
) -> None:
    def opened(question: str, reward: float) -> dict[str, Any]:
        opening = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi", "weight": 0}]
        return {
            **conversation(question, "x", reward=reward),
            "messages": [*opening, *conversation(question, "x")["messages"]],
        }

    lines = [{**opened(question, reward), "task": "t"} for question in "ab" for reward in (1.0, 0.0)]
    found = groups_of_trajectories(profile, lines, max_tokens=500, shared_turns={"t": 1})
    assert [group.rewards for group in found.groups] == [(1.0, 0.0)] * 2
    two = [conversation("a", "x", reward=reward, task=task) for task in ("essay", "brief") for reward in (1.0, 0.2)]
    found = groups_of_trajectories(profile, two, max_tokens=500)
    assert [{rollout.task for rollout in group.rollouts} for group in found.groups] == [{"essay"}, {"brief"}]


def test_what_is_left_out_is_counted(profile: BaseProfile) -> None:
    unweighted = conversation("a", "one", "two")
    unweighted["messages"][1]["weight"] = 0
    found = groups_of_trajectories(
        profile,
        [
            conversation("a", "no reward", reward=None),
            unweighted,
            conversation("a", "x" * 500),
            conversation("a", "two", reward=0.0),
        ],
        max_tokens=300,
    )
    [group] = found.groups
    assert [len(rollout.turns) for rollout in group.rollouts] == [1, 1]
    assert (found.skipped_rewardless, found.skipped_weight, found.skipped_long, found.skipped_empty) == (1, 1, 1, 1)
    assert found.skipped_alone == 0
    assert found.flags == (found.too_long,)
    assert found.too_long.startswith(
        "1 of 3 turns were not learned: with their prompts they are longer than 300 tokens"
    )


def _openai(values: list[float]) -> list[dict[str, Any]]:
    return [{"token": "a", "logprob": value, "bytes": [97], "top_logprobs": []} for value in values]


@pytest.mark.parametrize(
    ("logprobs", "kept", "unfit"),
    [
        (None, [(), ()], 0),
        ([[-0.5] * 4, None], [(-0.5,) * 4, ()], 0),
        ([[-1] * 4, [0.0] * 3], [(-1.0,) * 4, (0.0,) * 3], 0),
        ([[-0.5] * 3, [-0.5] * 2], [(-0.5,) * 3, (-0.5,) * 2], 0),
        ([[-0.5] * 2, [-0.5] * 4], [(), ()], 2),
        ([[-0.5] * 5, []], [(), ()], 2),
        ([{"content": _openai([-0.5] * 3), "refusal": None}, None], [(-0.5,) * 3, ()], 0),
        ([_openai([-0.5] * 4), {"content": _openai([-0.25] * 3)}], [(-0.5,) * 4, (-0.25,) * 3], 0),
        ([{"content": None, "refusal": None}, {"content": _openai([-0.25] * 5)}], [(), ()], 1),
        ([{"content": [{"token": "a"}] * 3}, {"content": [3, None, "x"]}], [(), ()], 2),
        ([{}, {"content": {}}], [(), ()], 1),
        ([True, "x"], [(), ()], 2),
        ([[-0.5] * 4], [(-0.5,) * 4, ()], 0),
        ([[-0.5, -0.5, 0.5, -0.5]], [(), ()], 1),
        ([[-0.5, float("nan"), -0.5, -0.5]], [(), ()], 1),
        ({"0": []}, [(), ()], 2),
        ([[-9999.0, -0.5, -0.5, -0.5]], [(), ()], 1),
    ],
)
def test_logprobs_count_if_they_are_one_for_each_token(
    profile: BaseProfile, logprobs: object, kept: list[tuple[float, ...]], unfit: int
) -> None:
    """`one` and `no` are three and two tokens, and an end, which a chat does not log."""
    logged = conversation("a", "one", "no", metadata={"logprobs": logprobs})
    found = groups_of_trajectories(profile, [logged, conversation("a", "no", reward=0.0)], max_tokens=500)
    assert [turn.logprobs for turn in found.groups[0].rollouts[0].turns] == kept
    assert found.unfit_logprobs == unfit
