"""A version whose bytes do not come holds up nobody but those who want it, and what left costs nothing."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from api.inference.requests import Finished
from api.inference.unavailable import InferenceUnavailable, QueueFull
from memgen.backbone.loading import Backbone
from memgen.generation.sampling import Sampling
from memgen.routing.isolated import with_task
from memgen.training.examples import Example, build_examples
from tests.api.inference.test_local_scheduling import Start, Stored, asking, backbone, eventually, start, stored
from tests.api.watched import watch
from tests.memgen.conftest import conversations

__all__ = ["backbone", "start", "stored", "watch"]

OTHERS_WORD = "nnnnnnnnnnnnnnn"


@pytest.fixture(scope="module")
def routed(stored: Callable[..., Stored], backbone: Backbone) -> Callable[[], Stored]:
    """Makes a version of two tasks; prompts with "yes" go to another memory, whose bytes do not come until `go`."""

    def make() -> Stored:
        def examples(word: str) -> list[Example]:
            return list(build_examples(backbone.profile, conversations(40, word), max_tokens=500).examples)

        first = with_task(None, None, backbone, "yes", examples("yes"))
        other = stored(seed=1, isolated=first)
        other.go.clear()
        own = stored(seed=2, isolated=with_task(first, other.manifest, backbone, "no", examples(OTHERS_WORD)))
        own.beside[other.manifest] = other
        return own

    return make


def held_of(own: Stored) -> Stored:
    [other] = own.beside.values()
    return other


async def answered(task: "asyncio.Task[list[Finished]]") -> Finished:
    async with asyncio.timeout(20):
        [answer] = await task
    return answer


def test_those_who_wait_for_another_tasks_memory_hold_no_place_that_others_need(
    start: Start, routed: Callable[[], Stored]
) -> None:
    """They are answered by that memory once it is there, in front of those that came later."""
    own = routed()
    inference = start(inference_batch=2)
    other = held_of(own)

    async def run() -> None:
        to_other = [
            asyncio.create_task(inference.answer(asking(Sampling(4), text=f"say yes {n}", memory=own.source("v"))))
            for n in range(4)
        ]
        await eventually(lambda: other.fetches)
        beside = [asyncio.create_task(inference.answer(asking(Sampling(9)))) for _ in range(3)]
        for task in beside:
            assert len((await answered(task)).generation.token_ids) == 9
        assert not any(task.done() for task in to_other)
        other.go.set()
        for task in to_other:
            answer = await answered(task)
            assert (answer.task, len(answer.generation.insertions)) == ("yes", 1)
        await eventually(lambda: inference.figures.cache_bytes == 0 and not inference.figures.loading)

    try:
        asyncio.run(run())
    finally:
        other.go.set()
    assert other.fetches == 1


@pytest.mark.parametrize("broken", [False, True])
def test_those_set_aside_may_leave_or_hear_why(start: Start, routed: Callable[[], Stored], broken: bool) -> None:
    own = routed()
    inference = start(inference_batch=1)
    other = held_of(own)
    other.broken = broken

    async def run() -> None:
        to_other = asyncio.create_task(inference.answer(asking(Sampling(4), text="say yes 1", memory=own.source("v"))))
        await eventually(lambda: other.fetches)
        await answered(asyncio.create_task(inference.answer(asking(Sampling(2)))))
        if not broken:
            to_other.cancel()
        other.go.set()
        with pytest.raises(Exception if broken else asyncio.CancelledError):
            await answered(to_other)
        await eventually(lambda: not inference.figures.loading and inference.figures.cache_bytes == 0)
        assert len((await answered(asyncio.create_task(inference.answer(asking(Sampling(2)))))).generation.token_ids)

    try:
        asyncio.run(run())
    finally:
        other.go.set()


def test_what_left_holds_nothing_while_nothing_else_comes(start: Start, routed: Callable[[], Stored]) -> None:
    """The model's thread has nothing to do when the reader of an answer that waits for a memory goes."""
    own = routed()
    inference = start()
    other = held_of(own)

    async def run() -> None:
        leaves = asyncio.create_task(inference.answer(asking(Sampling(4), text="say yes 1", memory=own.source("v"))))
        await eventually(lambda: other.fetches and inference.figures.loading)
        assert inference.figures.cache_bytes
        leaves.cancel()
        await eventually(lambda: not inference.figures.cache_bytes and not inference.figures.running)

    try:
        asyncio.run(run())
    finally:
        other.go.set()


