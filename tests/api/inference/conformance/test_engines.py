"""What every engine does alike: the same requests get the same answers, errors and ends, whichever it is."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api.inference.choose import make_engine
from api.inference.engine import InferenceEngine
from api.inference.requests import Finished, MemorySource, Piece
from api.inference.unavailable import InferenceUnavailable, Preempted, QueueFull
from api.inference.vllm.memories import NotServedByEngine
from memgen.errors import ArtifactCorrupt, ConfigError, PromptTooLong
from memgen.generation.requests import Generation
from memgen.generation.sampling import Sampling
from memgen.text.answer_grammars import Constraint
from registry.errors import BaseChanged, ObjectNotFound
from tests.api.inference.conformance.conftest import SERVED, Start, World
from tests.vllm_server import ENGINE

END = 2
"""The tiny base's end token."""
LASTING: Any = {"logit_bias": ((END, -100.0),)}
"""For an answer that goes on to its limit."""
LONG = Sampling(900, **LASTING)


async def collect(events: AsyncGenerator[Piece | Finished, None]) -> tuple[dict[int, str], dict[int, Finished]]:
    """Text and answer of each choice of a stream."""
    pieces: dict[int, str] = {}
    finished: dict[int, Finished] = {}
    async for event in events:
        assert event.choice not in finished, "nothing follows an answer's end"
        if isinstance(event, Finished):
            finished[event.choice] = event
        else:
            pieces[event.choice] = pieces.get(event.choice, "") + event.text
    return pieces, finished


def check_same(got: Generation, expected: Generation) -> None:
    assert got.token_ids == expected.token_ids
    assert (got.text, got.finish_reason, got.end_token) == (expected.text, expected.finish_reason, expected.end_token)
    assert got.prompt_tokens == expected.prompt_tokens
    shown = [[(d.position, d.invoked, d.latents, d.reread) for d in each.decisions] for each in (got, expected)]
    assert shown[0] == shown[1]
    assert (got.logprobs is None) == (expected.logprobs is None)
    if got.logprobs is not None and expected.logprobs is not None:
        assert got.logprobs == pytest.approx(expected.logprobs, abs=1e-3)


@pytest.mark.parametrize("memory", [None, *SERVED])
def test_an_answer_is_the_methods_own(world: World, engine: InferenceEngine, memory: str | None) -> None:
    sampling = Sampling(40, logprobs=True)
    for text in ("hi", "Process the word garden. " * 4):
        request = world.request(sampling, memory=memory, text=text)
        [finished] = asyncio.run(engine.answer(request))
        [expected] = world.expected(request, memory)
        check_same(finished.generation, expected)
        # Tokens of random weights may be parts of characters: only their bytes are sure to join.
        raw = bytes(byte for token in finished.tokens for byte in token.raw or ())
        assert raw.decode(errors="replace")[:5] == expected.text[:5]


def test_the_memories_answer_differently(world: World) -> None:
    """Else nothing above could fail."""
    names = (None, "plain", "again", "many", "lora")
    answers = [world.expected(world.request(), memory)[0].token_ids for memory in names]
    assert len(set(answers)) == 5
    assert len(world.expected(world.request(Sampling(40, **LASTING)), "many")[0].decisions) > 2


def test_pieces_of_a_stream_are_its_answers(world: World, engine: InferenceEngine) -> None:
    request = world.request(Sampling(40, **LASTING), Sampling(25, temperature=1.0, seed=1, **LASTING), memory="many")

    async def run() -> None:
        answers = await engine.answer(request)
        pieces, finished = await collect(engine.stream(request))
        assert [pieces[n] for n in range(2)] == [answer.generation.text for answer in answers]
        assert [finished[n].generation.token_ids for n in range(2)] == [a.generation.token_ids for a in answers]
        assert [len(answer.generation.token_ids) for answer in answers] == [40, 25]
        assert {answer.generation.finish_reason for answer in answers} == {"length"}

    asyncio.run(run())


def test_seeds_repeat_and_differ(world: World, engine: InferenceEngine) -> None:
    seeds = (3, 3, 4, 2**64 - 1, 2**64 - 1, -5)
    request = world.request(*(Sampling(20, temperature=1.0, seed=seed) for seed in seeds))
    answers = [answer.generation.token_ids for answer in asyncio.run(engine.answer(request))]
    again = [answer.generation.token_ids for answer in asyncio.run(engine.answer(request))]
    assert answers == again
    assert (answers[0], answers[3]) == (answers[1], answers[4])
    assert len(set(answers)) == 4


