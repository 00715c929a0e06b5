"""From rewards to what each decision weighs."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from memgen.artifacts.artifact import load_artifact
from memgen.backbone.loading import Backbone
from memgen.backbone.prompt_cache import PromptCache
from memgen.config import MemoryConfig, TriggerConfig
from memgen.generation.requests import Decision
from memgen.memory.host import AdapterHost
from memgen.training.optimizing import ParameterGroup, Trainable
from memgen.training.reward.rollouts import Group, RolledTurn, Rollout
from memgen.training.trigger.update import ScoredGroup, make_parts, penalise, update


def turn(pattern: str, probability: float = 0.5) -> RolledTurn:
    """Five prompt tokens, a point at their end and at each token behind; `x` weaves."""
    decisions = tuple(
        Decision(4 + n, probability, mark == "x", 4 if mark == "x" else 0) for n, mark in enumerate(pattern)
    )
    return RolledTurn((5, 6, 7, 8, 9), (11, 12, 13), (), decisions)


def rollout(reward: float, *patterns: str) -> Rollout:
    return Rollout("item", "task", tuple(turn(pattern) for pattern in patterns), reward)


def test_the_price_is_that_of_the_whole_batch() -> None:
    """The median of 1, 1, 0, 0 is 0.5, the good ones weave at half of their points: an insertion costs 0.05."""
    right = Group((rollout(1.0, "x"), rollout(1.0, ".")))
    wrong = Group((rollout(0.0, "x"), rollout(0.0, ".", "x")))
    undecided = Group((rollout(1.0, ""), rollout(0.0)))
    scored = penalise([right, wrong], 0.1)
    assert scored[0].rewards == pytest.approx((0.95, 1.0))
    assert scored[1].rewards == pytest.approx((-0.05, -0.05))
    assert [group.can_be_learned_from for group in scored] == [True, False]
    assert not penalise([undecided], 0.1)[0].can_be_learned_from
    failed = Group((rollout(0.0, "xx"), rollout(0.0, ".")))
    assert penalise([failed, right], 0.1)[0].rewards == pytest.approx((-0.1, 0.0))
    assert not penalise([failed, right], 0.1)[0].can_be_learned_from, "no rollout shows that memory was needless"


@pytest.mark.parametrize(
    ("loss", "weights", "advantage"),
    [
        ("bnpo", [1 / 5] * 5, 0.7070),
        ("grpo", [1 / 8] * 4 + [1 / 2], 0.7070),
        ("dr_grpo", [1 / 8] * 5, 0.5),
    ],
)
def test_every_decision_of_a_rollout_has_its_advantage(
    host: AdapterHost,
    backbone: Backbone,
    random_artifact: Callable[..., Path],
    loss: str,
    weights: list[float],
    advantage: float,
) -> None:
    """Four decisions in two turns against one; `dr_grpo` divides by two rollouts times a budget of 1 + 3."""
    load_artifact(host, "m", random_artifact(trigger="head", max_insertions=3, seed=2))
    group = ScoredGroup((rollout(1.0, "x.", ".x"), rollout(0.0, ".")), (1.0, 0.0))
    prompts = PromptCache(backbone.decoder, 0)
    parts = make_parts(host, "m", [group], prompts, TriggerConfig(loss=loss, batch_size=2))
    assert [len(part.decisions) for part in parts] == [4, 1]
    assert torch.cat([part.decisions for part in parts]).tolist() == [1, 0, 0, 1, 0]
    assert torch.cat([part.weights for part in parts]).tolist() == pytest.approx(weights)
    expected = [advantage] * 4 + [-advantage]
    assert torch.cat([part.advantages for part in parts]).tolist() == pytest.approx(expected, abs=1e-3)
    assert torch.cat([part.sampled_logprobs for part in parts]).tolist() == pytest.approx([-0.6931] * 5, abs=1e-4)


def test_a_step_makes_the_better_decision_likelier_and_entropy_holds_it_back(
    host: AdapterHost, backbone: Backbone
) -> None:
    """From one half, by hand: the logits' gradient is the advantage times what the decision lacks of certainty."""
    group = ScoredGroup((rollout(1.0, "x"), rollout(0.0, ".")), (1.0, 0.0))
    biases = {}
    for coefficient in (0.0, 10.0):
        memory = host.create("m", MemoryConfig(trigger="head", latents=4, rank=4))
        with torch.no_grad():
            memory.trigger_head.bias[1] = 1e-3  # entropy has no slope at one half itself
        head = ParameterGroup("head", tuple(memory.trigger_head.parameters()), 1e-2)
        trainable = Trainable([head], lambda _: 1.0, max_grad_norm=1e9)
        config = TriggerConfig(entropy_coefficient=coefficient)
        parts = make_parts(host, "m", [group], PromptCache(backbone.decoder, 0), config)
        done = update(host, "m", trainable, parts, config)
        assert done.clip_share == 0.0
        biases[coefficient] = memory.trigger_head.bias.grad.tolist()
    # Each of both decisions: -weight * advantage * (1 - 1/2) = -0.5 * 0.707 * 0.5 on its own side of the bias.
    assert biases[0.0][1] == pytest.approx(-0.3535, abs=1e-3)
    assert biases[0.0][0] == pytest.approx(0.3535, abs=1e-3)
    # The entropy's slope at a margin of 0.001: coefficient * p * (1 - p) * margin = 10 * 0.25 * 0.001.
    assert biases[10.0][1] - biases[0.0][1] == pytest.approx(0.0025, abs=2e-4)
