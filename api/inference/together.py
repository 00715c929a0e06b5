"""Several prompts of one request, answered at once; their choices are numbered on from prompt to prompt."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import TypeVar

from api.inference.engine import InferenceEngine
from api.inference.requests import ChatRequest, Finished, Piece

_Event = TypeVar("_Event", bound=Piece | Finished)

_AHEAD = 64
"""Events that may wait for the reader; then the prompts' own readers wait."""


async def answer_together(engine: InferenceEngine, requests: Sequence[ChatRequest]) -> list[Finished]:
    """All answers in order. If one prompt fails, the others end and its error is raised, as by `engine.answer`."""
    if len(requests) == 1:
        return await engine.answer(requests[0])
    tasks = [asyncio.create_task(engine.answer(request)) for request in requests]
    try:
        found = await asyncio.gather(*tasks)
    finally:
        await _end(tasks)
    return [
        _numbered(answer, first)
        for first, answers in zip(_first_choices(requests), found, strict=True)
        for answer in answers
    ]


def stream_together(engine: InferenceEngine, requests: Sequence[ChatRequest]) -> AsyncGenerator[Piece | Finished, None]:
    """The events of all as they come. Closing the generator ends them all."""
    return engine.stream(requests[0]) if len(requests) == 1 else _merged(engine, requests)


async def _merged(engine: InferenceEngine, requests: Sequence[ChatRequest]) -> AsyncGenerator[Piece | Finished, None]:
    """Nothing comes until each prompt has begun to be answered: one that is refused is refused for all, first."""
    come: asyncio.Queue[tuple[int, Piece | Finished | Exception | None]] = asyncio.Queue(_AHEAD)

    async def read(number: int, request: ChatRequest, first: int) -> None:
        events = engine.stream(request)
        try:
            async for event in events:
                await come.put((number, _numbered(event, first)))
            await come.put((number, None))
        except Exception as error:
            await come.put((number, error))
        finally:
            await events.aclose()

    numbered = enumerate(zip(requests, _first_choices(requests), strict=True))
    tasks = [asyncio.create_task(read(number, each, first)) for number, (each, first) in numbered]
    left, waiting = len(tasks), set(range(len(tasks)))
    held: list[Piece | Finished] = []
    try:
        while left:
            number, event = await come.get()
            if isinstance(event, Exception):
                raise event
            waiting.discard(number)
            if event is None:
                left -= 1
            else:
                held.append(event)
            if not waiting:
                for each in held:
                    yield each
                held = []
    finally:
        await _end(tasks)


async def _end(tasks: Sequence[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _first_choices(requests: Sequence[ChatRequest]) -> list[int]:
    """Number of the first choice of each."""
    return [sum(len(before.samplings) for before in requests[:place]) for place in range(len(requests))]


def _numbered(event: _Event, first: int) -> _Event:
    return replace(event, choice=first + event.choice)
