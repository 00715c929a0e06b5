"""Turns as the engine sampled them, read by training: nothing is spelled anew, and the ratio begins at 1."""

import math
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch

from memgen.backbone.loading import Backbone
from memgen.backbone.prompt_cache import PromptCache
from memgen.config import GrpoConfig
from memgen.generation.engine import generate
from memgen.generation.requests import GenerationRequest
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.training.forward import supervised_nll
from memgen.training.reward.recorded_groups import groups_of_trajectories
from memgen.training.reward.sampled_turns import MOST_IMPORTANCE, TrainedPolicy, sampled_turns
from memgen.training.weaver.update import make_parts
from tests.memgen.conftest import CONFIG, randomise

DRAWN = {
    "neutral": Sampling(8, 1.0, record=True, seed=1),
    "cool": Sampling(8, 0.7, record=True, seed=1),
    "hot": Sampling(8, 1.8, record=True, seed=1),
    "nucleus": Sampling(8, 1.0, 0.5, record=True, seed=1),
    "greedy": Sampling(8, 0.0, record=True),
    "penalised": Sampling(8, 1.0, record=True, seed=1, repetition_penalty=1.5, frequency_penalty=1.0),
    "biased": Sampling(8, 1.0, record=True, seed=1, logit_bias=((40, 8.0),), top_k=20),
}


@pytest.fixture
def host(backbone: Backbone) -> AdapterHost:
    host = AdapterHost(backbone)
    randomise(host.create("m", CONFIG, seed=1), seed=2)
    return host


def policy(host: AdapterHost, **changes: Any) -> TrainedPolicy:
    return replace(TrainedPolicy(host.backbone.revision, host.backbone.vocab_size), **changes)


def recorded(host: AdapterHost, sampling: Sampling, reward: float) -> dict[str, Any]:
    """A trajectory of one turn, as a recording has it; its words are not those of its tokens."""
    prompt = tuple(host.backbone.profile.prompt_ids([{"role": "user", "content": "hi"}], None))
    [answer] = generate(host, [GenerationRequest(prompt, sampling, "m")])
    assert answer.drawn is not None
    decisions = [{k: v for k, v in asdict(each).items() if k != "states"} for each in answer.decisions]
    drawn = answer.drawn.drawn_logprobs
    entry = {
        "base": f"tiny@{host.backbone.revision}",
        "prompt_kept": 0,
        "prompt_ids": list(prompt),
        "token_ids": list(answer.drawn.token_ids),
        "logprobs": list(answer.drawn.logprobs or ()),
        "drawn_logprobs": None if drawn is None else list(drawn),
        "decisions": decisions,
    }
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "\ufffd", "weight": 0}]
    return {"messages": messages, "tools": None, "reward": reward, "sampled": [entry]}


@pytest.mark.parametrize("sampling", DRAWN.values(), ids=DRAWN)
def test_the_ratio_of_an_unchanged_version_is_one(host: AdapterHost, sampling: Sampling) -> None:
    lines = [recorded(host, sampling, 1.0), recorded(host, replace(sampling, seed=7), 0.0)]
    found = groups_of_trajectories(host.backbone.profile, lines, max_tokens=500, policy=policy(host))
    assert (found.unfit_logprobs, found.skipped_weight, len(found.groups)) == (0, 0, 1)
    turns = [turn for rollout in found.groups[0].rollouts for turn in rollout.turns]
    assert [list(turn.token_ids) for turn in turns] == [line["sampled"][0]["token_ids"] for line in lines]
    prompts = PromptCache(host.backbone.decoder, 0)
    for part in make_parts(host, "m", None, list(found.groups), prompts, GrpoConfig()):
        nll, _ = supervised_nll(host, "m", part.examples, prompts, temperature=1.0)
        torch.testing.assert_close(part.sampled_logprobs, -nll.detach(), atol=2e-3, rtol=1e-3)


