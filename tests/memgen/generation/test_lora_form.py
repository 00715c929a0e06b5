"""Versions of form `lora` in the engine: PEFT's own numbers, alone and mixed with memories and the bare base."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from memgen.artifacts.artifact import load_artifact
from memgen.backbone.loading import Backbone
from memgen.backbone.lora import LoraTokens
from memgen.backbone.prompt_cache import PromptCache
from memgen.generation.decoding import Decoding
from memgen.generation.engine import generate
from memgen.generation.requests import Generation, GenerationRequest
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost

PROMPTS = [tuple(range(5, 5 + n)) for n in (1, 2, 7, 19, 60)]
GREEDY = Sampling(max_new_tokens=24, logprobs=True)


@pytest.fixture
def loras(host: AdapterHost, random_artifact: Callable[..., Path]) -> dict[str, Path]:
    """Two versions of form `lora`, of different ranks, in the host."""
    folders = {f"lora{rank}": random_artifact(rank, **_plain(rank)) for rank in (4, 6)}
    for name, folder in folders.items():
        load_artifact(host, name, folder)
    return folders


def _plain(rank: int) -> dict[str, object]:
    return {"form": "lora", "rank": rank, "latents": 0, "inference_latents": 0, "delimiters": ()}


@pytest.fixture
def everything(host: AdapterHost, loras: dict[str, Path], random_artifact: Callable[..., Path]) -> list[str | None]:
    """Both, memories of either form, one that reads prompts again, and the bare base."""
    load_artifact(host, "cache", random_artifact(max_insertions=2, seed=1))
    load_artifact(host, "embedding", random_artifact(form="embedding", trigger="lora", max_insertions=2, seed=2))
    load_artifact(host, "rereading", random_artifact(reread_tokens=5, trigger="lora", seed=3))
    return [None, *loras, "cache", "embedding", "rereading"]


@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
def test_an_answer_is_that_of_peft(
    host: AdapterHost, backbone: Backbone, loras: dict[str, Path], prompt: tuple[int, ...]
) -> None:
    [bare] = generate(host, [GenerationRequest(prompt, GREEDY)])
    for name, folder in loras.items():
        model = PeftModel.from_pretrained(copy.deepcopy(backbone.model), folder)
        ids = torch.tensor([prompt])
        found = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)
        [answer] = generate(host, [GenerationRequest(prompt, GREEDY, name)])
        assert list(answer.token_ids) == [t for t in found[0, len(prompt) :].tolist() if t != 2]
        with torch.no_grad():
            logprobs = model(input_ids=found).logits.log_softmax(dim=-1)[0, len(prompt) - 1 :]
        theirs = [float(logprobs[n, token]) for n, token in enumerate(answer.token_ids)]
        assert answer.logprobs == pytest.approx(theirs, abs=1e-4)
        assert answer.decisions == ()
        assert answer.token_ids != bare.token_ids


@pytest.mark.parametrize("chunk", [3, 64])
def test_a_mixed_batch_equals_single_rows(host: AdapterHost, everything: list[str | None], chunk: int) -> None:
    """Unequal prompts of all kinds of versions are read and decoded in the same passes; rows end at different steps."""
    requests = [
        GenerationRequest(prompt, Sampling(max_new_tokens=limit, logprobs=True), name)
        for prompt, limit in zip(PROMPTS, (3, 24, 11, 24, 9), strict=True)
        for name in everything
    ]
    together = _decoded(Decoding(host, chunk_tokens=chunk), requests)
    for request, answer in zip(requests, together, strict=True):
        [alone] = generate(host, [request])
        assert answer.token_ids == alone.token_ids
        assert answer.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
        assert [d.position for d in answer.insertions] == [d.position for d in alone.insertions]


def test_a_prompt_that_one_has_read_is_no_others(host: AdapterHost, everything: list[str | None]) -> None:
    """Of what is kept each version of form `lora` takes its own alone; all memories take the base's."""
    prompt, longer = PROMPTS[-1], (*PROMPTS[-1], *range(9, 49))
    prompts = PromptCache(host.backbone.decoder, max_bytes=10**8)
    for asked, expected in ((prompt, [0, 0, 0, 59, 59, 59]), (prompt, [59] * 6), (longer, [59, 59, 59, 99, 99, 99])):
        for name, reused in zip(everything, expected, strict=True):
            request, before = GenerationRequest(asked, GREEDY, name), prompts.reused_tokens
            [kept], [alone] = generate(host, [request], prompts=prompts), generate(host, [request])
            assert prompts.reused_tokens - before == reused
            assert kept.token_ids == alone.token_ids


def test_what_is_read_at_the_same_time_is_shared_by_the_rows_of_one_version(
    host: AdapterHost, everything: list[str | None]
) -> None:
    decoding = Decoding(host, chunk_tokens=7)
    requests = [GenerationRequest(PROMPTS[-1], GREEDY, name) for name in everything for _ in range(3)]
    _decoded(decoding, requests)
    assert decoding.read_tokens == 3 * 59  # the base, and each of two versions


@pytest.mark.parametrize("name", ["lora4", "cache", None])
def test_a_row_whose_version_is_found_by_its_prompt(
    host: AdapterHost, everything: list[str | None], name: str | None
) -> None:
    """The bare base reads a prompt to find its memory; one of form `lora` then reads it for itself."""
    request = GenerationRequest(PROMPTS[-1], GREEDY)
    decoding = Decoding(host)
    number = decoding.add(request, undecided=True)
    while not decoding.parked():
        decoding.step()
    decoding.choose(number, name)
    while not decoding.done:
        decoding.step()
    [(_, answer)] = decoding.ended()
    [expected] = generate(host, [GenerationRequest(PROMPTS[-1], GREEDY, name)])
    assert isinstance(answer, Generation)
    assert answer.token_ids == expected.token_ids


def test_no_adapter_is_added_where_no_row_has_one(
    host: AdapterHost, everything: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of memories between insertions, and the bare base's, cost what they would without form `lora`."""
    adapted: list[int] = []
    add = LoraTokens.add

    def counted(self: LoraTokens, name: str, inputs: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        adapted.append(1)
        return add(self, name, inputs, outputs)

    decoding = Decoding(host)
    for name in (None, "cache"):
        decoding.add(GenerationRequest(PROMPTS[0], Sampling(max_new_tokens=4), name))
    decoding.step()
    monkeypatch.setattr(LoraTokens, "add", counted)
    decoding.add(GenerationRequest(PROMPTS[0], Sampling(max_new_tokens=4)))
    decoding.step()
    assert adapted == []
    decoding.add(GenerationRequest(PROMPTS[0], Sampling(max_new_tokens=4), "lora4"))
    decoding.step()
    assert len(adapted) == 2 * 7


def _decoded(decoding: Decoding, requests: Sequence[GenerationRequest]) -> list[Generation]:
    for request in requests:
        decoding.add(request)
    found: dict[int, Generation] = {}
    while not decoding.done:
        decoding.step()
        found.update((n, answer) for n, answer in decoding.ended() if isinstance(answer, Generation))
    return [found[n] for n in range(len(requests))]