@pytest.mark.parametrize("memory", [None, "many"])
def test_a_stop_string_ends_the_answer_in_front_of_it(
    world: World, engine: InferenceEngine, memory: str | None
) -> None:
    [whole] = world.expected(world.request(Sampling(40, **LASTING)), memory)
    stop = whole.text[12:15]
    request = world.request(Sampling(40, stop=(stop,), logprobs=True, **LASTING), memory=memory)
    [expected] = world.expected(request, memory)
    assert (expected.finish_reason, len(expected.token_ids) < 40) == ("stop", True)
    [finished] = asyncio.run(engine.answer(request))
    check_same(finished.generation, expected)
    assert finished.generation.stop_string == expected.stop_string == stop
    pieces, _ = asyncio.run(collect(engine.stream(request)))
    assert pieces.get(0, "") == expected.text


def test_an_end_token_is_reported_and_no_part_of_the_answer(world: World, engine: InferenceEngine) -> None:
    request = world.request(Sampling(20, logit_bias=((END, 100.0),), min_tokens=3, logprobs=True), memory="many")
    [finished] = asyncio.run(engine.answer(request))
    [expected] = world.expected(request, "many")
    check_same(finished.generation, expected)
    assert (expected.end_token, len(expected.token_ids)) == (END, 3)
    assert finished.generation.end_logprob == pytest.approx(expected.end_logprob, abs=1e-3)


def test_the_likeliest_tokens_are_reported(world: World, engine: InferenceEngine) -> None:
    request = world.request(Sampling(12, temperature=1.0, seed=5, logprobs=True, top_logprobs=4, **LASTING))
    [finished] = asyncio.run(engine.answer(request))
    found = finished.generation
    assert found.alternatives is not None
    assert found.logprobs is not None
    assert len(found.alternatives) == len(found.logprobs) == len(found.token_ids) == len(finished.tokens) == 12
    for token, logprob, likeliest in zip(found.token_ids, found.logprobs, found.alternatives, strict=True):
        assert len(likeliest) == 4
        assert [each.logprob for each in likeliest] == sorted((each.logprob for each in likeliest), reverse=True)
        assert dict(likeliest).get(token, logprob) == pytest.approx(logprob, abs=1e-5)
    greedy = world.request(Sampling(12, logprobs=True, top_logprobs=2))
    [finished] = asyncio.run(engine.answer(greedy))
    [expected] = world.expected(greedy)
    assert [[each.token for each in place] for place in finished.generation.alternatives or ()] == [
        [each.token for each in place] for place in expected.alternatives or ()
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"frequency_penalty": 0.9},
        {"presence_penalty": 1.2},
        {"repetition_penalty": 1.3},
        {"logit_bias": ((40, 4.0), (41, -3.0))},
        {"min_tokens": 20, "logit_bias": ((END, 30.0),)},
    ],
)
@pytest.mark.parametrize("memory", [None, "many"])
def test_what_is_drawn_by_is_forwarded(
    world: World, engine: InferenceEngine, changes: dict[str, object], memory: str | None
) -> None:
    request = world.request(Sampling(32, **changes), memory=memory)  # type: ignore[arg-type]  # fields by name
    [finished] = asyncio.run(engine.answer(request))
    [expected] = world.expected(request, memory)
    check_same(finished.generation, expected)
    assert expected.token_ids != world.expected(world.request(Sampling(32)), memory)[0].token_ids


def test_top_k_and_top_p_narrow_the_draw(world: World, engine: InferenceEngine) -> None:
    greedy = world.expected(world.request(Sampling(16)))[0].token_ids
    samplings = (Sampling(16, temperature=2.0, seed=1, top_k=1), Sampling(16, temperature=2.0, seed=1, top_p=1e-6))
    answers = asyncio.run(engine.answer(world.request(*samplings)))
    assert [answer.generation.token_ids for answer in answers] == [greedy, greedy]


@pytest.mark.parametrize("memory", [None, "many"])
def test_an_answer_is_held_to_its_schema(world: World, engine: InferenceEngine, memory: str | None) -> None:
    properties = {"n": {"enum": [1, 22]}}
    schema = {"type": "object", "properties": properties, "required": ["n"], "additionalProperties": False}
    sampling = Sampling(200, temperature=1.0, seed=7, constraint=Constraint(json.dumps(schema)))
    [finished] = asyncio.run(engine.answer(world.request(sampling, memory=memory)))
    assert finished.generation.finish_reason == "stop"
    assert json.loads(finished.generation.text)["n"] in (1, 22)


