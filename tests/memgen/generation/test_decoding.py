"""Rows that join and leave between steps: nobody's answer, and nobody's memory, depends on the others."""

import random
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from memgen.artifacts.artifact import load_artifact
from memgen.backbone.kv_cache import SlotCache
from memgen.backbone.loading import Backbone
from memgen.backbone.prompt_cache import PromptCache
from memgen.errors import ModelError, PromptTooLong
from memgen.generation.decoding import Decoding
from memgen.generation.engine import generate
from memgen.generation.requests import Generation, GenerationRequest
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost

CUE = (7, 9, 11, 8, 30, 31)
SYSTEM = tuple(range(40, 95))


@pytest.fixture
def names(host: AdapterHost, random_artifact: Callable[..., Path]) -> list[str | None]:
    """Memories of every form and trigger, and none."""
    found: list[str | None] = [None]
    triggers = ("always", "lora", "head", "never")
    for number, (form, trigger) in enumerate(product(("cache", "embedding"), triggers)):
        folder = random_artifact(
            form=form, trigger=trigger, max_insertions=2 + number % 4, latents=2 + number % 3, seed=number
        )
        load_artifact(host, f"m{number}", folder)
        found.append(f"m{number}")
    load_artifact(host, "rereading", random_artifact(reread_tokens=5, seed=6, max_insertions=3))
    return [*found, "rereading"]


def some_requests(names: list[str | None], seed: int, count: int) -> list[GenerationRequest]:
    """Short and long prompts, some the same and some that begin alike, with all memories, cues, and ways to draw."""
    rng = random.Random(seed)
    prompts = [tuple(rng.randrange(5, 120) for _ in range(length)) for length in (1, 2, 9, 40, 63, 64, 65, 130, 200)]
    prompts += [(*SYSTEM, *rng.sample(range(5, 120), length)) for length in (1, 8, 40, 80)]
    found = []
    for number in range(count):
        sampling = Sampling(
            rng.choice((1, 3, 12, 40, 70)),
            temperature=rng.choice((0.0, 0.0, 1.0)),
            seed=number,
            trigger_temperature=rng.choice((0.0, 1.0)),
            logprobs=True,
        )
        memory = rng.choice(names)
        cue = CUE if memory is not None and rng.random() < 0.3 else ()
        found.append(GenerationRequest(rng.choice(prompts), sampling, memory, return_latents=True, cue_ids=cue))
    return found


@dataclass
class Played:
    answers: dict[int, Generation]
    """By place among the requests."""
    cancelled: dict[int, int]
    """Tokens that a cancelled answer must have at most, by place."""


def play(decoding: Decoding, requests: list[GenerationRequest], seed: int) -> Played:
    """Let requests join at random steps and some be cancelled at random steps."""
    rng = random.Random(seed)
    waiting, places = list(range(len(requests))), {}
    played = Played({}, {})
    while waiting or not decoding.done:
        for _ in range(rng.choice((0, 0, 0, 1, 1, 4))):
            if waiting:
                place = waiting.pop(0)
                places[decoding.add(requests[place])] = place
        if decoding.unfinished() and rng.random() < 0.04:
            number = rng.choice(decoding.unfinished())
            played.cancelled[places[number]] = requests[places[number]].sampling.max_new_tokens
            decoding.cancel(number)
        decoding.step()
        for number, answer in decoding.ended():
            assert isinstance(answer, Generation)
            played.answers[places[number]] = answer
    return played


@pytest.mark.parametrize(("seed", "chunk", "kept_bytes"), [(1, 512, 0), (2, 7, 10**8), (3, 64, 40_000), (4, 1, 0)])
def test_answers_are_the_same_whoever_joins_and_leaves(
    host: AdapterHost, backbone: Backbone, names: list[str | None], seed: int, chunk: int, kept_bytes: int
) -> None:
    """Random joins, cancels, chunks of prompts and kept prompts, with all memories: every answer is that of its request
    alone, down to decisions and latents."""
    requests = some_requests(names, seed, 45)
    decoding = Decoding(host, prompts=PromptCache(backbone.decoder, kept_bytes), chunk_tokens=chunk)
    played = play(decoding, requests, seed)
    assert len(played.answers) == len(requests)
    assert played.cancelled
    insertions = 0
    for place, request in enumerate(requests):
        [alone] = generate(host, [request])
        answer = played.answers[place]
        if place in played.cancelled:
            assert answer.token_ids == alone.token_ids[: len(answer.token_ids)]
            continue
        assert (answer.token_ids, answer.finish_reason) == (alone.token_ids, alone.finish_reason), (place, request)
        assert answer.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
        assert [(d.position, d.invoked, d.latents, d.reread) for d in answer.decisions] == [
            (d.position, d.invoked, d.latents, d.reread) for d in alone.decisions
        ]
        for beside, single in zip(answer.insertions, alone.insertions, strict=True):
            torch.testing.assert_close(beside.states, single.states, atol=1e-4, rtol=1e-4)
        insertions += len(answer.insertions)
    assert insertions > 20
    assert decoding.cache_bytes == 0


