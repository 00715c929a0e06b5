"""Several prompts at once: all events come, numbered on; who stops reading ends them all, and so does an error."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest

from api.inference.engine import InferenceEngine
from api.inference.requests import ChatRequest, Finished, Piece
from api.inference.together import answer_together, stream_together
from memgen.errors import PromptTooLong
from memgen.generation.requests import Generation, Timings
from memgen.generation.sampling import Sampling


class Endless:
    """Streams and answers that end only when they are closed, or fail at a word."""

    def __init__(self) -> None:
        self.closed: list[str] = []

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Piece | Finished, None]:
        name = str(request.raw_prompt)
        try:
            while name != "fail":
                yield Piece(0, name)
                await asyncio.sleep(0)
            raise PromptTooLong("too long")
        finally:
            self.closed.append(name)

    async def answer(self, request: ChatRequest) -> list[Finished]:
        return [cast(Finished, event) async for event in self.stream(request)]


def asks(*names: str, answers: int = 2) -> list[ChatRequest]:
    return [ChatRequest([], None, (Sampling(),) * answers, None, name) for name in names]


def test_closing_ends_all_streams() -> None:
    async def run() -> None:
        engine = Endless()
        events = stream_together(cast(InferenceEngine, engine), asks("a", "b", "c"))
        seen: set[Any] = set()
        async for event in events:
            seen.add((event.choice, cast(Piece, event).text))
            if len(seen) == 3:
                break
        await events.aclose()
        assert seen == {(0, "a"), (2, "b"), (4, "c")}
        assert sorted(engine.closed) == ["a", "b", "c"]

    asyncio.run(run())


async def _all_events(engine: InferenceEngine, requests: list[ChatRequest]) -> list[Any]:
    return [event async for event in stream_together(engine, requests)]


@pytest.mark.parametrize("whole", [False, True])
def test_an_error_of_one_ends_the_others(whole: bool) -> None:
    async def run() -> None:
        engine = Endless()
        with pytest.raises(PromptTooLong):
            await (answer_together if whole else _all_events)(cast(InferenceEngine, engine), asks("a", "fail"))
        assert sorted(engine.closed) == ["a", "fail"]

    asyncio.run(run())


def test_a_client_that_leaves_ends_all_answers() -> None:
    async def run() -> None:
        engine = Endless()
        task = asyncio.create_task(answer_together(cast(InferenceEngine, engine), asks("a", "b")))
        for _ in range(20):  # turns of the loop, in which both have begun
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (task.cancelled(), sorted(engine.closed)) == (True, ["a", "b"])

    asyncio.run(run())


def test_answers_come_in_order() -> None:
    class Answering(Endless):
        async def answer(self, request: ChatRequest) -> list[Finished]:
            generation = Generation((), str(request.raw_prompt), "stop", (), 1, Timings())
            return [Finished(choice, generation) for choice in range(len(request.samplings))]

    async def run() -> None:
        answers = await answer_together(cast(InferenceEngine, Answering()), asks("a", "b"))
        assert [(each.choice, each.generation.text) for each in answers] == [(0, "a"), (1, "a"), (2, "b"), (3, "b")]

    asyncio.run(run())
