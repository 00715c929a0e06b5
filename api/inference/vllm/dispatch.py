"""Requests on their way to the servers, in the engine's event loop: read, sent, answered, given up.

A request that a server had not begun to answer when it went away is sent once more, to another or to the same one when
it is back. One that it had begun ends with an error: what was streamed of it can't be taken back.
"""

import asyncio
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

import structlog

from api.inference.backlog import Backlog
from api.inference.prompts import Prompt, check_sampling, prompt_of
from api.inference.requests import ChatRequest, Finished, MemorySource, Piece
from api.inference.token_texts import token_texts
from api.inference.unavailable import STOPPING, InferenceUnavailable, Preempted
from api.inference.vllm.answer import VllmAnswer
from api.inference.vllm.memories import KnownMemories, WovenMemory, check_room, not_served
from api.inference.vllm.servers import FoundBase, VllmServer, choose
from api.inference.vllm.tickets import VllmTicket
from api.inference.vllm.wire import BrokenOff, Refused, completion_body
from memgen.artifacts.artifact import MOMENTS_FILE
from memgen.backbone.loading import BaseFiles
from memgen.checked_files import check_files
from memgen.errors import ConfigError, MemgenError
from memgen.generation.requests import Generation
from memgen.generation.sampling import Sampling
from registry.binding import ServedBase, changed_parts
from registry.errors import ObjectNotFound, RegistryError

log = structlog.get_logger()

_READING_THREADS = 4
_FINDING_THREADS = 4
_PATIENCE_SECONDS = 1.0
"""How long a new request waits for a server, where none is there: one may only have to be looked at again."""
_REQUESTS_FAULT = {400, 413, 422}
"""Refusals of what was asked. All others are of the server, or of a gateway in front of it, and pass."""


@dataclass(frozen=True)
class _Question:
    """A request that was read."""

    request: ChatRequest
    prompt: Prompt
    memory: WovenMemory | None
    grammars: tuple[str | None, ...]
    """What each answer is held to."""