def test_versions_are_mixed_and_keep_apart(world: World, engine: InferenceEngine) -> None:
    asking = [(memory, text) for text in ("hi", "y1", "Process the word garden.") for memory in (None, *SERVED)]

    async def run() -> list[list[Finished]]:
        requests = [world.request(Sampling(24), memory=memory, text=text) for memory, text in asking]
        return await asyncio.gather(*map(engine.answer, requests))

    for (memory, text), [finished] in zip(asking, asyncio.run(run()), strict=True):
        check_same(finished.generation, world.expected(world.request(Sampling(24), text=text), memory)[0])


def test_who_goes_away_ends_the_generation(world: World, engine: InferenceEngine) -> None:
    async def run() -> None:
        async with aclosing(engine.stream(world.request(LONG, memory="plain"))) as events:
            assert isinstance(await anext(events), Piece)
        working = asyncio.create_task(engine.answer(world.request(LONG, LONG)))
        await asyncio.sleep(0)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        [finished] = await engine.answer(world.request(Sampling(2)))
        assert len(finished.generation.token_ids) == 2

    asyncio.run(run())
    if world.server is not None:
        deadline = time.monotonic() + 20  # what it generates alone takes longer
        while world.server.running():
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_version_whose_bytes_are_gone(world: World, engine: InferenceEngine) -> None:
    nowhere = f"{world.prefix}/{'0' * 64}"
    gone = world.source(
        "plain",
        name="f" * 32,
        manifest_sha256="0" * 64,
        artifact_key=nowhere,
        fetch=lambda folder: world.store.get_folder(nowhere, folder),
        read_file=lambda file: world.store.get(f"{nowhere}/{file}"),
    )
    with pytest.raises(ObjectNotFound):
        asyncio.run(engine.answer(replace(world.request(), memory=gone)))


@pytest.mark.parametrize("file", ["memory.json", "weaver/adapter_model.safetensors"])
def test_a_version_whose_bytes_were_changed(world: World, engine: InferenceEngine, file: str, tmp_path: Path) -> None:
    broken = _damaged(world, file, tmp_path)
    request = replace(world.request(), memory=broken)
    with pytest.raises(ArtifactCorrupt, match=file):
        asyncio.run(engine.answer(request))
    with pytest.raises(ArtifactCorrupt, match=file):
        asyncio.run(collect(engine.stream(request)))
    assert len(asyncio.run(engine.answer(world.request(Sampling(2))))) == 1


def _damaged(world: World, file: str, folder: Path) -> MemorySource:
    """A memory with a manifest of its own, of which one file was changed behind it."""
    from memgen.checked_files import write_manifest

    world.store.get_folder(f"{world.prefix}/{world.hashes['plain']}", folder)
    (folder / "note").write_text(file)
    sha256 = write_manifest(folder)
    with (folder / file).open("ab") as opened:
        opened.write(b" ")
    key = f"{world.prefix}/{sha256}"
    world.store.put_folder(key, folder)
    return world.source(
        "plain",
        name=sha256[:32],
        manifest_sha256=sha256,
        artifact_key=key,
        fetch=lambda target: world.store.get_folder(key, target),
        read_file=lambda name: world.store.get(f"{key}/{name}"),
    )


def test_a_version_of_another_base_is_refused(world: World, engine: InferenceEngine) -> None:
    def refuse(base: object) -> None:
        raise BaseChanged("another base")

    source = world.source("plain", check_base=refuse)
    with pytest.raises(BaseChanged):
        asyncio.run(engine.answer(replace(world.request(), memory=source)))


def test_a_prompt_that_does_not_fit_is_refused(world: World, engine: InferenceEngine) -> None:
    with pytest.raises(PromptTooLong, match="new tokens"):
        asyncio.run(engine.answer(world.request(Sampling(1020))))
    with pytest.raises(PromptTooLong, match="32 latents and|8 latents and|20 latents and"):
        asyncio.run(engine.answer(world.request(Sampling(1000), memory="many")))
    with pytest.raises(PromptTooLong):
        asyncio.run(engine.answer(world.request(text="x" * 100_000)))


