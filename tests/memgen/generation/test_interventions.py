"""Latents that do not stay, and decisions that no trigger makes: against the literal reference, and by their sense."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from memgen.artifacts.artifact import load_artifact
from memgen.backbone.loading import Backbone
from memgen.errors import ConfigError
from memgen.generation.engine import generate
from memgen.generation.interventions import Intervention
from memgen.generation.requests import Generation, GenerationRequest
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.memory.weights import Memory
from tests import reference
from tests.memgen.conftest import SHAPES
from tests.reference_memory import ReferenceMemory

PROMPTS = [tuple(range(5, 5 + n)) for n in (1, 2, 7, 19)]
GREEDY = Sampling(max_new_tokens=24)
Keep = Callable[[int, Tensor], Sequence[bool]]


def first_two(_: int, latents: Tensor) -> list[bool]:
    return [place < 2 for place in range(len(latents))]


def all_but_the_first(_: int, latents: Tensor) -> list[bool]:
    return [place > 0 for place in range(len(latents))]


def every_other(number: int, latents: Tensor) -> list[bool]:
    return [(place + number) % 2 == 0 for place in range(len(latents))]


def by_what_they_are(_: int, latents: Tensor) -> list[bool]:
    return [bool(one) for one in latents[:, 0] > 0]


def none(_: int, latents: Tensor) -> list[bool]:
    return [False] * len(latents)


def every_one(_: int, latents: Tensor) -> list[bool]:
    return [True] * len(latents)


RULES = [first_two, all_but_the_first, every_other, by_what_they_are, none, every_one]


class KeepingCache(reference.CacheContext):
    """Latents that do not stay are taken out of the cache; the others' positions are as they were."""

    keep: Keep

    def _encode(self, end: int) -> tuple[DynamicCache, list[tuple[Tensor, Tensor]]]:
        cache, states, start, position = DynamicCache(), [], 0, 0
        for number, (place, queries) in enumerate([*self.insertions, (end, None)]):
            if place > start:
                tokens = reference.ids(self.base, self.tokens[start:place])
                positions = torch.arange(position, position + place - start)[None]
                inputs = {"input_ids": tokens, "position_ids": positions, "past_key_values": cache, "use_cache": True}
                states.append(reference.run(self.base, **inputs))
                position += place - start
            if queries is not None:
                count = len(self.memory.queries(queries))
                position += self._weave_some(cache, number, self._woven(place, queries), count, position)
            start = place
        return cache, states

    def _weave_some(self, cache: DynamicCache, number: int, woven: Tensor, count: int, position: int) -> int:
        """Returns how many positions are taken."""
        seen, whole = copy.deepcopy(cache), len(woven)
        positions = torch.arange(position, position + whole)[None]
        inputs = {"inputs_embeds": woven[None], "position_ids": positions, "past_key_values": seen, "use_cache": True}
        hidden, _ = reference.run(self.memory.weaver_lora, **inputs)
        stays = [True] * (whole - count) + list(self.keep(number, hidden[-count:]))
        kept = [place for place, stay in enumerate(stays) if stay]
        for layer_number, layer in enumerate(seen.layers):
            keys, values = layer.keys[:, :, -whole:], layer.values[:, :, -whole:]
            cache.update(keys[:, :, kept], values[:, :, kept], layer_number)
        return kept[-1] + 1 if kept else 0


class KeepingEmbeddings(reference.EmbeddingContext):
    """Latents that do not stay are not put into the context."""

    keep: Keep

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.number = 0

    def weave(self, queries: str) -> None:
        before = len(self.embeddings)
        super().weave(queries)
        latents = self.embeddings[before:]
        stays = torch.tensor(list(self.keep(self.number, latents)))
        self.embeddings = torch.cat([self.embeddings[:before], latents[stays]])
        self.predicting[-1] = len(self.embeddings) - 1
        self.number += 1


CUE = (60, 61, 62)


def answers(host: AdapterHost, intervention: Intervention, cue: tuple[int, ...] = ()) -> list[Generation]:
    requests = [GenerationRequest(prompt, GREEDY, "m", True, cue, intervention) for prompt in PROMPTS]
    return generate(host, requests)


@SHAPES
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("max_insertions", [0, 5])
def test_what_stays_is_all_that_is_seen(
    host: AdapterHost,
    backbone: Backbone,
    random_artifact: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    shape: dict[str, Any],
    rule: Keep,
    max_insertions: int,
) -> None:
    """Tokens of unequal prompts in one batch are those of a literal loop that takes the latents out of its context."""
    folder = random_artifact(**shape, max_insertions=max_insertions)
    load_artifact(host, "m", folder)
    literal = ReferenceMemory(backbone.model, folder, backbone.tokenizer)
    found = answers(host, Intervention(keep=rule))
    for name, form in (("CacheContext", KeepingCache), ("EmbeddingContext", KeepingEmbeddings)):
        monkeypatch.setattr(form, "keep", staticmethod(rule), raising=False)
        monkeypatch.setattr(reference, name, form)
    for prompt, answer in zip(PROMPTS, found, strict=True):
        expected = reference.generate(
            literal, backbone.model, list(prompt), 24, backbone.stop_token_ids, backbone.tokenizer
        )
        assert list(answer.token_ids) == expected.tokens
        for number, decision in enumerate(answer.insertions):
            assert decision.states is not None
            assert decision.latents == len(decision.states)
            if rule is by_what_they_are:
                assert bool((decision.states[:, 0] > 0).all())
            elif rule is not every_one:
                assert decision.latents < (3 if number else 4)


