"""Answers from vLLM servers: the engine `vllm`.

A thread of its own runs an event loop in which servers are looked after and answers are read (`dispatch.py`), so that
thousands of tokens a second don't hold up what else the API does.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import httpx
import structlog

from api.inference.backlog import Backlog, rough_prompt_tokens, rough_tokens
from api.inference.requests import ChatRequest, Finished, Piece
from api.inference.unavailable import STOPPING, InferenceUnavailable, too_late
from api.inference.vllm.dispatch import Dispatch
from api.inference.vllm.servers import CONNECT_SECONDS, VllmServer
from api.inference.vllm.tickets import VllmTicket
from memgen.backbone.description import describe
from memgen.backbone.loading import BaseFiles, read_base
from registry.binding import ServedBase
from registry.settings import Settings

log = structlog.get_logger()

_KEPT_CONNECTIONS = 100


class VllmEngine:
    def __init__(
        self, settings: Settings, urls: Sequence[str], *, on_loaded: Callable[[ServedBase], None] | None = None
    ) -> None:
        """`on_loaded` is called once the base's files are read; what it raises is logged."""
        self._settings, self._urls, self._on_loaded = settings, urls, on_loaded
        self.base: ServedBase | None = None
        self.description: dict[str, Any] | None = None
        self._closed: str | None = None
        """Why nothing is answered any more."""
        self._backlog = Backlog(settings.queue_requests, settings.queue_tokens)
        """What waits for its first token: what is answered is the server's to bound."""
        self._dispatch: Dispatch | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        """The thread's; made by `start`."""
        self._opened = asyncio.Event()
        """Set once there is a dispatch, or will never be one."""
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="vllm", daemon=True)

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread.start()

    def stop(self) -> None:
        if self._loop is not None and self._thread.is_alive():
            self._closed = self._closed or STOPPING
            with suppress(RuntimeError):  # it has just ended by itself
                self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(timeout=10)

    def check_ready(self) -> None:
        if self._closed is not None:
            raise InferenceUnavailable(self._closed)
        if self._dispatch is None:
            raise InferenceUnavailable("the base's files are being read; try again in some seconds")
        self._dispatch.check_ready()

    async def answer(self, request: ChatRequest, *, background: bool = False) -> list[Finished]:
        events = [event async for event in self._follow(request, wants_pieces=False, background=background)]
        return sorted((e for e in events if isinstance(e, Finished)), key=lambda finished: finished.choice)

    def stream(self, request: ChatRequest) -> AsyncGenerator[Piece | Finished, None]:
        return self._follow(request, wants_pieces=True)

    async def count_tokens(self, request: ChatRequest) -> int:
        if self._dispatch is None or self._closed is not None:
            self.check_ready()
            raise InferenceUnavailable(STOPPING)
        with self._backlog.waiting(rough_prompt_tokens(request, self._dispatch.context_tokens)):
            return await self._dispatch.count_tokens(request)

    async def _follow(
        self, request: ChatRequest, *, wants_pieces: bool, background: bool = False
    ) -> AsyncGenerator[Piece | Finished, None]:
        seconds = self._settings.inference_timeout_seconds
        if request.timeout_seconds is not None:
            seconds = min(seconds, request.timeout_seconds)
        deadline = asyncio.get_running_loop().time() + seconds
        left = len(request.samplings)
        ticket = VllmTicket(request, wants_pieces=wants_pieces, background=background)
        going = self._submit(ticket)
        try:
            while left:
                try:
                    async with asyncio.timeout_at(deadline):
                        event = await ticket.next()
                except TimeoutError:
                    raise too_late(seconds, begun=ticket.begun) from None
                if isinstance(event, Exception):
                    raise event
                left -= isinstance(event, Finished)
                yield event
        finally:
            going.cancel()
            self._backlog.leave(ticket.backlog_number)

    def _submit(self, ticket: VllmTicket) -> "Future[None]":
        """Raises QueueFull, before any work on the request."""
        if self._closed is not None:
            raise InferenceUnavailable(self._closed)
        if self._loop is None or not self._thread.is_alive():
            raise InferenceUnavailable(
                "this process was started without the model; send the request to one that serves it"
            )
        if not ticket.background:
            most = self._dispatch.context_tokens if self._dispatch is not None else 0
            ticket.backlog_number = self._backlog.enter(rough_tokens(ticket.request, most))
        return asyncio.run_coroutine_threadsafe(self._serve(ticket), self._loop)

    async def _serve(self, ticket: VllmTicket) -> None:
        await self._opened.wait()
        if self._dispatch is None or self._closed is not None:
            ticket.send(InferenceUnavailable(self._closed or STOPPING))
        else:
            await self._dispatch.serve(ticket)

    def _run(self) -> None:
        loop = self._loop
        assert loop is not None
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(self._live())
        except Exception:
            log.exception("the engine vllm ended")
            self._closed = "the engine vllm ended; the service's log says why"

    async def _live(self) -> None:
        try:
            files = await asyncio.to_thread(self._read_files)
        except Exception as error:
            log.exception("the base's files could not be read")
            self._closed = f"the base's files could not be read: {error}"
            self._opened.set()
            await self._stopping.wait()
            return
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=_KEPT_CONNECTIONS)
        timeout = httpx.Timeout(self._settings.inference_timeout_seconds, connect=CONNECT_SECONDS, pool=None)
        async with httpx.AsyncClient(limits=limits, timeout=timeout, trust_env=False) as client:
            self._dispatch = Dispatch(files, [VllmServer(url, client) for url in self._urls], self._backlog)
            self._opened.set()
            await self._dispatch.run(self._stopping)

    def _read_files(self) -> BaseFiles:
        """Raises ModelNotFound or BaseRefused."""
        settings = self._settings
        files = read_base(settings.base_model, cache_dir=settings.models_dir, revision=settings.base_revision)
        described = describe(files)
        _ = files.profile  # refused now, and not at the first request
        self.base, self.description = ServedBase(files.name, files.revision, files.identity.to_mapping()), described
        if self._on_loaded is not None:
            try:
                self._on_loaded(self.base)
            except Exception:  # a database that is away must not keep the model from answering
                log.exception("what follows from a loaded base was not done")
        return files
