"""The thread that owns the model, and the tasks that ask it. No server under it."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from api.inference.local.engine import LocalEngine
from api.inference.requests import ChatRequest, Finished, MemorySource, Piece
from api.inference.unavailable import InferenceUnavailable
from memgen.errors import PromptTooLong
from memgen.generation.reading import Chunk, Readings
from memgen.generation.sampling import Sampling
from registry.settings import Settings, load_settings
from tests.api.watched import Watch, watch

__all__ = ["watch"]

Start = Callable[..., LocalEngine]


@pytest.fixture
def start(tiny_base: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts an inference thread on the tiny base, with other settings if given."""
    started: list[LocalEngine] = []

    def make(**overrides: object) -> LocalEngine:
        inference = LocalEngine(_settings(tiny_base, tmp_path, **overrides))
        inference.start()
        started.append(inference)
        return inference

    yield make
    for inference in started:
        inference.stop()


def _settings(base: Path, home: Path, **overrides: object) -> Settings:
    given: dict[str, Any] = {"home": home, "base_model": str(base), "torch_threads": 1, **overrides}
    return load_settings(service_env=False, **given)


def asking(*samplings: Sampling, text: str = "hi", **more: Any) -> ChatRequest:
    messages = [{"role": "user", "content": text}]
    return ChatRequest(**{"messages": messages, "tools": None, "samplings": samplings, "memory": None, **more})


async def _queued(inference: LocalEngine, count: int) -> None:
    """Wait until so many requests have their prompts read and wait for the model's thread, which is held."""
    async with asyncio.timeout(30):
        while len(inference._inbox) < count:
            await asyncio.sleep(0.001)


async def _first(events: AsyncGenerator[Piece | Finished, None], held: Watch | None = None) -> None:
    """Wait until text of the answer is there, and until the model's thread is held."""
    assert isinstance(await anext(events), Piece)
    if held is not None:
        assert await asyncio.to_thread(held.is_held.wait, 60)


def test_the_pieces_of_a_stream_are_its_answer(start: Start) -> None:
    inference = start()
    request = asking(Sampling(40), Sampling(25, temperature=1.0, seed=1))

    async def run() -> None:
        answers = await inference.answer(request)
        pieces, finished = ["", ""], []
        async for event in inference.stream(request):
            if isinstance(event, Finished):
                finished.append(event)
            else:
                assert all(event.choice != done.choice for done in finished)
                pieces[event.choice] += event.text
        assert [a.generation.text for a in answers] == pieces
        assert [a.generation.token_ids for a in sorted(finished, key=lambda f: f.choice)] == [
            a.generation.token_ids for a in answers
        ]
        assert [len(a.generation.token_ids) for a in answers] == [40, 25]

    asyncio.run(run())


