"""Golden tests of the engine, in float32 against plain transformers and the literal reference."""

from pathlib import Path

import pytest
import torch

from memgen.artifact import load_artifact
from memgen.backbone import Backbone
from memgen.engine import GenerationRequest, Insertion, generate, generate_all
from memgen.errors import PromptTooLong
from memgen.sampling import Sampling
from memgen.weaver import AdapterHost
from tests import reference

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
    assert answer.insertions == ()


@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
@pytest.mark.parametrize("memory", ["yes", "no"])
def test_with_memory_equals_reference(
    loaded: AdapterHost, backbone: Backbone, artifacts: dict[str, Path], prompt: tuple[int, ...], memory: str
) -> None:
    weaver = reference.ReferenceWeaver(backbone.model, artifacts[memory])
    expected = reference.generate(backbone.model, weaver, list(prompt), 24, backbone.stop_token_ids)
    [answer] = generate(loaded, [GenerationRequest(prompt, GREEDY, memory)])
    assert list(answer.token_ids) == expected
    assert answer.insertions == (Insertion(position=len(prompt) - 1, latents=4),)


def test_memories_change_the_answer(loaded: AdapterHost) -> None:
    answers = [generate(loaded, [GenerationRequest(PROMPTS[3], GREEDY, m)])[0].token_ids for m in (None, "yes", "no")]
    assert len(set(answers)) == 3


def test_mixed_batch_equals_single_rows(loaded: AdapterHost) -> None:
    """Unequal prompts, two versions and none in one batch; rows end at different steps."""
    requests = [
        GenerationRequest(prompt, Sampling(max_new_tokens=limit), memory)
        for prompt, limit in zip(PROMPTS, (3, 24, 11, 24), strict=True)
        for memory in (None, "yes", "no")
    ]
    together = generate(loaded, requests)
    for request, answer in zip(requests, together, strict=True):
        [alone] = generate(loaded, [request])
        assert answer.token_ids == alone.token_ids
        assert answer.insertions == alone.insertions
        assert answer.finish_reason == alone.finish_reason


def test_generate_all_keeps_the_order(loaded: AdapterHost) -> None:
    requests = [GenerationRequest(p, GREEDY, "yes") for p in reversed(PROMPTS)]
    done: list[int] = []
    answers = generate_all(loaded, requests, batch_size=3, on_done=done.append)
    assert [a.prompt_tokens for a in answers] == [19, 7, 2, 1]
    assert [a.token_ids for a in answers] == [generate(loaded, [r])[0].token_ids for r in requests]
    assert done == [3, 4]


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
