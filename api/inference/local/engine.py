"""Answers for the chat endpoint: one thread owns the model, and requests join and leave what it decodes between steps.

Answers that are decoded together may be of different versions, or of the bare base. Which version serves is decided
before, by the registry, for each request: moving an alias needs no restart and no message to this process.

The reader of an answer is a task of an event loop. The thread never waits for it, and computes nothing for one that has
gone. Prompts are rendered and tokenized before, by a few threads of their own (`api.inference.prompts`): one that is
refused costs nobody else's answer a moment.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import structlog

from api.inference.backlog import Backlog, rough_prompt_tokens, rough_tokens
from api.inference.local.figures import EngineFigures
from api.inference.local.inbox import Inbox
from api.inference.local.model_loop import Arrival, ModelLoop
from api.inference.local.serving_base import as_served, load_serving_base
from api.inference.local.tickets import Ticket
from api.inference.prompts import check_sampling, prompt_of
from api.inference.requests import ChatRequest, Finished, Piece
from api.inference.unavailable import STOPPING, InferenceUnavailable, NotBegunInTime, too_late
from memgen.backbone.description import describe
from memgen.backbone.loading import Backbone
from memgen.backbone.prompt_cache import PromptCache
from memgen.errors import MemgenError
from memgen.generation.constraints import prepare
from memgen.generation.requests import GenerationRequest, check_fits
from memgen.memory.host import AdapterHost
from memgen.routing.loaded import LoadedMemories
from registry.binding import ServedBase
from registry.scratch import Scratch
from registry.settings import Settings

log = structlog.get_logger()

_PROMPT_THREADS = 2
_CONTEXT_UNKNOWN = 2**15
"""Tokens that a prompt counts for at most while the base, and with it the context, is not known."""


class LocalEngine:
    def __init__(
        self,
        settings: Settings,
        scratch: Scratch | None = None,
        *,
        on_loaded: Callable[[ServedBase], None] | None = None,
    ) -> None:
        """`on_loaded` is called by the model's thread before it answers; what it raises is logged. `scratch` is where
        artifacts are unpacked; None is the system's folder for temporary files."""
        self._settings = settings
        self._scratch = scratch
        self._on_loaded = on_loaded
        self.base: ServedBase | None = None
        """The base that answers, once it is loaded."""
        self.description: dict[str, Any] | None = None
        """As `memgen.backbone.description` describes it."""
        self._changed = threading.Lock()
        """Guards `_early`, `_host`, `_closed` and `_submitted`."""
        self._early: list[Ticket] = []
        """What came before the model was loaded."""
        self._submitted = 0
        self._backlog = Backlog(settings.queue_requests, settings.queue_tokens)
        self._inbox: Inbox[Arrival] = Inbox()
        self._loop: ModelLoop | None = None
        self._host: AdapterHost | None = None
        self._reading = ThreadPoolExecutor(_PROMPT_THREADS, "prompts")
        self._closed: str | None = None
        """Why nothing is answered any more."""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="inference", daemon=True)

    @property
    def figures(self) -> EngineFigures:
        """What it was doing as of the last step; may be read by any thread at any time."""
        return self._loop.figures if self._loop is not None else EngineFigures(waiting=self._backlog.requests)

    def start(self) -> None:
        """Begin loading the model; requests may be sent at once and wait for it."""
        self._thread.start()

    def stop(self) -> None:
        """End what is being answered, refuse what waits: at once also while the model is still being loaded."""
        self._close(STOPPING)
        self._inbox.close()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def check_ready(self) -> None:
        """Raises InferenceUnavailable unless the model is loaded."""
        if self._closed is not None:
            raise InferenceUnavailable(self._closed)
        if not self._ready.is_set():
            raise InferenceUnavailable("the base model is being loaded; try again in some seconds")

    async def answer(self, request: ChatRequest, *, background: bool = False) -> list[Finished]:
        """All answers, in the order of `samplings`. Cancelling the task ends the generation.

        Args:
            background: answer only while no other request waits; one that comes meanwhile waits for one token at most.

        Raises:
            Preempted: another request came, and this one was in the background.
            QueueFull: too much waits already.
            InferenceUnavailable: no model, or no answer in time.
            MemgenError: the prompt is too long, the template refuses it, or the artifact is broken.
        """
        events = [event async for event in self._follow(request, wants_pieces=False, background=background)]
        return sorted((e for e in events if isinstance(e, Finished)), key=lambda finished: finished.choice)

    def stream(self, request: ChatRequest) -> AsyncGenerator[Piece | Finished, None]:
        """Pieces of text, and each answer when it is whole. Closing the generator ends the generation.

        Raises:
            QueueFull, InferenceUnavailable, MemgenError: as `answer`, at any event.
        """
        return self._follow(request, wants_pieces=True)

    async def count_tokens(self, request: ChatRequest) -> int:
        """Tokens of the request's prompt, which waits like one that is answered.

        Raises:
            QueueFull, MemgenError: as `answer`.
            InferenceUnavailable: no model yet.
        """
        self.check_ready()
        with self._changed:
            host = self._host
        if host is None:
            raise InferenceUnavailable(STOPPING)
        with self._backlog.waiting(rough_prompt_tokens(request, host.backbone.max_tokens)):
            reading = asyncio.get_running_loop().run_in_executor(self._reading, prompt_of, host.backbone, request)
            return len((await reading).token_ids)

    async def _follow(
        self, request: ChatRequest, *, wants_pieces: bool, background: bool = False
    ) -> AsyncGenerator[Piece | Finished, None]:
        seconds = self._settings.inference_timeout_seconds
        if request.timeout_seconds is not None:
            seconds = min(seconds, request.timeout_seconds)
        ticket = Ticket(request, wants_pieces=wants_pieces, background=background, seconds=seconds)
        left = len(request.samplings)
        self._submit(ticket)
        try:
            while left:
                try:
                    async with asyncio.timeout(max(0.0, ticket.seconds_left)):
                        event = await ticket.next()
                except TimeoutError:
                    raise too_late(seconds, begun=ticket.begun) from None
                if isinstance(event, NotBegunInTime):
                    raise too_late(seconds, begun=ticket.begun)
                if isinstance(event, Exception):
                    # Several readers may hear of the same error: a traceback of its own for each.
                    raise event.with_traceback(None)
                left -= isinstance(event, Finished)
                yield event
        finally:
            ticket.abandoned = True
            self._backlog.leave(ticket.backlog_number)
            if left:
                self._inbox.wake()

    def _submit(self, ticket: Ticket) -> None:
        """Raises QueueFull, before any work on the request."""
        with self._changed:
            if self._closed is not None:
                raise InferenceUnavailable(self._closed)
            if not self._thread.is_alive():
                raise InferenceUnavailable(
                    "this process was started without the model; send the request to one that serves it"
                )
            if not ticket.background:
                most = self._host.backbone.max_tokens if self._host is not None else _CONTEXT_UNKNOWN
                ticket.rough_tokens = rough_tokens(ticket.request, most)
                ticket.backlog_number = self._backlog.enter(ticket.rough_tokens)
            self._submitted += 1
            ticket.order = self._submitted
            if self._host is None:
                self._early = [*(early for early in self._early if not early.is_gone), ticket]
            else:
                self._reading.submit(self._read_prompt, self._host, ticket)

    def _read_prompt(self, host: AdapterHost, ticket: Ticket) -> None:
        """Put the ticket where the model's thread takes it from, with its prompt; an error goes to its reader."""
        if ticket.is_gone:
            ticket.send(NotBegunInTime("its time passed while it waited"))
            return
        try:
            request = ticket.request
            ticket.prompt = prompt_of(host.backbone, request)
            check_sampling(host.backbone, request.samplings[0], ticket.prompt)
            check_fits(host, GenerationRequest(ticket.prompt.token_ids, request.samplings[0]))
            for constraint in dict.fromkeys(sampling.constraint for sampling in request.samplings):
                if constraint is not None:
                    prepare(host.backbone, constraint, ticket.prompt.token_ids)
        except Exception as error:
            if not isinstance(error, MemgenError):
                log.exception("a prompt could not be read")
            ticket.send(error)
            return
        with self._changed:
            if self._closed is None:
                self._inbox.put(ticket)
            else:
                ticket.send(InferenceUnavailable(self._closed))

    def _open(self, host: AdapterHost) -> None:
        """From now on prompts are read; those that waited first."""
        with self._changed:
            self._host = host
            for ticket in self._early:
                self._reading.submit(self._read_prompt, host, ticket)
            self._early.clear()
        self._ready.set()

    def _serve(self) -> None:
        try:
            memories, prompts = self._load()
        except Exception as error:
            log.exception("the base model could not be loaded")
            self._close(f"the base model could not be loaded: {error}")
            return
        self._tell_loaded(memories.host.backbone)
        self._loop = ModelLoop(memories, prompts, self._settings, self._inbox, self._backlog)
        self._open(memories.host)
        log.info("base model loaded", model=self._settings.base_model)
        try:
            self._loop.run()
        except Exception as error:  # nothing is answered any more, and everybody hears of it
            log.exception("the model's thread ended")
            self._close(f"the model's thread ended: {type(error).__name__}: {error}")
            self._loop.refuse(InferenceUnavailable(str(self._closed)))
            return
        self._loop.refuse(InferenceUnavailable(STOPPING))

    def _load(self) -> tuple[LoadedMemories, PromptCache]:
        settings = self._settings
        backbone = load_serving_base(settings)
        memories = LoadedMemories(AdapterHost(backbone), settings.cached_versions, self._folder)
        return memories, PromptCache(backbone.decoder, settings.prompt_cache_bytes)

    def _tell_loaded(self, backbone: Backbone) -> None:
        self.base, self.description = as_served(backbone), describe(backbone)
        if self._on_loaded is None:
            return
        try:
            self._on_loaded(self.base)
        except Exception:  # a database that is away must not keep the model from answering
            log.exception("what follows from a loaded base was not done")

    def _folder(self) -> Path | None:
        return self._scratch.folder if self._scratch else None

    def _close(self, reason: str) -> None:
        with self._changed:
            self._closed = reason
            for ticket in self._early:
                ticket.send(InferenceUnavailable(reason))
            self._early.clear()
        self._ready.clear()
        self._reading.shutdown(wait=False)