class Dispatch:
    def __init__(self, files: BaseFiles, servers: list[VllmServer], backlog: Backlog) -> None:
        """Requests leave the `backlog`, which they entered before, with their first token."""
        self._files, self._servers, self._backlog = files, servers, backlog
        self._ended_at = time.monotonic()
        """When the last answer ended."""
        self._memories = KnownMemories()
        self._reading = ThreadPoolExecutor(_READING_THREADS, "prompts")
        self._finding = ThreadPoolExecutor(_FINDING_THREADS, "memories")
        """Threads that wait for the object store. Who needs nothing of it doesn't wait for them."""
        self._going: dict[asyncio.Task[None], VllmTicket] = {}
        self._reasons: dict[asyncio.Task[None], Exception] = {}
        """Why a request was given up."""
        self._foreground = 0
        """Requests that a client waits for."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._looked = asyncio.Condition()
        """Notified whenever a server was looked at."""

    @property
    def context_tokens(self) -> int:
        return self._files.max_tokens

    def check_ready(self) -> None:
        """Raises InferenceUnavailable unless a server can be used. To be called by any thread."""
        choose(self._servers, ())

    async def count_tokens(self, request: ChatRequest) -> int:
        """Tokens of the request's prompt. May be awaited in any event loop; raises MemgenError as `serve` sends it."""
        reading = asyncio.get_running_loop().run_in_executor(self._reading, prompt_of, self._files, request)
        return len((await reading).token_ids)

    async def run(self, stopping: asyncio.Event) -> None:
        """Look after the servers until `stopping` is set; then every request is given up."""
        looking = [asyncio.create_task(self._look_after(server)) for server in self._servers]
        await stopping.wait()
        for task in [*self._going]:
            self._give_up(task, InferenceUnavailable(STOPPING))
        for looker in looking:
            looker.cancel()
        await asyncio.gather(*looking, *self._going, return_exceptions=True)
        for threads in (self._reading, self._finding):
            threads.shutdown(wait=False, cancel_futures=True)

    async def serve(self, ticket: VllmTicket) -> None:
        """Answer it, or send the error. Cancelling ends the generation."""
        task = asyncio.current_task()
        assert task is not None
        self._going[task] = ticket
        if not ticket.background:
            self._foreground += 1
            self._idle.clear()
            self._preempt()
        try:
            await self._answer(ticket)
        except asyncio.CancelledError:
            ticket.send(self._reasons.pop(task, InferenceUnavailable(STOPPING)))  # unless its reader has gone
            raise
        except (MemgenError, RegistryError) as error:
            ticket.send(error)
        except Exception as error:
            log.exception("a request could not be answered")
            ticket.send(error)
        finally:
            del self._going[task]
            if not ticket.background:
                self._foreground -= 1
                if not self._foreground:
                    self._idle.set()

    def _preempt(self) -> None:
        """Give up what is answered in the background."""
        for task, ticket in self._going.items():
            if ticket.background and ticket.is_being_answered:
                self._give_up(task, Preempted("another request waits for an answer"))

    def _give_up(self, task: "asyncio.Task[None]", reason: Exception) -> None:
        self._reasons.setdefault(task, reason)
        task.cancel()

    async def _answer(self, ticket: VllmTicket) -> None:
        question = await self._read(ticket.request)
        if ticket.background:
            await self._idle.wait()
        ticket.is_being_answered = True
        samplings = enumerate(ticket.request.samplings)
        choices = [asyncio.create_task(self._answer_one(ticket, question, *each)) for each in samplings]
        try:
            await asyncio.gather(*choices)
        finally:
            for each in choices:
                each.cancel()
            await asyncio.gather(*choices, return_exceptions=True)

    async def _read(self, request: ChatRequest) -> _Question:
        """Raises MemgenError or RegistryError: it can't be answered."""
        loop = asyncio.get_running_loop()
        prompt = await loop.run_in_executor(self._reading, prompt_of, self._files, request)
        memory = await self._find(request.memory)
        return await loop.run_in_executor(self._reading, self._check, request, prompt, memory)

    async def _find(self, source: MemorySource | None) -> WovenMemory | None:
        if source is None:
            return None
        if source.check_base is not None:
            files = self._files
            source.check_base(ServedBase(files.name, files.revision, files.identity.to_mapping()))
        if (known := self._memories.known(source)) is not None:
            return known
        return await asyncio.get_running_loop().run_in_executor(self._finding, self._memories.find, source)

    def _check(self, request: ChatRequest, prompt: Prompt, memory: WovenMemory | None) -> _Question:
        for sampling in request.samplings:
            check_room(prompt.token_ids, sampling, memory, self._files.max_tokens)
        grammars = [check_sampling(self._files, sampling, prompt) for sampling in request.samplings]
        return _Question(request, prompt, memory, tuple(grammars))

    async def _answer_one(self, ticket: VllmTicket, question: _Question, choice: int, sampling: Sampling) -> None:
        prompt, files = question.prompt, self._files
        wait_seconds: float | None = _PATIENCE_SECONDS
        while True:
            answer = VllmAnswer(files.tokenizer, prompt.token_ids, sampling, files.stop_token_ids)
            server, base = await self._choose(prompt, wait_seconds)
            check_room(prompt.token_ids, sampling, question.memory, base.context_tokens)
            try:
                await self._read_answer(ticket, question, choice, sampling, server, base, answer)
            except BrokenOff as error:
                if answer.has_begun:
                    raise InferenceUnavailable(
                        f"the vLLM server went away while it answered ({error}); send the request again"
                    ) from error
                if wait_seconds is None:
                    raise InferenceUnavailable(f"the vLLM server went away twice ({error})") from error
                wait_seconds = None  # it may be starting again: as long as the reader waits
                continue
            except Refused as error:
                await self._explain(error, ticket.request.memory)
            generation = answer.generation(question.memory)
            self._note(generation)
            tokens = token_texts(files.tokenizer, generation.token_ids) if sampling.logprobs else ()
            read = prompt.token_ids if sampling.record else ()
            ticket.send(Finished(choice, generation, tokens=tokens, opened=prompt.opens_reasoning, prompt_ids=read))
            return

    def _note(self, generation: Generation) -> None:
        """Let the backlog know how fast answers come, of all that are made at once."""
        now = time.monotonic()
        seconds = min(now - self._ended_at, generation.timings.total)
        self._backlog.note(generation.prompt_tokens + len(generation.token_ids), seconds)
        self._ended_at = now

    async def _read_answer(
        self,
        ticket: VllmTicket,
        question: _Question,
        choice: int,
        sampling: Sampling,
        server: VllmServer,
        base: FoundBase,
        answer: VllmAnswer,
    ) -> None:
        source, prompt = ticket.request.memory, question.prompt
        model = base.model if source is None else source.artifact_key or source.manifest_sha256
        stop_ids, grammar = self._files.stop_token_ids, question.grammars[choice]
        body = completion_body(model, prompt.token_ids, sampling, stop_ids, grammar)
        async with aclosing(server.complete(body)) as chunks:
            async for chunk in chunks:
                pieces = [answer.take(token) for token in chunk.tokens]
                if chunk.tokens and not ticket.begun:
                    ticket.begun = True
                    self._backlog.leave(ticket.backlog_number)
                if chunk.finish_reason == "abort":
                    raise BrokenOff("the server gave it up")
                if chunk.finish_reason is not None:
                    pieces.append(answer.finish(chunk.finish_reason))
                if ticket.wants_pieces and (text := "".join(pieces)):
                    ticket.send(Piece(choice, text, prompt.opens_reasoning))
                if answer.finish_reason is not None:
                    return
        raise BrokenOff("its stream ended before the answer did")

    async def _choose(self, prompt: Prompt, wait_seconds: float | None) -> tuple[VllmServer, FoundBase]:
        """Raises InferenceUnavailable: no server is there, and none came."""
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_seconds), self._looked:
                await self._looked.wait_for(lambda: any(server.found for server in self._servers))
        return choose(self._servers, prompt.token_ids)

    async def _explain(self, refused: Refused, source: MemorySource | None) -> NoReturn:
        """Raise what the server's refusal means here."""
        if source is not None and refused.of_model and refused.status == 404:
            raise ObjectNotFound(str(refused)) from refused
        if refused.status not in _REQUESTS_FAULT:
            raise InferenceUnavailable(f"the vLLM server answers {refused.status}: {refused}") from refused
        if source is None or not refused.of_model:
            raise ConfigError(f"the vLLM server does not take the request: {refused}") from refused
        await asyncio.get_running_loop().run_in_executor(self._finding, _check_bytes, source)
        raise not_served(source, str(refused)) from refused

    async def _look_after(self, server: VllmServer) -> None:
        while True:
            await server.look(partial(check_same_base, ours=self._files))
            async with self._looked:
                self._looked.notify_all()
            await server.until_next_look()


def check_same_base(found: FoundBase, ours: BaseFiles) -> None:
    """Raise InferenceUnavailable unless a server's base is the one that prompts are rendered for."""
    if found.revision != ours.revision:
        raise InferenceUnavailable(
            f"it has loaded {found.name} at {found.revision}, this service is set to {ours.name} at "
            f"{ours.revision}; start either with the other's base (MEMGEN_BASE_MODEL)"
        )
    if changed := changed_parts(found.identity, ours.identity.to_mapping()):
        raise InferenceUnavailable(
            f"it has loaded {found.name} with another {' and another '.join(changed)} than this service has"
        )


def _check_bytes(source: MemorySource) -> None:
    """Raise what is wrong with the artifact's bytes, if anything is."""
    with tempfile.TemporaryDirectory(prefix="artifact-") as folder:
        source.fetch(Path(folder))
        check_files(Path(folder), source.manifest_sha256, may_lack=(MOMENTS_FILE,))
