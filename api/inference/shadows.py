"""Shadow answers: generated in the background after the answer has been returned, compared with it, discarded.

They delay no other answer: they are generated only while no request waits, they are given up as soon as one comes, and
there are never more than a few. An error of one is recorded as the shadow's failure.
"""

import asyncio
from dataclasses import replace

import structlog
from fastapi.concurrency import run_in_threadpool

from api.inference.engine import InferenceEngine
from api.inference.requests import ChatRequest, Finished, MemorySource
from api.inference.unavailable import InferenceUnavailable, Preempted
from registry.database import transaction
from registry.models import Route
from registry.serving.shadows import ShadowReply, record_shadow
from registry.wiring import Services

log = structlog.get_logger()

_TRIES = 5


class Shadows:
    """The shadow answers of one process; it lives in one event loop."""

    def __init__(self, inference: InferenceEngine, services: Services) -> None:
        self._inference, self._services = inference, services
        self._going: set[asyncio.Task[None]] = set()

    def offer(
        self, completion_id: str, route: Route, request: ChatRequest, shadow: MemorySource, returned: Finished
    ) -> None:
        """Let `shadow` answer the same request, its first choice, when there is time. Returns at once.

        The request is dropped where enough are pending already: a sample is enough to compare.
        """
        if len(self._going) >= self._services.settings.shadow_pending:
            log.info("no time for a shadow answer", completion=completion_id)
            return
        # Nobody waits for it: how long the caller would says nothing of a shadow.
        shadowed = replace(request, samplings=request.samplings[:1], memory=shadow, timeout_seconds=None)
        task = asyncio.get_running_loop().create_task(self._compare(completion_id, route, shadowed, returned))
        self._going.add(task)
        task.add_done_callback(self._going.discard)

    async def stop(self) -> None:
        going = list(self._going)
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)

    async def _compare(self, completion_id: str, route: Route, request: ChatRequest, returned: Finished) -> None:
        try:
            shadow = await self._answer(request)
            if shadow is not None:
                await run_in_threadpool(self._record, completion_id, route, _measured(returned), shadow)
        except Exception:
            log.exception("a shadow answer was lost", completion=completion_id)

    async def _answer(self, request: ChatRequest) -> ShadowReply | str | None:
        """The answer, or the error that the version failed with; None where there was no time for it."""
        for _ in range(_TRIES):
            try:
                [finished] = await self._inference.answer(request, background=True)
            except Preempted:
                continue
            except InferenceUnavailable:
                break
            except Exception as error:
                return f"{type(error).__name__}: {error}"
            return _measured(finished)
        log.info("no time for a shadow answer")
        return None

    def _record(self, completion_id: str, route: Route, returned: ShadowReply, shadow: ShadowReply | str) -> None:
        with transaction(self._services.sessions) as session:
            record_shadow(session, completion_id, route.id, returned, shadow)


def _measured(finished: Finished) -> ShadowReply:
    generation = finished.generation
    return ShadowReply(generation.text, generation.timings.total, len(generation.token_ids))
