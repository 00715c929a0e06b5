"""Answers for the chat endpoint: one thread owns the model, and waiting requests are answered together.

The thread takes whatever is waiting, up to a batch; rows may ask for different versions or none. Which version serves
is decided before, by the registry, for each request: moving an alias needs no restart and no message to this process.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from memgen.backbone import load_backbone, prepare_process
from memgen.chat import render_prompt
from memgen.engine import Generation, GenerationRequest, check_fits, generate
from memgen.errors import MemgenError
from memgen.loaded import LoadedMemories
from memgen.sampling import Sampling
from memgen.training.examples import tokenize
from memgen.weaver import AdapterHost
from registry.errors import RegistryError, Unavailable
from registry.settings import Settings

log = structlog.get_logger()


class InferenceUnavailable(Unavailable):
    """The model is not loaded (yet), or did not answer in time."""


@dataclass(frozen=True)
class MemorySource:
    """Where a version's artifact comes from."""

    name: str
    manifest_sha256: str
    fetch: Callable[[Path], None]


@dataclass(frozen=True)
class ChatRequest:
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    sampling: Sampling
    memory: MemorySource | None
    """None answers with the bare base."""


@dataclass(frozen=True)
class _Waiting:
    request: ChatRequest
    answer: "Future[Generation]" = field(default_factory=Future)


class Inference:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._waiting: queue.Queue[_Waiting | None] = queue.Queue()
        self._thread = threading.Thread(target=self._serve, name="inference", daemon=True)
        self._ready = threading.Event()
        self._failure: str | None = None

    def start(self) -> None:
        """Begin loading the model; requests may be sent at once and wait for it."""
        self._thread.start()

    def stop(self) -> None:
        self._waiting.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def check_ready(self) -> None:
        """Raises InferenceUnavailable unless the model is loaded."""
        if self._failure is not None:
            raise InferenceUnavailable(f"the base model could not be loaded: {self._failure}")
        if not self._ready.is_set():
            raise InferenceUnavailable("the base model is being loaded; try again in some seconds")

    def answer(self, request: ChatRequest) -> Generation:
        """Wait for an answer.

        Raises:
            InferenceUnavailable: no model, or no answer in time.
            MemgenError: the prompt is too long, the template refuses it, or the artifact is broken.
        """
        if self._failure is not None:
            self.check_ready()
        waiting = _Waiting(request)
        self._waiting.put(waiting)
        try:
            return waiting.answer.result(timeout=self._settings.inference_timeout_seconds)
        except TimeoutError:
            waiting.answer.cancel()
            raise InferenceUnavailable(
                f"no answer within {self._settings.inference_timeout_seconds} s; lower max_tokens or raise "
                "MEMGEN_INFERENCE_TIMEOUT_SECONDS"
            ) from None

    def _serve(self) -> None:
        try:
            memories = self._load()
        except Exception as error:
            log.exception("the base model could not be loaded")
            self._failure = str(error)
            self._refuse_waiting()
            return
        self._ready.set()
        log.info("base model loaded", model=self._settings.base_model)
        while (batch := self._next_batch()) is not None:
            self._answer_batch(memories, batch)

    def _load(self) -> LoadedMemories:
        settings = self._settings
        prepare_process(settings.torch_threads)
        backbone = load_backbone(
            settings.base_model,
            cache_dir=settings.models_dir,
            revision=settings.base_revision,
            device=settings.device,
        )
        return LoadedMemories(AdapterHost(backbone), settings.cached_versions)

    def _refuse_waiting(self) -> None:
        while not self._waiting.empty():
            waiting = self._waiting.get()
            if waiting is not None:
                waiting.answer.set_exception(InferenceUnavailable(f"the base model failed to load: {self._failure}"))

    def _next_batch(self) -> list[_Waiting] | None:
        """Wait for a request, and take those that wait behind it; None at the end."""
        first = self._waiting.get()
        if first is None:
            return None
        batch = [first]
        while len(batch) < self._settings.inference_batch:
            try:
                following = self._waiting.get_nowait()
            except queue.Empty:
                break
            if following is None:
                self._waiting.put(None)
                break
            batch.append(following)
        return [waiting for waiting in batch if waiting.answer.set_running_or_notify_cancel()]

    def _answer_batch(self, memories: LoadedMemories, batch: list[_Waiting]) -> None:
        """One request that can't be answered does not hurt the others of its batch."""
        ready: list[tuple[_Waiting, GenerationRequest]] = []
        for waiting in batch:
            try:
                ready.append((waiting, _prepare(memories, waiting.request)))
            except (MemgenError, RegistryError) as error:
                waiting.answer.set_exception(error)
            except Exception as error:
                log.exception("a request could not be prepared")
                waiting.answer.set_exception(error)
        if not ready:
            return
        try:
            answers = generate(memories.host, [request for _, request in ready])
        except Exception as error:
            log.exception("generation failed")
            for waiting, _ in ready:
                waiting.answer.set_exception(error)
            return
        for (waiting, _), answer in zip(ready, answers, strict=True):
            waiting.answer.set_result(answer)
        memories.trim()


def _prepare(memories: LoadedMemories, request: ChatRequest) -> GenerationRequest:
    tokenizer = memories.host.backbone.tokenizer
    prompt = tokenize(tokenizer, render_prompt(tokenizer, request.messages, request.tools))
    source, memory = request.memory, None
    if source is not None:
        memory = memories.ensure(source.name, source.manifest_sha256, source.fetch)
    prepared = GenerationRequest(prompt, request.sampling, memory)
    check_fits(memories.host, prepared)
    return prepared