def test_the_background_is_answered_though_a_version_that_nobody_wants_any_more_does_not_come(
    start: Start, stored: Callable[..., Stored]
) -> None:
    cold = stored()
    inference = start()
    cold.go.clear()

    async def run() -> None:
        wants = [asyncio.create_task(inference.answer(asking(Sampling(1), memory=cold.source("v")))) for _ in range(3)]
        shadow = asyncio.create_task(inference.answer(asking(Sampling(1), memory=cold.source("v")), background=True))
        await eventually(lambda: cold.fetches)
        background = asyncio.create_task(inference.answer(asking(Sampling(3)), background=True))
        for task in wants:
            task.cancel()
        assert len((await answered(background)).generation.token_ids) == 3
        assert not shadow.done()
        cold.go.set()
        await answered(shadow)

    try:
        asyncio.run(run())
    finally:
        cold.go.set()


def test_versions_that_do_not_come_keep_no_other_from_being_loaded(start: Start, stored: Callable[..., Stored]) -> None:
    good = stored()
    hung = [stored(seed=n) for n in range(1, 5)]
    for each in hung:
        each.go.clear()
    inference = start()

    async def run() -> None:
        wants = [
            asyncio.create_task(inference.answer(asking(Sampling(1), memory=each.source(f"hung{n}"))))
            for n, each in enumerate(hung)
        ]
        await eventually(lambda: inference.figures.loading == 4)
        answer = await answered(asyncio.create_task(inference.answer(asking(Sampling(1), memory=good.source("v")))))
        assert answer.generation.insertions
        inference.stop()
        for task in wants:
            with pytest.raises(InferenceUnavailable, match="stopping"):
                await task

    try:
        asyncio.run(run())
    finally:
        for each in hung:
            each.go.set()


def test_those_that_wait_for_versions_leave_room_for_others_to_wait(
    start: Start, stored: Callable[..., Stored], routed: Callable[[], Stored]
) -> None:
    """By the version's own bytes, or those of another task's memory that its requests were set aside for."""
    cold, own = stored(), routed()
    other = held_of(own)
    cold.go.clear()
    inference = start(queue_requests=8, inference_batch=1)

    async def run() -> None:
        await inference.answer(asking(Sampling(1)))
        for text, version in (("hi", cold), ("say yes 1", own)):
            wants = []
            for _ in range(7):
                request = asking(Sampling(2), text=text, memory=version.source(text))
                wants.append(asyncio.create_task(inference.answer(request)))
                await answered(asyncio.create_task(inference.answer(asking(Sampling(2)))))
            while sum(task.done() for task in wants) < 3:  # each that others need the place of is set aside, or refused
                await answered(asyncio.create_task(inference.answer(asking(Sampling(2)))))
            assert inference._backlog.requests == 4
            refused = [task.exception() for task in wants if task.done()]
            assert len(refused) == 3
            assert all(isinstance(error, QueueFull) and "wait for versions" in str(error) for error in refused)
            (cold if version is cold else other).go.set()
            for task in wants:
                if not task.done():
                    assert (await answered(task)).generation.insertions
        await eventually(lambda: not inference.figures.waiting and not inference.figures.waiting_tokens)

    try:
        asyncio.run(run())
    finally:
        cold.go.set()
        other.go.set()


def test_a_load_that_cannot_begin_fails_its_request_alone(
    start: Start, stored: Callable[..., Stored], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the system has no thread left; the next request tries again."""
    inference, version = start(), stored()
    begin, failures = threading.Thread.start, ["can't start new thread"]

    def start_thread(thread: threading.Thread) -> None:
        if thread.name.startswith("version") and failures:
            raise RuntimeError(failures.pop())
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", start_thread)

    async def run() -> None:
        with pytest.raises(RuntimeError, match="new thread"):
            await inference.answer(asking(Sampling(1), memory=version.source("v")))
        assert await inference.answer(asking(Sampling(1)))
        [answer] = await inference.answer(asking(Sampling(1), memory=version.source("v")))
        assert answer.generation.insertions

    asyncio.run(run())


def test_who_waits_for_a_version_says_nothing_of_how_fast_answers_are_given(
    start: Start, stored: Callable[..., Stored]
) -> None:
    """What is refused meanwhile is to come again soon: by the speed of the answers before."""
    inference, cold = start(queue_requests=200), stored()
    cold.go.clear()

    async def run() -> None:
        await inference.answer(asking(Sampling(100)))
        wants: list[asyncio.Task[list[Finished]]] = []
        while len(wants) < 100:  # one by one: each wakes the model's thread
            wants.append(asyncio.create_task(inference.answer(asking(Sampling(2), memory=cold.source("v")))))
            await eventually(lambda: inference.figures.waiting == len(wants))
        with pytest.raises(QueueFull) as refused:
            await inference.answer(asking(Sampling(2), memory=cold.source("v")))
        assert refused.value.retry_seconds < 60
        cold.go.set()
        await asyncio.gather(*wants)

    try:
        asyncio.run(run())
    finally:
        cold.go.set()