@pytest.mark.parametrize("name", ["embedding", "decided"])
def test_what_an_engine_cannot_weave_it_refuses_by_name(world: World, engine: InferenceEngine, name: str) -> None:
    request = world.request(Sampling(8), memory=name)
    if ENGINE == "local":
        check_same(asyncio.run(engine.answer(request))[0].generation, world.expected(request, name)[0])
        return
    with pytest.raises(NotServedByEngine, match=f"{name}@1 can't be answered by the engine vllm: its"):
        asyncio.run(engine.answer(request))


def test_a_request_beyond_its_time_ends(world: World, start: Start) -> None:
    slow = start(inference_timeout_seconds=0.4)

    async def run() -> None:
        with pytest.raises(InferenceUnavailable, match=r"within 0\.4 s"):
            await slow.answer(world.request(*[replace(LONG, max_new_tokens=980)] * 8))

    asyncio.run(run())


def test_a_request_may_give_itself_less_time(world: World, engine: InferenceEngine) -> None:
    with pytest.raises(InferenceUnavailable, match=r"within 0\.2 s"):
        asyncio.run(engine.answer(world.request(*[replace(LONG, max_new_tokens=980)] * 8, timeout_seconds=0.2)))


def test_what_comes_when_too_much_waits_is_refused_at_once(world: World, start: Start) -> None:
    crowded = start(queue_requests=2)

    async def run() -> list[list[Finished] | BaseException]:
        await crowded.answer(world.request(Sampling(1)))
        requests = [world.request(Sampling(4, **LASTING), text=f"{n}") for n in range(60)]
        return await asyncio.gather(*map(crowded.answer, requests), return_exceptions=True)

    found = asyncio.run(run())
    refused = [each for each in found if isinstance(each, QueueFull)]
    answered = [each for each in found if isinstance(each, list)]
    assert len(refused) + len(answered) == 60
    assert refused
    assert answered
    assert all(each.retry_seconds >= 1 for each in refused)


def test_a_stop_ends_what_is_answered_and_refuses_what_comes(world: World, start: Start) -> None:
    stopping = start()

    async def run() -> None:
        events = stopping.stream(world.request(LONG))
        assert isinstance(await anext(events), Piece)
        await asyncio.to_thread(stopping.stop)
        with pytest.raises(InferenceUnavailable, match="the service is stopping"):
            async for _ in events:
                pass
        with pytest.raises(InferenceUnavailable, match="the service is stopping"):
            await stopping.answer(world.request())

    asyncio.run(run())
    with pytest.raises(InferenceUnavailable, match="the service is stopping"):
        stopping.check_ready()


def test_a_background_answer_is_given_up_for_another_request(world: World, engine: InferenceEngine) -> None:
    async def run() -> None:
        [alone] = await engine.answer(world.request(Sampling(4)), background=True)
        assert len(alone.generation.token_ids) == 4
        behind = asyncio.create_task(engine.answer(world.request(LONG, LONG), background=True))
        await engine.answer(world.request(Sampling(2)))  # it may have been taken first
        await asyncio.sleep(0.05)
        await engine.answer(world.request(Sampling(2)))
        with pytest.raises(Preempted):
            await behind

    asyncio.run(run())


def test_what_it_answers_with_is_known(world: World, engine: InferenceEngine) -> None:
    asyncio.run(engine.answer(world.request(Sampling(1))))
    engine.check_ready()
    assert engine.base is not None
    assert engine.base.revision == world.host.backbone.revision
    assert engine.base.identity == world.host.backbone.identity.to_mapping()
    assert engine.description is not None
    assert engine.description["accepted"] is True


def test_tokens_are_counted_as_an_answer_counts_them(world: World, engine: InferenceEngine) -> None:
    request = world.request(Sampling(1), text="Process the word garden.")
    [finished] = asyncio.run(engine.answer(request))
    assert asyncio.run(engine.count_tokens(request)) == finished.generation.prompt_tokens


def test_a_raw_prompt_is_read_as_it_is(world: World, engine: InferenceEngine) -> None:
    asked = world.request(Sampling(8), text="hi")
    ids = tuple(world.host.backbone.profile.prompt_ids(asked.messages, None))
    [expected], [raw] = (asyncio.run(engine.answer(each)) for each in (asked, replace(asked, raw_prompt=ids)))
    assert raw.generation.token_ids == expected.generation.token_ids
    with pytest.raises(ConfigError, match="token id 259"):
        asyncio.run(engine.answer(replace(asked, raw_prompt=(259,))))


def test_without_a_start_nobody_waits(world: World) -> None:
    idle = make_engine(world.settings)
    with pytest.raises(InferenceUnavailable, match="started without the model"):
        asyncio.run(idle.answer(world.request()))
