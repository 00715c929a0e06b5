"""Golden tests of the engine, in float32 against plain transformers and the literal reference."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from memgen.artifacts.artifact import load_artifact, save_artifact
from memgen.artifacts.report import TrainingReport
from memgen.backbone.decoder import DecoderPart
from memgen.backbone.loading import Backbone, load_backbone
from memgen.backbone.prompt_cache import PromptCache
from memgen.config import MemoryConfig
from memgen.errors import ConfigError, PromptTooLong
from memgen.generation.decoding import Decoding
from memgen.generation.engine import generate, generate_all, stream
from memgen.generation.requests import Generation, GenerationRequest
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from tests import reference
from tests.fixtures_model import save_tiny_base
from tests.memgen.conftest import LETTERS, SHAPES, randomise
from tests.reference_memory import ReferenceMemory

PROMPTS = [tuple(range(5, 5 + n)) for n in (1, 2, 7, 19)]
GREEDY = Sampling(max_new_tokens=24)


@pytest.fixture
def loaded(host: AdapterHost, artifacts: dict[str, Path]) -> AdapterHost:
    for name, folder in artifacts.items():
        load_artifact(host, name, folder)
    return host


@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
def test_without_memory_equals_transformers(host: AdapterHost, backbone: Backbone, prompt: tuple[int, ...]) -> None:
    ids = torch.tensor([prompt])
    expected = backbone.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)
    [answer] = generate(host, [GenerationRequest(prompt, GREEDY)])
    assert list(answer.token_ids) == [t for t in expected[0, len(prompt) :].tolist() if t != 2]
    assert answer.decisions == ()


@SHAPES
@pytest.mark.parametrize("trigger", ["always", "never", "lora", "head"])
@pytest.mark.parametrize("max_insertions", [0, 5])
def test_with_memory_equals_reference(
    host: AdapterHost,
    backbone: Backbone,
    random_artifact: Callable[..., Path],
    shape: dict[str, Any],
    trigger: str,
    max_insertions: int,
) -> None:
    """Tokens and decisions of unequal prompts in one batch are those of the literal loop."""
    folder = random_artifact(**shape, trigger=trigger, max_insertions=max_insertions)
    load_artifact(host, "m", folder)
    literal = ReferenceMemory(backbone.model, folder, backbone.tokenizer)
    answers = generate(host, [GenerationRequest(prompt, GREEDY, "m") for prompt in PROMPTS])
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        expected = reference.generate(
            literal, backbone.model, list(prompt), 24, backbone.stop_token_ids, backbone.tokenizer
        )
        assert list(answer.token_ids) == expected.tokens
        assert [(d.position, d.invoked) for d in answer.decisions] == [
            (d.position, d.invoked) for d in expected.decisions
        ]
        for ours, theirs in zip(answer.decisions, expected.decisions, strict=True):
            assert ours.probability == pytest.approx(theirs.probability, abs=1e-4)
    decisions = [decision for answer in answers for decision in answer.decisions]
    if trigger == "never":
        assert decisions == []
    elif max_insertions:
        assert any(d.position >= len(p) + 1 for p, a in zip(PROMPTS, answers, strict=True) for d in a.insertions)
    if max_insertions and trigger in ("lora", "head"):
        assert {decision.invoked for decision in decisions} == {True, False}


def test_a_weaver_on_another_base_equals_reference(backbone: Backbone, tmp_path: Path) -> None:
    """Form `embedding` with a weaver of another width, as the paper pairs a small weaver with a larger reasoner."""
    small = load_backbone(
        str(save_tiny_base(tmp_path / "small", seed=3, hidden_size=32)), cache_dir=tmp_path, dtype=torch.float32
    )
    host = AdapterHost(backbone, small)
    config = MemoryConfig(
        form="embedding", weaver_base=small.name, latents=4, max_insertions=3, rank=4, alpha=8, delimiters=LETTERS
    )
    randomise(host.create("m", config), 1)
    save_artifact(host, "m", tmp_path / "m", TrainingReport(1, 0, 0, 1, 1, 1.0, (1.0,), ()))
    literal = ReferenceMemory(backbone.model, tmp_path / "m", backbone.tokenizer, small.model)
    answers = generate(host, [GenerationRequest(prompt, GREEDY, "m") for prompt in PROMPTS])
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        expected = reference.generate(
            literal, backbone.model, list(prompt), 24, backbone.stop_token_ids, backbone.tokenizer
        )
        assert list(answer.token_ids) == expected.tokens
    with pytest.raises(ConfigError, match="the memory's weaver runs on .*small.*loaded are"):
        AdapterHost(backbone).create("m", config)


def test_memories_change_the_answer(loaded: AdapterHost) -> None:
    answers = [generate(loaded, [GenerationRequest(PROMPTS[3], GREEDY, m)])[0].token_ids for m in (None, "yes", "no")]
    assert len(set(answers)) == 3


@pytest.fixture
def everything(host: AdapterHost, random_artifact: Callable[..., Path]) -> list[str | None]:
    """Memories of every form and trigger, with different numbers of latents, one that reads prompts again, and none."""
    names: list[str | None] = [None]
    for number, (form, trigger) in enumerate(product(("cache", "embedding"), ("always", "lora", "head"))):
        folder = random_artifact(form=form, trigger=trigger, max_insertions=number, latents=2 + number % 3, seed=number)
        load_artifact(host, f"m{number}", folder)
        names.append(f"m{number}")
    # One weaves 9 tokens at the longer prompts' ends, 5 of them read again; the other as many latents.
    load_artifact(host, "rereading", random_artifact(reread_tokens=5, seed=6))
    load_artifact(host, "as many", random_artifact(latents=9, seed=7))
    return [*names, "rereading", "as many"]


def test_mixed_batch_equals_single_rows(host: AdapterHost, everything: list[str | None]) -> None:
    """Unequal prompts, eight memories and none in one batch; rows weave and end at different steps."""
    requests = [
        GenerationRequest(prompt, Sampling(max_new_tokens=limit, logprobs=True), memory, return_latents=True)
        for prompt, limit in zip(PROMPTS, (3, 24, 11, 24), strict=True)
        for memory in everything
    ]
    together = generate(host, requests)
    for request, answer in zip(requests, together, strict=True):
        [alone] = generate(host, [request])
        assert answer.token_ids == alone.token_ids
        assert answer.finish_reason == alone.finish_reason
        assert answer.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
        assert [(d.position, d.invoked, d.latents, d.reread) for d in answer.decisions] == [
            (d.position, d.invoked, d.latents, d.reread) for d in alone.decisions
        ]
        for beside, single in zip(answer.insertions, alone.insertions, strict=True):
            torch.testing.assert_close(beside.states, single.states, atol=1e-4, rtol=1e-4)


def test_rows_that_weave_and_rows_that_do_not_share_a_pass(
    host: AdapterHost, everything: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = host.backbone.decoder
    passes: list[list[int]] = []
    forward_together = decoder.forward_together

    def count(parts: Sequence[DecoderPart]) -> list[Tensor]:
        # Triggers, and weavers of form `embedding`, read with their adapters on for every token.
        if not all(part.lora is not None and part.lora.parts[0][1] is None for part in parts):
            passes.append([part.embeds.shape[1] for part in parts])
        return forward_together(parts)

    monkeypatch.setattr(decoder, "forward_together", count)
    steps = 0
    decoding = Decoding(host)
    for name in everything:
        decoding.add(GenerationRequest(PROMPTS[2], Sampling(24), name))
    while not decoding.done:
        decoding.step()
        steps += 1
    assert len(passes) == steps
    inside = [tokens for tokens in passes[1:] if max(tokens) > 1]
    assert any(min(tokens) == 1 for tokens in inside)


def test_a_kept_prompt_changes_nothing(host: AdapterHost, backbone: Backbone, everything: list[str | None]) -> None:
    """Prompts read before, wholly or in part, give the same answers; their tokens are not read again."""
    prompts = PromptCache(backbone.decoder, max_bytes=10**8)
    first = tuple(range(5, 60))
    longer, parting = (*first, 7, 8, 9), (*first[:30], 90, 91)
    for prompt, reused in ((first, 0), (first, 54), (longer, 54), (parting, 30)):
        before = prompts.reused_tokens
        requests = [GenerationRequest(prompt, GREEDY, memory) for memory in everything]
        answers = generate(host, requests, prompts=prompts)
        fresh = [generate(host, [request])[0] for request in requests]
        assert [a.token_ids for a in answers] == [a.token_ids for a in fresh]
        others = len(everything) - 1
        assert prompts.reused_tokens - before == reused + others * (len(prompt) - 1)


def test_the_prompt_cache_forgets_the_least_recently_used(backbone: Backbone) -> None:
    shape = backbone.decoder.kv_shape
    prompts = PromptCache(backbone.decoder, max_bytes=20 * shape.bytes_per_token)
    for first in (5, 6, 5, 7):
        prompts.read([(first,) * 10])
    before = prompts.reused_tokens
    prompts.read([(5,) * 10])
    assert prompts.reused_tokens - before == 10
    prompts.read([(6,) * 10])
    assert prompts.reused_tokens - before == 10


def test_text_arrives_as_it_is_written(loaded: AdapterHost) -> None:
    request = GenerationRequest(PROMPTS[3], GREEDY, "yes")
    *pieces, answer = list(stream(loaded, request))
    assert isinstance(answer, Generation)
    assert answer.token_ids == generate(loaded, [request])[0].token_ids
    assert "".join(str(piece) for piece in pieces) == answer.text
    assert len(pieces) > 1
    assert answer.timings.total >= answer.timings.first_token > 0


def test_a_cancelled_row_stops_and_the_others_go_on(loaded: AdapterHost) -> None:
    requests = [GenerationRequest(prompt, GREEDY, memory) for prompt in PROMPTS[2:] for memory in ("yes", None)]
    whole = generate(loaded, requests)
    calls: list[int] = []

    def is_cancelled(number: int) -> bool:
        calls.append(number)
        return number == 1 and calls.count(1) > 6  # the first step reads the prompts

    answers = generate(loaded, requests, is_cancelled=is_cancelled)
    assert answers[1].finish_reason == "cancelled"
    assert answers[1].token_ids == whole[1].token_ids[:5]
    for number in (0, 2, 3):
        assert answers[number].token_ids == whole[number].token_ids


def test_logprobs_are_those_of_the_model(host: AdapterHost, backbone: Backbone) -> None:
    [answer] = generate(host, [GenerationRequest(PROMPTS[3], Sampling(8, logprobs=True))])
    ids = torch.tensor([[*PROMPTS[3], *answer.token_ids]])
    logits = backbone.model(ids).logits[0, len(PROMPTS[3]) - 1 : -1]
    expected = logits.log_softmax(-1).gather(1, torch.tensor(answer.token_ids)[:, None])[:, 0]
    assert answer.logprobs == pytest.approx(expected.tolist(), abs=1e-4)


def test_the_token_that_ended_an_answer_is_told_apart_from_it(host: AdapterHost, backbone: Backbone) -> None:
    samplings = [Sampling(120, temperature=1.0, seed=seed, logprobs=seed % 2 == 0) for seed in range(20)]
    answers = generate(host, [GenerationRequest(PROMPTS[2], sampling) for sampling in samplings])
    assert {answer.finish_reason for answer in answers} == {"stop", "length"}
    for sampling, answer in zip(samplings, answers, strict=True):
        assert (answer.end_token in backbone.stop_token_ids) == (answer.finish_reason == "stop")
        assert (answer.end_logprob is not None) == (answer.finish_reason == "stop" and sampling.logprobs)
    ended = next(answer for answer in answers if answer.end_logprob is not None)
    logits = backbone.model(torch.tensor([[*PROMPTS[2], *ended.token_ids]])).logits[0, -1]
    assert ended.end_logprob == pytest.approx(logits.log_softmax(-1)[ended.end_token].item(), abs=1e-4)
    assert len(ended.logprobs) == len(ended.token_ids)


def test_a_sampled_trigger_follows_its_probability(host: AdapterHost, random_artifact: Callable[..., Path]) -> None:
    load_artifact(host, "m", random_artifact(trigger="head", max_insertions=0, seed=2))
    requests = [
        GenerationRequest(PROMPTS[3], Sampling(1, trigger_temperature=1.0, seed=seed), "m") for seed in range(300)
    ]
    decisions = [answer.decisions[0] for answer in generate(host, requests)]
    share = sum(decision.invoked for decision in decisions) / len(decisions)
    probability = decisions[0].probability
    assert 0.05 < probability < 0.95
    assert share == pytest.approx(probability, abs=4 * (probability * (1 - probability) / 300) ** 0.5)


def test_generate_all_keeps_the_order(loaded: AdapterHost) -> None:
    requests = [GenerationRequest(p, GREEDY, "yes") for p in reversed(PROMPTS)]
    done: list[int] = []
    answers = generate_all(loaded, requests, batch_size=3, on_done=done.append)
    assert [a.prompt_tokens for a in answers] == [19, 7, 2, 1]
    assert [a.token_ids for a in answers] == [generate(loaded, [r])[0].token_ids for r in requests]
    assert (done[-1], done) == (4, sorted(set(done)))


def test_sampling_repeats_with_its_seed_whatever_the_batch(loaded: AdapterHost) -> None:
    request = GenerationRequest(PROMPTS[2], Sampling(20, temperature=1.0, top_p=0.9, seed=7), "yes")
    other = GenerationRequest(PROMPTS[3], Sampling(20, temperature=1.0, seed=8))
    [alone] = generate(loaded, [request])
    beside, different = generate(loaded, [request, other])
    assert beside.token_ids == alone.token_ids
    assert different.token_ids != alone.token_ids


def test_stop_string_ends_and_is_cut(host: AdapterHost) -> None:
    [free] = generate(host, [GenerationRequest(PROMPTS[3], GREEDY)])
    stop = free.text[6:8]
    [stopped] = generate(host, [GenerationRequest(PROMPTS[3], Sampling(24, stop=(stop,)))])
    assert stopped.text == free.text[: free.text.index(stop)]
    assert stopped.finish_reason == "stop"
    assert len(stopped.token_ids) < len(free.token_ids)


def test_length_ends_an_answer(host: AdapterHost) -> None:
    [answer] = generate(host, [GenerationRequest(PROMPTS[3], Sampling(max_new_tokens=2))])
    assert (len(answer.token_ids), answer.finish_reason) == (2, "length")


def test_too_long_a_prompt_is_refused(loaded: AdapterHost) -> None:
    prompt = (5,) * 1000
    with pytest.raises(PromptTooLong, match=r"1000 tokens; with 4 latents and 24 new tokens that is 1028, more.*1024"):
        generate(loaded, [GenerationRequest(prompt, GREEDY, "yes")])


def test_what_is_read_again_is_told_apart_and_takes_room(
    host: AdapterHost, random_artifact: Callable[..., Path]
) -> None:
    load_artifact(host, "m", random_artifact(reread_tokens=5, max_insertions=2))
    answers = generate(host, [GenerationRequest(prompt, GREEDY, "m", return_latents=True) for prompt in PROMPTS])
    assert [a.decisions[0].reread for a in answers] == [0, 1, 5, 5]
    assert {a.decisions[0].latents for a in answers} == {len(a.decisions[0].states) for a in answers} == {4}
    assert {(d.reread, d.latents) for answer in answers for d in answer.insertions[1:]} == {(0, 3)}
    too_long = GenerationRequest((5,) * 986, GREEDY, "m")
    with pytest.raises(PromptTooLong, match=r"986 tokens; with 5 read again, 10 latents and 24 new .* is 1025, more"):
        generate(host, [too_long])
    generate(host, [replace(too_long, prompt_ids=(5,) * 985)])


def test_a_memory_that_leaves_no_room_is_refused(host: AdapterHost) -> None:
    with pytest.raises(ConfigError, match="weaves up to 1033 tokens, of 1024 that .* takes; lower reread_tokens"):
        host.create("m", MemoryConfig(reread_tokens=1009, latents=4, max_insertions=5, inference_latents=4))
    host.create("m", MemoryConfig(reread_tokens=500, latents=4, max_insertions=5, inference_latents=4))
    assert host.longest_example("m") == 1024 - 524