@SHAPES
@pytest.mark.parametrize("cue", [(), CUE], ids=["uncued", "cued"])
def test_keeping_all_is_the_memory_itself(
    host: AdapterHost, random_artifact: Callable[..., Path], shape: dict[str, Any], cue: tuple[int, ...]
) -> None:
    load_artifact(host, "m", random_artifact(**shape, max_insertions=3))
    kept, plain = answers(host, Intervention(keep=every_one), cue), answers(host, Intervention(), cue)
    assert [a.token_ids for a in kept] == [a.token_ids for a in plain]
    assert [a.decisions for a in kept] == [a.decisions for a in plain]


@pytest.mark.parametrize("form", ["cache", "embedding"])
def test_keeping_none_is_the_bare_base(host: AdapterHost, random_artifact: Callable[..., Path], form: str) -> None:
    load_artifact(host, "m", random_artifact(form=form, max_insertions=3))
    bare = generate(host, [GenerationRequest(prompt, GREEDY) for prompt in PROMPTS])
    assert [a.token_ids for a in answers(host, Intervention(keep=none))] == [a.token_ids for a in bare]
    assert [a.token_ids for a in answers(host, Intervention())] != [a.token_ids for a in bare]


@SHAPES
def test_keeping_the_first_is_weaving_with_fewer_queries(
    host: AdapterHost, random_artifact: Callable[..., Path], shape: dict[str, Any]
) -> None:
    load_artifact(host, "m", random_artifact(**shape, max_insertions=3))
    memory = host.memories["m"]
    fewer = host.create("fewer", replace(memory.config, latents=2, inference_latents=2))
    with torch.no_grad():
        for theirs, ours in zip(memory.every_parameter(), fewer.every_parameter(), strict=True):
            ours.copy_(theirs[: len(ours)] if theirs.dim() else theirs)
    kept = answers(host, Intervention(keep=first_two))
    few = generate(host, [GenerationRequest(prompt, GREEDY, "fewer") for prompt in PROMPTS])
    assert [a.token_ids for a in kept] == [a.token_ids for a in few]
    assert [a.decisions for a in kept] == [a.decisions for a in few]


def test_answers_beside_it_do_not_change(host: AdapterHost, random_artifact: Callable[..., Path]) -> None:
    """A row whose latents are hidden shares its cache and its passes with rows whose are not."""
    load_artifact(host, "m", random_artifact(max_insertions=4))
    load_artifact(host, "e", random_artifact(form="embedding", max_insertions=4))
    interventions = [Intervention(), Intervention(keep=every_other), Intervention(keep=none)]
    requests = [
        GenerationRequest(prompt, GREEDY, memory, intervention=intervention)
        for prompt in PROMPTS
        for memory in (None, "m", "e")
        for intervention in interventions
    ]
    together = generate(host, requests)
    alone = [generate(host, [request])[0] for request in requests]
    assert [a.token_ids for a in together] == [a.token_ids for a in alone]
    assert [a.decisions for a in together] == [a.decisions for a in alone]


def decided(answer: Generation) -> list[bool]:
    return [decision.invoked for decision in answer.decisions]


@pytest.mark.parametrize("form", ["cache", "embedding"])
@pytest.mark.parametrize("trigger", ["lora", "head"])
def test_decisions_can_be_made_in_place_of_the_trigger(
    host: AdapterHost, random_artifact: Callable[..., Path], form: str, trigger: str
) -> None:
    load_artifact(host, "m", random_artifact(form=form, trigger=trigger, max_insertions=3))
    by_trigger = answers(host, Intervention(decide=lambda _: None))
    assert [a.decisions for a in by_trigger] == [a.decisions for a in answers(host, Intervention())]
    never = answers(host, Intervention(decide=lambda _: False))
    bare = generate(host, [GenerationRequest(prompt, GREEDY) for prompt in PROMPTS])
    assert [a.token_ids for a in never] == [a.token_ids for a in bare]
    assert not any(yes for a in never for yes in decided(a))
    always = answers(host, Intervention(decide=lambda _: True))
    assert all(sum(decided(a)[1:]) <= 3 and decided(a)[0] for a in always)
    assert any(len(decided(a)) > 1 for a in always)
    inside = answers(host, Intervention(decide=lambda point: None if point else False))
    assert not any(decided(a)[0] for a in inside)
    freely = [d.probability for a in inside for d in a.decisions[1:]]
    assert freely
    assert all(0 < p < 1 for p in freely), "the trigger's own"


@SHAPES
def test_a_smaller_budget_is_that_of_another_config(
    host: AdapterHost, random_artifact: Callable[..., Path], shape: dict[str, Any]
) -> None:
    folder = random_artifact(**shape, max_insertions=4)
    load_artifact(host, "m", folder)
    load_artifact(host, "less", folder)
    less: Memory = host.memories["less"]
    for budget in (0, 1, 2):
        less.config = replace(less.config, max_insertions=budget)
        found = answers(host, Intervention(budget=budget))
        expected = generate(host, [GenerationRequest(prompt, GREEDY, "less") for prompt in PROMPTS])
        assert [a.token_ids for a in found] == [a.token_ids for a in expected]
        assert max(len(a.insertions) for a in found) <= 1 + budget
    most = answers(host, Intervention(budget=100))
    assert [a.token_ids for a in most] == [a.token_ids for a in answers(host, Intervention())]


@SHAPES
def test_a_rule_speaks_of_every_latent(
    host: AdapterHost, random_artifact: Callable[..., Path], shape: dict[str, Any]
) -> None:
    load_artifact(host, "m", random_artifact(**shape))
    with pytest.raises(ConfigError, match="says of 1 latents whether they stay; expected 4"):
        answers(host, Intervention(keep=lambda *_: [True]))