def test_no_more_of_a_prompt_is_read_in_a_step_than_a_chunk_while_others_are_decoded(
    host: AdapterHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths: list[int] = []
    real = host.backbone.decoder.forward_together

    def watched(parts: Any) -> Any:
        widths.append(sum(part.embeds.shape[0] * part.embeds.shape[1] for part in parts))
        return real(parts)

    monkeypatch.setattr(host.backbone.decoder, "forward_together", watched)
    decoding = Decoding(host, chunk_tokens=16)
    first = decoding.add(GenerationRequest((5, 6, 7), Sampling(60)))
    decoding.step()
    decoding.step()
    widths.clear()
    long = decoding.add(GenerationRequest(tuple(range(5, 105)) * 2, Sampling(2)))
    short = decoding.add(GenerationRequest((9, 8, 7, 6, 5), Sampling(2)))
    ended: dict[int, Generation | Exception] = {}
    steps = short_steps = 0
    while {long, short} - ended.keys():
        decoding.step()
        steps += 1
        short_steps += short not in ended
        ended.update(decoding.ended())
    assert short_steps == 3  # a long prompt in front of it does not keep a short one waiting
    assert max(widths) <= 16 + 3
    assert steps <= 200 // 16 + 5
    assert first not in ended
    assert decoding.read_tokens == 2 + 199 + 4


@pytest.mark.parametrize("trigger", ["always", "lora"])
def test_a_stream_of_its_own_reads_a_long_prompt_in_chunks_too(
    host: AdapterHost, random_artifact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, trigger: str
) -> None:
    """Form `embedding`: the weaver that is sure to weave, and the trigger that is sure to read."""
    load_artifact(host, "m", random_artifact(form="embedding", trigger=trigger, max_insertions=2, seed=3))
    if trigger == "lora":  # with a trigger's decision to weave, the weaver reads all at once
        with torch.no_grad():
            host.memories["m"].trigger_head.bias.copy_(torch.tensor([1e4, -1e4]))
    request = GenerationRequest(tuple(range(5, 105)) * 2, Sampling(8), "m")
    [alone] = generate(host, [request])
    widths: list[int] = []
    real = host.backbone.decoder.forward_together

    def watched(parts: Any) -> Any:
        widths.append(sum(part.embeds.shape[0] * part.embeds.shape[1] for part in parts))
        return real(parts)

    monkeypatch.setattr(host.backbone.decoder, "forward_together", watched)
    decoding = Decoding(host, chunk_tokens=16)
    decoding.add(GenerationRequest((5, 6, 7), Sampling(90)))
    decoding.step()
    decoding.step()
    widths.clear()
    number = decoding.add(request)
    ended: dict[int, Any] = {}
    while number not in ended:
        decoding.step()
        ended.update(decoding.ended())
    assert ended[number].token_ids == alone.token_ids
    assert bool(alone.insertions) == (trigger == "always")
    assert max(widths) <= 16 + 8


def test_a_text_that_many_need_is_read_once(host: AdapterHost, names: list[str | None]) -> None:
    """The same prompt in several rows, a start that several share, and a cue."""
    decoding = Decoding(host, chunk_tokens=16)
    whole = (*SYSTEM, 5, 6, 7)
    for memory in (None, "m0", "m0", "m4"):
        decoding.add(GenerationRequest(whole, Sampling(3), memory, cue_ids=CUE if memory == "m0" else ()))
    for last in (8, 9):
        decoding.add(GenerationRequest((*SYSTEM, last, last, last), Sampling(3)))
    while not decoding.done:
        decoding.step()
    # The last token of a prompt is the answer's to read. SYSTEM, then what each goes on with; the cue once.
    assert decoding.read_tokens == len(SYSTEM) + 3 * 2 + len(CUE)


def test_who_was_read_behind_another_goes_on_without_it(host: AdapterHost) -> None:
    """One leaves while another waits for what both begin with."""
    requests = [GenerationRequest((*SYSTEM, last, last), Sampling(5)) for last in (5, 6)]
    decoding = Decoding(host, chunk_tokens=16)
    busy = decoding.add(GenerationRequest((5, 6), Sampling(60)))
    decoding.step()
    leaving, staying = (decoding.add(request) for request in requests)
    decoding.step()
    before = decoding.read_tokens
    decoding.cancel(leaving)
    ended: dict[int, Generation | Exception] = {}
    while staying not in ended:
        decoding.step()
        ended.update(decoding.ended())
    [alone] = generate(host, [requests[1]])
    assert ended[staying].token_ids == alone.token_ids  # type: ignore[union-attr]  # it is no error
    assert decoding.read_tokens - before == len(SYSTEM) + 1 - 16
    decoding.cancel(busy)
    assert decoding.cache_bytes == 0


def test_the_memory_of_a_row_may_be_chosen_once_its_prompt_is_read(host: AdapterHost, names: list[str | None]) -> None:
    """Its prompt is read once, and waits while the choice is made; others go on."""
    for memory in ("m0", "m4", None):
        decoding = Decoding(host)
        request = GenerationRequest((*SYSTEM, 5), Sampling(12))
        other = decoding.add(GenerationRequest((5, 6, 7), Sampling(30)))
        number = decoding.add(request, undecided=True)
        for _ in range(5):
            decoding.step()
        [(parked, state)] = decoding.parked()
        assert (parked, state.shape) == (number, (host.backbone.hidden_size,))
        decoding.choose(number, memory, CUE if memory else ())
        assert decoding.parked() == []
        ended: dict[int, Any] = {}
        while not decoding.done:
            decoding.step()
            ended.update(decoding.ended())
        asked = GenerationRequest(request.prompt_ids, request.sampling, memory, cue_ids=CUE if memory else ())
        assert ended[number].token_ids == generate(host, [asked])[0].token_ids
        assert len(ended[other].token_ids) == 30
        cue = len(CUE) if memory == "m0" else 0
        assert decoding.read_tokens == len(SYSTEM) + 2 + cue


def test_a_choice_that_does_not_fit_is_refused(host: AdapterHost, names: list[str | None]) -> None:
    decoding = Decoding(host)
    number = decoding.add(GenerationRequest((5,) * 1019, Sampling(4)), undecided=True)
    while not decoding.parked():
        decoding.step()
    with pytest.raises(PromptTooLong, match="the prompt has 1019 tokens"):
        decoding.choose(number, "rereading")
    decoding.cancel(number)
    assert decoding.cache_bytes == 0


def test_what_fails_for_one_row_ends_that_row_alone(host: AdapterHost) -> None:
    def on_text(number: int, text: str) -> None:
        if number == 1:
            raise ValueError("the reader choked")

    requests = [GenerationRequest(tuple(range(5, 9 + n)), Sampling(8)) for n in range(3)]
    decoding = Decoding(host, on_text=on_text)
    for request in requests:
        decoding.add(request)
    ended: dict[int, Any] = {}
    while not decoding.done:
        decoding.step()
        ended.update(decoding.ended())
    assert isinstance(ended[1], ValueError)
    for number in (0, 2):
        assert ended[number].token_ids == generate(host, [requests[number]])[0].token_ids
    assert decoding.cache_bytes == 0


def test_memory_goes_back_as_rows_leave(host: AdapterHost, backbone: Backbone) -> None:
    """A long row beside a thousand short ones: the caches are as small at the end as at the start, and so is what
    Python holds."""
    shape = backbone.decoder.kv_shape
    decoding = Decoding(host)
    rng = random.Random(0)
    decoding.add(GenerationRequest((5,) * 300, Sampling(700)))
    decoding.step()
    alone, most, ended, joined = decoding.cache_bytes, 0, 0, 0
    traced: list[int] = []
    tracemalloc.start()
    while ended < 1000:
        while len(decoding.unfinished()) < 12 and joined < 1000:
            decoding.add(
                GenerationRequest(tuple(rng.randrange(5, 120) for _ in range(6)), Sampling(rng.choice((1, 2, 3))))
            )
            joined += 1
        decoding.step()
        most = max(most, decoding.cache_bytes)
        ended += len(decoding.ended())
        if ended in range(200, 220) or ended in range(900, 920):
            traced.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert decoding.running == 1
    assert decoding.cache_bytes <= 512 * 2 * shape.bytes_per_token
    assert alone < most <= (512 + 1024 + 24 * 128) * shape.bytes_per_token
    assert max(traced) - min(traced) < 500_000


def test_those_that_were_read_behind_one_that_leaves_are_still_read_together(host: AdapterHost) -> None:
    decoding = Decoding(host, chunk_tokens=16)
    busy = decoding.add(GenerationRequest((5, 6), Sampling(60)))
    decoding.step()
    leaving, *staying = (decoding.add(GenerationRequest((*SYSTEM, n, n, n), Sampling(3))) for n in range(5, 10))
    decoding.step()
    before = decoding.read_tokens
    decoding.cancel(leaving)
    ended: set[int] = set()
    while not ended.issuperset(staying):
        decoding.step()
        ended |= {number for number, _ in decoding.ended()}
    assert decoding.read_tokens - before == len(SYSTEM) - 16 + len(staying) * 2
    decoding.cancel(busy)
    assert decoding.cache_bytes == 0


@pytest.mark.parametrize("form", ["cache", "embedding"])
def test_an_answer_without_numbers_fails_alone(
    host: AdapterHost, random_artifact: Callable[..., Path], form: str
) -> None:
    """A version whose weights are broken, beside others of its kind and the bare base."""
    for name, seed in (("good", 1), ("broken", 2)):
        load_artifact(host, name, random_artifact(form=form, trigger="always", latents=3, max_insertions=2, seed=seed))
    with torch.no_grad():
        next(iter(host.memories["broken"].parameters())).fill_(float("nan"))
    requests = [
        GenerationRequest((*range(5, 12 + n),), Sampling(20, seed=n), memory)
        for n, memory in enumerate(("good", "broken", None, "broken", "good"))
    ]
    decoding = Decoding(host)
    for request in requests:
        decoding.add(request)
    ended: dict[int, Any] = {}
    while not decoding.done:
        decoding.step()
        ended.update(decoding.ended())
    for number, request in enumerate(requests):
        if request.memory == "broken":
            assert isinstance(ended[number], ModelError)
            assert "memory broken can't be chosen" in str(ended[number])
        else:
            assert ended[number].token_ids == generate(host, [request])[0].token_ids
    assert decoding.cache_bytes == 0


def test_a_streams_short_prompt_does_not_wait_for_a_long_one_nor_that_for_short_ones(
    host: AdapterHost, random_artifact: Callable[..., Path]
) -> None:
    load_artifact(host, "m", random_artifact(form="embedding", trigger="always", latents=2, max_insertions=1, seed=1))
    decoding = Decoding(host, chunk_tokens=16)
    rng = random.Random(0)

    def prompt(tokens: int) -> tuple[int, ...]:
        return tuple(rng.randrange(5, 120) for _ in range(tokens))

    decoding.add(GenerationRequest((5, 6), Sampling(900)))
    decoding.step()
    long = decoding.add(GenerationRequest(prompt(640), Sampling(1), "m"))
    for _ in range(50):  # its stream is behind the base, which has read it
        decoding.step()
    short = decoding.add(GenerationRequest(prompt(64), Sampling(1), "m"))
    ended: dict[int, int] = {}
    for step in range(400):
        decoding.step()
        ended.update((number, step) for number, _ in decoding.ended())
        if short in ended or len(ended) > 1:
            break
    assert short in ended
    assert long not in ended
    for step in range(400):
        if len([n for n in decoding.unfinished() if n != long]) < 4:
            decoding.add(GenerationRequest(prompt(48), Sampling(1), "m"))
        decoding.step()
        ended.update((number, step) for number, _ in decoding.ended())
        if long in ended:
            break
    assert long in ended


def test_a_row_that_finds_no_memory_leaves_nothing_and_one_that_leaves_needs_none(
    host: AdapterHost, names: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that begins like one being read, or whose cue does, is refused for want of memory; rows leave while there
    is still none."""

    def fails(*_: object) -> None:
        raise torch.OutOfMemoryError("no memory is left")

    decoding = Decoding(host)
    long = GenerationRequest((*SYSTEM, *range(5, 120)) * 4, Sampling(12))
    requests = [GenerationRequest((n, n, 7), Sampling(40)) for n in range(5, 15)]
    numbers = [decoding.add(request) for request in (*requests, long)]
    decoding.step()
    decoding.step()
    assert len(decoding._held.readings._active) == 1, "the long one is still being read"
    with monkeypatch.context() as patched:
        patched.setattr("memgen.backbone.row_caches.RowCaches.copied", fails)
        alike = (*SYSTEM, 90, 91, 92)
        for request in (
            GenerationRequest(alike, Sampling(3)),
            GenerationRequest((5, 6, 7), Sampling(3), names[1], cue_ids=alike),
        ):
            with pytest.raises(torch.OutOfMemoryError):
                decoding.add(request)
    assert len(decoding._held.readings._active) == 1
    with monkeypatch.context() as patched:
        patched.setattr(SlotCache, "_empty", fails)
        patched.setattr(Tensor, "new_zeros", fails)
        for number in numbers[1:9]:
            decoding.cancel(number)
    done: dict[int, Any] = {}
    while not decoding.done:
        decoding.step()
        done.update(decoding.ended())
    for number, request in ((0, requests[0]), (9, requests[9]), (10, long)):
        assert done[number].token_ids == generate(host, [request])[0].token_ids
    assert decoding.cache_bytes == 0