def test_a_prompt_is_read_once_for_all_its_answers_and_turns(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    real = Readings.note

    def counted(self: Readings, chunk: Chunk, hidden: Tensor) -> None:
        read.append(chunk.tokens)
        real(self, chunk, hidden)

    monkeypatch.setattr(Readings, "note", counted)
    first = [{"role": "user", "content": "hi"}]
    second = [*first, {"role": "assistant", "content": "yo"}, {"role": "user", "content": "and?"}]

    async def ask(inference: LocalEngine, messages: list[dict[str, Any]]) -> int:
        request = asking(*(Sampling(2, temperature=1.0, seed=n) for n in range(4)), messages=messages)
        return (await inference.answer(request))[0].generation.prompt_tokens

    async def converse(inference: LocalEngine) -> tuple[int, int]:
        return await ask(inference, first), await ask(inference, second)

    one, two = asyncio.run(converse(start()))
    # The last token of a prompt is the answers' to read.
    assert (read, two > one + 10) == ([one - 1, two - one], True)
    read.clear()
    asyncio.run(converse(start(prompt_cache_bytes=0)))
    assert read == [one - 1, two - 1]


@pytest.mark.parametrize("close", [True, False])
def test_who_goes_away_costs_no_more_tokens(start: Start, watch: Watch, close: bool) -> None:
    inference = start()
    watch.step_seconds = 0.01

    async def run() -> None:
        if close:
            async with aclosing(inference.stream(asking(Sampling(900)))) as events:
                await _first(events)
        else:
            working = asyncio.create_task(inference.answer(asking(Sampling(900))))
            while not watch.steps:
                await asyncio.sleep(0.01)
            working.cancel()
            with pytest.raises(asyncio.CancelledError):
                await working
        await inference.answer(asking(Sampling(1)))

    asyncio.run(run())
    assert 1 < watch.steps < 200


def test_who_went_away_while_waiting_is_not_answered(start: Start, watch: Watch) -> None:
    inference = start(inference_batch=1)
    watch.hold(after=1)

    async def run() -> None:
        async with aclosing(inference.stream(asking(Sampling(3)))) as events:
            await _first(events, watch)
            leaving, staying = (asyncio.create_task(inference.answer(asking(Sampling(5)))) for _ in range(2))
            await _queued(inference, 2)
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            watch.go()
            assert len((await staying)[0].generation.token_ids) == 5

    asyncio.run(run())
    assert watch.joined == 2


def test_a_request_beyond_its_time_ends(start: Start, watch: Watch) -> None:
    inference = start(inference_timeout_seconds=1.0)
    watch.step_seconds = 0.05

    async def run() -> None:
        with pytest.raises(InferenceUnavailable, match=r"no answer within 1 s.*MEMGEN_INFERENCE_TIMEOUT_SECONDS"):
            await inference.answer(asking(Sampling(900)))
        steps = watch.steps
        watch.step_seconds = 0.0
        await inference.answer(asking(Sampling(1)))
        assert watch.steps <= steps + 3

    asyncio.run(run())


def test_an_answer_does_not_wait_for_the_longer_ones_of_its_batch(start: Start, watch: Watch) -> None:
    inference = start()
    watch.hold(after=10)

    async def run() -> None:
        async for event in inference.stream(asking(Sampling(900), Sampling(5))):
            if isinstance(event, Finished):
                break
        assert (event.choice, len(event.generation.token_ids)) == (1, 5)

    asyncio.run(run())
    assert watch.steps <= 10


def test_requests_join_those_that_are_decoded_while_there_are_places(start: Start, watch: Watch) -> None:
    inference = start(inference_batch=4)
    watch.hold(after=1)

    async def run() -> None:
        async with aclosing(inference.stream(asking(Sampling(40)))) as events:
            await _first(events, watch)
            waiting = []
            for answers in (2, 1, 2, 6, 1):
                request = asking(*(Sampling(3) for _ in range(answers)))
                waiting.append(asyncio.create_task(inference.answer(request)))
                await _queued(inference, len(waiting))
            watch.go()
            assert [len(each) for each in await asyncio.gather(*waiting)] == [2, 1, 2, 6, 1]

    asyncio.run(run())
    assert (watch.rows[0], max(watch.rows)) == (1, 4)


def test_a_failing_step_is_told_and_the_next_request_answered(start: Start, watch: Watch) -> None:
    inference = start()
    watch.fail_at = 3

    async def run() -> None:
        events = inference.stream(asking(Sampling(10)))
        await _first(events)
        with pytest.raises(RuntimeError, match="the device is gone"):
            [event async for event in events]
        assert len(await inference.answer(asking(Sampling(4)))) == 1

    asyncio.run(run())


def test_a_request_that_cannot_be_prepared_hurts_only_itself(start: Start, watch: Watch) -> None:
    inference = start()
    watch.hold(after=1)

    def fetch(folder: Path) -> None:
        raise KeyError("no such folder")

    async def run() -> None:
        async with aclosing(inference.stream(asking(Sampling(2)))) as events:
            await _first(events, watch)
            waiting = asyncio.gather(
                inference.answer(asking(Sampling(1), text="x" * 2000)),
                inference.answer(asking(Sampling(1), memory=MemorySource("m", "", fetch))),
                inference.answer(asking(Sampling(4))),
                return_exceptions=True,
            )
            await _queued(inference, 2)
            watch.go()
            too_long, broken, good = await waiting
        assert (type(too_long), type(broken)) == (PromptTooLong, KeyError)
        assert len(good[0].generation.token_ids) == 4

    asyncio.run(run())
    assert watch.joined == 2


LONG = {"a long text": [{"role": "user", "content": "x" * 10_000_000}],
        "many texts": [{"role": "user", "content": "x"}] * 100_000,
        "long arguments": [{"role": "assistant", "tool_calls": [
            {"function": {"name": "f", "arguments": {"x": ["x" * 1_000_000]}}}]}]}  # fmt: skip


@pytest.mark.parametrize("messages", LONG.values(), ids=LONG)
def test_a_prompt_that_cannot_fit_is_refused_while_others_are_answered(
    start: Start, watch: Watch, messages: list[dict[str, Any]]
) -> None:
    """The thread of the model is held meanwhile, and no more of the prompt is read than the context has room for."""
    inference = start()
    watch.hold(after=1)

    async def run() -> None:
        async with aclosing(inference.stream(asking(Sampling(900)))) as events:
            await _first(events)
            tokenizer = inference._host.backbone.tokenizer
            read: list[int] = []
            real = type(tokenizer).__call__

            def counted(self: Any, text: str, **options: Any) -> Any:
                read.append(len(text))
                return real(self, text, **options)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(type(tokenizer), "__call__", counted)
                with pytest.raises(PromptTooLong, match="the model's context has 1024"):
                    await inference.answer(asking(Sampling(1), messages=messages))
            assert sum(read) <= 40_000
            watch.go()

    asyncio.run(run())


def test_a_prompt_within_the_context_is_never_refused_for_its_characters(start: Start) -> None:
    """A past thought is not shown to the model, however long it was."""
    thought = {"role": "assistant", "content": f"<think>{'x' * 100_000}</think>yes"}
    messages = [{"role": "user", "content": "hi"}, thought, {"role": "user", "content": "and?"}]
    [finished] = asyncio.run(start().answer(asking(Sampling(1), messages=messages)))
    assert finished.generation.prompt_tokens < 200


def test_a_reader_whose_loop_is_gone_does_not_stop_the_thread(start: Start, watch: Watch) -> None:
    inference = start()
    watch.hold(after=1)
    loop = asyncio.new_event_loop()
    events = inference.stream(asking(Sampling(900)))
    loop.run_until_complete(_first(events))
    loop.close()
    watch.go()
    assert len(asyncio.run(inference.answer(asking(Sampling(3))))) == 1
    assert watch.steps < 20


def test_a_stop_ends_what_is_answered_and_refuses_what_waits(start: Start, watch: Watch) -> None:
    inference = start(inference_batch=1)
    watch.step_seconds = 0.01

    async def run() -> None:
        async with aclosing(inference.stream(asking(Sampling(900)))) as events:
            await _first(events)
            waiting = asyncio.create_task(inference.answer(asking(Sampling(1))))
            async with asyncio.timeout(30):
                while not inference.figures.waiting:
                    await asyncio.sleep(0.001)
            await asyncio.to_thread(inference.stop)
            for refused in (waiting, anext(e async for e in events if isinstance(e, Finished))):
                with pytest.raises(InferenceUnavailable, match="stopping"):
                    await refused
        with pytest.raises(InferenceUnavailable, match="stopping"):
            await inference.answer(asking(Sampling(1)))

    asyncio.run(run())
    assert watch.steps < 200


def test_a_stop_while_the_model_is_loaded_refuses_what_waits_at_once(tiny_base: Path, tmp_path: Path) -> None:
    loaded = threading.Event()
    inference = LocalEngine(_settings(tiny_base, tmp_path), on_loaded=lambda _: loaded.wait(60))
    inference.start()

    async def run() -> None:
        waiting = asyncio.create_task(inference.answer(asking(Sampling(1))))
        async with asyncio.timeout(30):
            while not inference.figures.waiting:
                await asyncio.sleep(0.001)
        stopping = asyncio.create_task(asyncio.to_thread(inference.stop))
        try:
            for refused in (waiting, inference.answer(asking(Sampling(1)))):
                with pytest.raises(InferenceUnavailable, match="stopping"):
                    async with asyncio.timeout(5):
                        await refused
        finally:
            loaded.set()
        await stopping

    asyncio.run(run())
    with pytest.raises(InferenceUnavailable, match="stopping"):
        inference.check_ready()


def test_without_a_model_nobody_waits(tiny_base: Path, tmp_path: Path) -> None:
    managing = LocalEngine(_settings(tiny_base, tmp_path))
    with pytest.raises(InferenceUnavailable, match="without the model"):
        asyncio.run(managing.answer(asking(Sampling(1))))

    broken = LocalEngine(_settings(tmp_path / "nowhere", tmp_path))

    async def run() -> None:
        waiting = asyncio.create_task(broken.answer(asking(Sampling(1))))
        await asyncio.sleep(0)
        for refused in (waiting, broken.answer(asking(Sampling(1)))):
            with pytest.raises(InferenceUnavailable, match="could not be loaded: .*nowhere"):
                await refused

    broken.start()
    asyncio.run(run())
    with pytest.raises(InferenceUnavailable, match="could not be loaded"):
        broken.check_ready()