def test_what_was_drawn_is_what_the_sampler_used(host: AdapterHost) -> None:
    """One token is left to draw from, and it was drawn with certainty, whatever the model itself says of it."""
    entry = recorded(host, replace(DRAWN["cool"], top_k=1), 1.0)["sampled"][0]
    assert entry["drawn_logprobs"] == pytest.approx([0.0] * len(entry["token_ids"]), abs=1e-6)
    assert all(value < -0.01 for value in entry["logprobs"])
    hot, neutral = (recorded(host, DRAWN[name], 1.0)["sampled"][0] for name in ("hot", "neutral"))
    assert len(hot["drawn_logprobs"]) == len(hot["token_ids"])
    assert hot["drawn_logprobs"] != pytest.approx(hot["logprobs"])
    assert neutral["drawn_logprobs"] is None


def test_importance_is_bounded_and_one_where_nothing_was_moved(host: AdapterHost) -> None:
    neutral = sampled_turns(recorded(host, DRAWN["neutral"], 1.0), policy(host))[0]
    assert neutral.importance == ()
    entry: dict[str, Any] = recorded(host, DRAWN["cool"], 1.0)["sampled"][0]
    entry |= {"token_ids": [5, 6, 7], "logprobs": [math.log(0.2)] * 3}
    entry |= {"drawn_logprobs": [math.log(0.4), math.log(0.2), math.log(0.01)]}
    turn = sampled_turns({"sampled": [entry]}, policy(host))[0]
    assert turn.importance == pytest.approx((0.5, 1.0, MOST_IMPORTANCE))


def test_importance_weighs_what_a_token_teaches(host: AdapterHost) -> None:
    lines = [recorded(host, DRAWN["cool"], 1.0), recorded(host, replace(DRAWN["cool"], seed=7), 0.0)]
    found = groups_of_trajectories(host.backbone.profile, lines, max_tokens=500, policy=policy(host))
    prompts = PromptCache(host.backbone.decoder, 0)
    parts = make_parts(host, "m", None, list(found.groups), prompts, GrpoConfig())
    weighed = [part.importance for part in parts]
    assert all(
        values is not None and len(values) == len(part.sampled_logprobs)
        for values, part in zip(weighed, parts, strict=True)
    )


@pytest.mark.parametrize(
    "changes", [{"revision": "another"}, {"vocab_size": 3}], ids=["another base", "ids that are no tokens"]
)
def test_tokens_of_another_base_are_not_read(host: AdapterHost, changes: dict[str, Any]) -> None:
    assert sampled_turns(recorded(host, DRAWN["cool"], 1.0), policy(host, **changes)) == {}


def test_prompts_go_on_from_the_turn_before(host: AdapterHost) -> None:
    entry = recorded(host, DRAWN["neutral"], 1.0)["sampled"][0]
    second = {**entry, "prompt_kept": len(entry["prompt_ids"]) + 1, "prompt_ids": [9, 9]}
    turns = sampled_turns({"sampled": [entry, None, second]}, policy(host))
    assert list(turns) == [0, 2]
    assert turns[2].prompt_ids == (*entry["prompt_ids"], entry["token_ids"][0], 9, 9)


def test_turns_that_were_not_sampled_are_spelled(host: AdapterHost) -> None:
    line = recorded(host, DRAWN["neutral"], 1.0)
    line["messages"] += [{"role": "user", "content": "b"}, {"role": "assistant", "content": "two", "weight": 1}]
    line["sampled"].append(None)
    found = groups_of_trajectories(
        host.backbone.profile, [line, {**line, "reward": 0.0}], max_tokens=500, policy=policy(host)
    )
    one, two = found.groups[0].rollouts[0].turns
    assert list(one.token_ids) == line["sampled"][0]["token_ids"]
    assert host.backbone.tokenizer.decode(two.token_ids).startswith("two")


def test_another_temperature_of_the_training_knows_no_logprobs(host: AdapterHost) -> None:
    turn = sampled_turns(recorded(host, DRAWN["cool"], 1.0), policy(host, temperature=0.5))[0]
    assert (turn.logprobs, len(turn.token_ids) > 0) == ((), True)
