"""The engine in this process: what many chats at once gain, and what they cost one another."""

import asyncio
import statistics
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from api.inference.local.engine import LocalEngine
from api.inference.requests import ChatRequest, MemorySource
from bench.serving.workload import chat, endless, follow, mixed_chats, noted_loads, questions, running, throughput
from bench.speed.ratios import Findings, InvalidRun, Ratio
from memgen.backbone.loading import Backbone
from registry.settings import Settings

_SHORT_TOKENS = 20
_LONG_TOKENS = 1000
_AT_ONCE = 16


def concurrency(backbone: Backbone, settings: Settings, versions: Sequence[MemorySource], pairs: int) -> Findings:
    """Keys `concurrent16_over_one` and `mixed8_over_single`."""
    several: list[float] = []
    mixed: list[float] = []
    speeds: dict[str, list[float]] = {"one": [], "concurrent16": [], "single16": [], "mixed16": []}

    async def measure(engine: LocalEngine) -> None:
        bare = mixed_chats(backbone, 3 * _AT_ONCE, [None])
        single = [replace(each, memory=versions[0]) for each in bare]
        each_own = [replace(each, memory=versions[n % len(versions)]) for n, each in enumerate(bare)]
        await throughput(engine, [*single[:2], *each_own[: len(versions)]], _AT_ONCE)  # loads the versions
        for _ in range(pairs):
            one = await throughput(engine, bare[:8], 1)
            together = await throughput(engine, bare, _AT_ONCE)
            alike, unlike = [await throughput(engine, some, _AT_ONCE) for some in (single, each_own)]
            several.append(together / one)
            mixed.append(unlike / alike)
            for key, value in zip(speeds, (one, together, alike, unlike), strict=True):
                speeds[key].append(value)

    _on(settings.model_copy(update={"prompt_cache_bytes": 0}), measure)
    tokens_a_second = {key: round(statistics.median(values), 1) for key, values in speeds.items()}
    return Findings(
        (
            Ratio(
                "concurrent16_over_one",
                "tokens/s of 16 mixed chats at once, over one at a time",
                tuple(several),
            ),
            Ratio("mixed8_over_single", "tokens/s of 16 chats, 8 versions mixed, over one version", tuple(mixed)),
        ),
        {
            "how": "48 chats, 16 always under way, bare base for the first key; no prompt is known from before",
            "tokens_a_second": tokens_a_second,
        },
    )


def first_token(backbone: Backbone, settings: Settings, pairs: int) -> Findings:
    """Key `short_first_token_behind_long`."""
    alone: list[float] = []
    behind: list[float] = []

    async def measure(engine: LocalEngine) -> None:
        texts = questions(backbone, 2 * pairs + 2, (40,))
        await follow(engine, chat(texts[-1], _SHORT_TOKENS))
        alone.extend([(await follow(engine, chat(text, _SHORT_TOKENS))).first_seconds for text in texts[:pairs]])
        long = asyncio.create_task(follow(engine, chat(texts[-2], _LONG_TOKENS)))
        await asyncio.sleep(1.0)
        for text in texts[pairs : 2 * pairs]:
            behind.append((await follow(engine, chat(text, _SHORT_TOKENS))).first_seconds)
            await asyncio.sleep(0.02 * len(behind))  # at another moment of a step
        if long.done():
            raise InvalidRun("the long answer ended before the short ones")
        long.cancel()
        await asyncio.gather(long, return_exceptions=True)

    _on(settings.model_copy(update={"prompt_cache_bytes": 0}), measure)
    usual = statistics.median(alone)
    ratio = Ratio(
        "short_first_token_behind_long",
        f"time to first token of a {_SHORT_TOKENS}-token request while a {_LONG_TOKENS}-token answer runs, over alone",
        tuple(value / usual for value in behind),
    )
    return Findings((ratio,), {"milliseconds_alone": _spread(alone), "milliseconds_behind": _spread(behind)})


def cold_version(backbone: Backbone, settings: Settings, versions: Sequence[MemorySource], pairs: int) -> Findings:
    """Keys `cold_version_stall` and `cold_version_stall_with_weaving`. A version is loaded that the process does not
    know yet, for a prompt that is known, while four answers run; the second key counts until its first token."""
    stalls: list[float] = []
    until_first: list[float] = []
    usual_gaps: list[float] = []
    seconds: list[float] = []

    async def measure(engine: LocalEngine) -> None:
        [text, *others] = questions(backbone, 5, (40,))
        await follow(engine, chat(text, _SHORT_TOKENS))
        for number in range(pairs):
            times: list[float] = []
            tasks = [asyncio.create_task(_note(engine, chat(other, 200), times)) for other in others]
            await asyncio.sleep(2.0)
            cold = replace(versions[number % len(versions)], name=f"cold-{number}")
            sent = time.perf_counter()
            answered = await follow(engine, chat(text, 2, cold))
            await asyncio.sleep(1.0)
            ran = not any(task.done() for task in tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if not ran:
                raise InvalidRun("an answer ended before the version was loaded")
            gaps = [(end, end - start) for start, end in pairwise(times)]
            usual = statistics.median(gap for end, gap in gaps if end < sent and gap > 0.002)
            loaded = next(at for at in loads if at > sent)
            while_loading = [min(end, loaded) - (end - gap) for end, gap in gaps if end >= sent and end - gap < loaded]
            usual_gaps.append(usual)
            stalls.append(max(while_loading) / usual)
            until_first.append(max(gap for end, gap in gaps if sent <= end <= answered.pieces[0]) / usual)
            seconds.append(answered.first_seconds)

    with noted_loads() as loads:
        _on(settings, measure)
    ratios = (
        Ratio(
            "cold_version_stall", "longest gap between tokens while a version loads, over the usual gap", tuple(stalls)
        ),
        Ratio(
            "cold_version_stall_with_weaving",
            "the same until the version's first token: its 16 latents are woven in a pass with the others' tokens",
            tuple(until_first),
        ),
    )
    return Findings(ratios, {"milliseconds_usual": _spread(usual_gaps), "milliseconds_cold_first": _spread(seconds)})


async def _note(engine: LocalEngine, request: ChatRequest, times: list[float]) -> None:
    async for _ in engine.stream(request):
        times.append(time.perf_counter())


def _on(settings: Settings, measure: Callable[[LocalEngine], Coroutine[Any, Any, None]]) -> None:
    with endless(), running(settings) as engine:
        asyncio.run(measure(engine))


def _spread(seconds: Sequence[float]) -> list[float]:
    """Least, median and most, in milliseconds."""
    return [round(1000 * value, 1) for value in (min(seconds), statistics.median(seconds), max(seconds))]
