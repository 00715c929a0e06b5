"""Answers for the chat endpoint: one thread owns the model, and waiting requests are answered together.

The thread takes what is waiting, up to a batch; its rows may be answered by different versions, or by the bare base.
Which version serves is decided before, by the registry, for each request: moving an alias needs no restart and no
message to this process.

The reader of an answer is a task of an event loop. The thread never waits for it, and computes nothing for one that has
gone. Prompts are rendered and tokenized before, by a few threads of their own (`api.inference.prompts`): one that is
refused costs nobody else's answer a moment.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import structlog

from api.inference.local.rows import AnswerRow, ending, prepare_rows
from api.inference.local.serving_base import as_served, load_serving_base
from api.inference.local.tickets import Ticket
from api.inference.prompts import prompt_of
from api.inference.requests import ChatRequest, Finished, Piece
from api.inference.unavailable import STOPPING, InferenceUnavailable
from memgen.backbone.description import describe
from memgen.backbone.loading import Backbone
from memgen.backbone.prompt_cache import PromptCache
from memgen.errors import MemgenError
from memgen.generation.decoding import Decoding
from memgen.generation.requests import GenerationRequest, check_fits
from memgen.memory.host import AdapterHost
from memgen.routing.loaded import LoadedMemories
from registry.binding import ServedBase
from registry.errors import RegistryError
from registry.scratch import Scratch
from registry.settings import Settings

log = structlog.get_logger()

_PROMPT_THREADS = 2


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
        self._changed = threading.Condition()
        """Guards the queues, `_host` and `_closed`."""
        self._early: list[Ticket] = []
        """What came before the model was loaded."""
        self._waiting: deque[Ticket] = deque()
        self._background: deque[Ticket] = deque()
        self._host: AdapterHost | None = None
        self._reading = ThreadPoolExecutor(_PROMPT_THREADS, "prompts")
        self._closed: str | None = None
        """Why nothing is answered any more."""
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="inference", daemon=True)

    def start(self) -> None:
        """Begin loading the model; requests may be sent at once and wait for it."""
        self._thread.start()

    def stop(self) -> None:
        """End what is being answered, refuse what waits."""
        with self._changed:
            self._stopping.set()
            self._changed.notify()
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
            InferenceUnavailable: no model, or no answer in time.
            MemgenError: the prompt is too long, the template refuses it, or the artifact is broken.
        """
        events = [event async for event in self._follow(request, wants_pieces=False, background=background)]
        return sorted((e for e in events if isinstance(e, Finished)), key=lambda finished: finished.choice)

    def stream(self, request: ChatRequest) -> AsyncGenerator[Piece | Finished, None]:
        """Pieces of text, and each answer when it is whole. Closing the generator ends the generation.

        Raises:
            InferenceUnavailable, MemgenError: as `answer`, at any event.
        """
        return self._follow(request, wants_pieces=True)

    async def count_tokens(self, request: ChatRequest) -> int:
        """Tokens of the request's prompt. Raises InferenceUnavailable: no model yet; MemgenError: as `answer`."""
        self.check_ready()
        with self._changed:
            host = self._host
        if host is None:
            raise InferenceUnavailable(STOPPING)
        reading = asyncio.get_running_loop().run_in_executor(self._reading, prompt_of, host.backbone, request)
        return len((await reading).token_ids)

    async def _follow(
        self, request: ChatRequest, *, wants_pieces: bool, background: bool = False
    ) -> AsyncGenerator[Piece | Finished, None]:
        seconds = self._settings.inference_timeout_seconds
        deadline = asyncio.get_running_loop().time() + seconds
        left = len(request.samplings)
        ticket = Ticket(request, wants_pieces=wants_pieces, background=background)
        self._submit(ticket)
        try:
            while left:
                try:
                    async with asyncio.timeout_at(deadline):
                        event = await ticket.next()
                except TimeoutError:
                    raise InferenceUnavailable(
                        f"no answer within {seconds:g} s; lower max_tokens or raise MEMGEN_INFERENCE_TIMEOUT_SECONDS"
                    ) from None
                if isinstance(event, Exception):
                    raise event
                left -= isinstance(event, Finished)
                yield event
        finally:
            ticket.abandoned = True

    def _submit(self, ticket: Ticket) -> None:
        with self._changed:
            if self._closed is not None:
                raise InferenceUnavailable(self._closed)
            if not self._thread.is_alive():
                raise InferenceUnavailable(
                    "this process was started without the model; send the request to one that serves it"
                )
            if self._host is None:
                self._early.append(ticket)
            else:
                self._reading.submit(self._read_prompt, self._host, ticket)

    def _read_prompt(self, host: AdapterHost, ticket: Ticket) -> None:
        """Put the ticket where the model's thread takes it from, with its prompt; an error goes to its reader."""
        if ticket.abandoned:
            return
        try:
            request = ticket.request
            ticket.prompt = prompt_of(host.backbone, request)
            check_fits(host, GenerationRequest(ticket.prompt.token_ids, request.samplings[0]))
        except Exception as error:
            if not isinstance(error, MemgenError):
                log.exception("a prompt could not be read")
            ticket.send(error)
            return
        with self._changed:
            if self._closed is not None:
                ticket.send(InferenceUnavailable(self._closed))
                return
            (self._background if ticket.background else self._waiting).append(ticket)
            self._changed.notify()

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
        self._open(memories.host)
        log.info("base model loaded", model=self._settings.base_model)
        while (batch := self._next_batch()) is not None:
            try:
                self._answer_batch(memories, prompts, batch)
            except Exception as error:
                log.exception("generation failed")
                for ticket in batch:
                    ticket.send(error)
        self._close(STOPPING)

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
            for queue in (self._waiting, self._background, self._early):
                for ticket in queue:
                    ticket.send(InferenceUnavailable(reason))
                queue.clear()
        self._reading.shutdown(wait=False)

    def _next_batch(self) -> list[Ticket] | None:
        """Wait for a request, and take those behind it while their answers fit; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._background or self._stopping.is_set())
            if self._stopping.is_set():
                return None
            if not self._waiting:
                idle = self._background.popleft()
                return [] if idle.abandoned else [idle]
            batch: list[Ticket] = []
            room = self._settings.inference_batch
            while self._waiting:
                following = self._waiting[0]
                answers = len(following.request.samplings)
                if batch and answers > room:
                    break
                self._waiting.popleft()
                if not following.abandoned:
                    batch.append(following)
                    room -= answers
            return batch

    def _answer_batch(self, memories: LoadedMemories, prompts: PromptCache, batch: list[Ticket]) -> None:
        """One request that can't be answered does not hurt the others of its batch."""
        rows: list[AnswerRow] = []
        for ticket in batch:
            try:
                if ticket.prompt is not None:
                    rows += prepare_rows(memories, prompts, ticket, ticket.prompt)
            except (MemgenError, RegistryError) as error:
                ticket.send(error)
            except Exception as error:
                log.exception("a request could not be prepared")
                ticket.send(error)
        if rows:
            self._generate(memories.host, prompts, rows)
        memories.trim()

    def _generate(self, host: AdapterHost, prompts: PromptCache, rows: list[AnswerRow]) -> None:
        """Each answer is sent when it ends, also while others of the batch go on."""

        def on_text(number: int, text: str) -> None:
            row = rows[number]
            if row.ticket.wants_pieces:
                row.ticket.send(Piece(row.choice, text, row.opened))

        decoding = Decoding(host, prompts=prompts, on_text=on_text)
        for row in rows:
            decoding.add(row.request)
        while not decoding.done:
            for number in decoding.unfinished():
                if rows[number].ticket.abandoned or self._stopping.is_set() or self._is_preempted(rows[number]):
                    decoding.cancel(number)
            decoding.step()
            for number, answer in decoding.ended():
                rows[number].ticket.send(
                    answer if isinstance(answer, Exception) else ending(host, rows[number], answer)
                )

    def _is_preempted(self, row: AnswerRow) -> bool:
        return row.ticket.background and bool(self._waiting)
