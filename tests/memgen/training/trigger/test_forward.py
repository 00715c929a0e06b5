"""The trigger asked again against the engine's record and the literal reference."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from memgen.artifacts.artifact import load_artifact
from memgen.backbone.loading import Backbone
from memgen.backbone.prompt_cache import PromptCache
from memgen.errors import ConfigError
from memgen.generation.engine import generate
from memgen.generation.requests import Decision, GenerationRequest
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.training.reward.rollouts import RolledTurn
from memgen.training.trigger.forward import read_points, recorded_decisions, trigger_logits
from tests import reference
from tests.memgen.conftest import SHAPES
from tests.reference_memory import ReferenceMemory

PROMPTS = [tuple(range(5, 5 + n)) for n in (1, 2, 7, 19)]
CUES: list[tuple[int, ...]] = [tuple(range(100, 109)), (), (70, 71, 72), tuple(range(80, 105))]
"""Unequal, and one prompt without."""
KINDS = pytest.mark.parametrize("kind", ["head", "lora"])


def roll(
    host: AdapterHost, *, samples: int = 3, prompts: PromptCache | None = None, cued: bool = False
) -> list[RolledTurn]:
    """Turns of the memory `m` with sampled decisions, and greedy tokens in every second."""
    requests = [
        GenerationRequest(
            prompt,
            Sampling(24, temperature=seed % 2, trigger_temperature=1.0, seed=seed),
            "m",
            cue_ids=cue if cued else (),
        )
        for prompt, cue in zip(PROMPTS, CUES, strict=True)
        for seed in range(samples)
    ]
    answers = generate(host, requests, prompts=prompts)
    return [
        RolledTurn(request.prompt_ids, (*answer.token_ids, 2), (), answer.decisions, request.cue_ids)
        for request, answer in zip(requests, answers, strict=True)
    ]


def recorded(turns: Sequence[RolledTurn]) -> torch.Tensor:
    return torch.tensor([decision.probability for turn in turns for decision in turn.decisions])


@KINDS
@SHAPES
@pytest.mark.parametrize("cued", [False, True], ids=["without-cues", "with-cues"])
@pytest.mark.parametrize("kept", [False, True], ids=["prompts-read-anew", "prompts-of-the-engine"])
def test_probabilities_are_those_the_engine_recorded(
    host: AdapterHost,
    backbone: Backbone,
    random_artifact: Callable[..., Path],
    kind: str,
    shape: dict[str, Any],
    kept: bool,
    cued: bool,
) -> None:
    memory = load_artifact(host, "m", random_artifact(**shape, trigger=kind, max_insertions=3, seed=2))
    with torch.no_grad():
        memory.trigger_head.weight.mul_(0.2)  # so that it says now this, now that
    prompts = PromptCache(backbone.decoder, 10**9) if kept else None
    turns = roll(host, samples=12, prompts=prompts, cued=cued)
    logits = trigger_logits(host, "m", read_points(host, "m", turns, prompts=prompts))

    torch.testing.assert_close(logits.softmax(dim=-1)[:, 1], recorded(turns), atol=2e-5, rtol=0)
    # What can go wrong did take part: several insertions in a turn, points behind each other, and different answers.
    assert max(sum(d.invoked for d in turn.decisions) for turn in turns) >= 3
    assert any(not d.invoked for turn in turns for d in turn.decisions[:-1])
    assert recorded(turns).std() > 0.02
    assert len({len(turn.decisions) for turn in turns}) > 2
    if cued:  # and what the cues say: without them the same turns are judged otherwise
        uncued = [replace(turn, cue_ids=()) for turn in turns]
        others = trigger_logits(host, "m", read_points(host, "m", uncued, prompts=prompts))
        assert bool((others - logits).abs().max() > 1e-3) == (kind == "head" or shape["form"] == "cache")


@KINDS
@SHAPES
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
def test_gradients_equal_the_reference(
    host: AdapterHost,
    backbone: Backbone,
    random_artifact: Callable[..., Path],
    kind: str,
    shape: dict[str, Any],
    checkpointing: bool,
) -> None:
    folder = random_artifact(**shape, trigger=kind, max_insertions=3, seed=2)
    memory = load_artifact(host, "m", folder)
    turns = roll(host, samples=1)
    decisions = recorded_decisions(turns, backbone.device)
    logits = trigger_logits(host, "m", read_points(host, "m", turns), checkpointing=checkpointing)
    torch.nn.functional.cross_entropy(logits, decisions, reduction="sum").backward()

    literal = ReferenceMemory(backbone.model, folder, backbone.tokenizer)
    for turn in turns:
        literal_nll(literal, backbone, turn).backward()
    for part in ("weight", "bias"):
        ours, theirs = getattr(memory.trigger_head, part).grad, literal.tensors[f"trigger_head.{part}"].grad
        assert ours.abs().sum() > 0
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)
    if memory.trigger is not None:
        expected = literal.lora_gradients("trigger")
        for name, pair in memory.trigger.factors.items():
            for factor, parameter in zip("AB", pair, strict=True):
                theirs = expected[f"base_model.model.{name}.lora_{factor}.weight"]
                assert parameter.grad.abs().sum() > 0
                torch.testing.assert_close(parameter.grad, theirs, atol=2e-4, rtol=2e-3)
    assert all(parameter.grad is None for parameter in memory.weaver_parameters())
    assert all(parameter.grad is None for parameter in backbone.model.parameters())


def literal_nll(memory: ReferenceMemory, backbone: Backbone, turn: RolledTurn) -> torch.Tensor:
    """Of the decisions of a turn: it is written token by token, and memory woven where the record says so."""
    context = reference.open_context(memory, backbone.model, list(turn.prompt_ids), [])
    tokens, losses = list(turn.token_ids), []
    for decision in turn.decisions:
        while context.position < decision.position:
            context.append(tokens.pop(0))
        logits = memory.linear("trigger_head", context.trigger_state())
        losses.append(-logits.log_softmax(dim=0)[int(decision.invoked)])
        if decision.invoked:
            context.weave("inference_queries" if len(losses) > 1 else "prompt_queries")
    return torch.stack(losses).sum()


def test_what_the_engine_read_can_be_trained_on(
    host: AdapterHost, backbone: Backbone, random_artifact: Callable[..., Path]
) -> None:
    """Its prompts are tensors of inference mode, which autograd refuses to save."""
    memory = load_artifact(host, "m", random_artifact(trigger="head", max_insertions=0, seed=2))
    prompts = PromptCache(backbone.decoder, 10**9)
    turns = roll(host, samples=1, prompts=prompts)
    assert prompts.reused_tokens == 0
    points = read_points(host, "m", turns, prompts=prompts)
    assert prompts.reused_tokens == sum(len(prompt) - 1 for prompt in PROMPTS)
    trigger_logits(host, "m", points)[:, 1].sum().backward()
    assert memory.trigger_head.weight.grad.abs().sum() > 0


@KINDS
def test_samples_that_read_the_same_are_read_once(
    host: AdapterHost,
    backbone: Backbone,
    random_artifact: Callable[..., Path],
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load_artifact(host, "m", random_artifact(trigger=kind, max_insertions=0, seed=2))
    turns = roll(host, samples=6)
    rows = []
    forward = backbone.decoder.forward
    monkeypatch.setattr(backbone.decoder, "forward", lambda e, *a, **k: (rows.append(len(e)), forward(e, *a, **k))[1])
    logits = trigger_logits(host, "m", read_points(host, "m", turns))
    assert len(logits) == 6 * len(PROMPTS)
    assert max(rows) <= len(PROMPTS)
    torch.testing.assert_close(logits.softmax(dim=-1)[:, 1], recorded(turns), atol=2e-5, rtol=0)


def test_turns_that_asked_nothing_are_passed_over(host: AdapterHost, random_artifact: Callable[..., Path]) -> None:
    load_artifact(host, "m", random_artifact(trigger="head", max_insertions=2, seed=2))
    [turn, *_] = roll(host, samples=1)
    silent = RolledTurn((5, 6), (7,), (), ())
    both = trigger_logits(host, "m", read_points(host, "m", [silent, turn, silent]))
    torch.testing.assert_close(both, trigger_logits(host, "m", read_points(host, "m", [turn])))
    with pytest.raises(ConfigError, match="no turn has a decision"):
        read_points(host, "m", [silent])


def test_what_can_not_be_learned_is_refused(host: AdapterHost, random_artifact: Callable[..., Path]) -> None:
    load_artifact(host, "m", random_artifact(trigger="always"))
    turn = RolledTurn((5, 6), (7,), (), (Decision(1, 1.0, True, 4),))
    with pytest.raises(ConfigError, match="the trigger of 'm' is 'always'; only 'lora' and 'head' are learned"):
        read_points(host, "m", [turn])
    load_artifact(host, "m", random_artifact(trigger="head"))
    for positions in [(0,), (1, 1), (2, 1), (1, 3)]:
        decisions = tuple(Decision(position, 0.5, False, 0) for position in positions)
        with pytest.raises(ConfigError, match="decisions stand at .* in a turn of 2 prompt tokens and 1 more"):
            read_points(host, "m", [RolledTurn((5, 6), (7,), (), decisions)])
