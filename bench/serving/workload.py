"""Chats of mixed lengths, versions whose bytes lie in folders, and an engine that answers them in this process.

The versions are shaped as training leaves them, but made in no time (`bench.speed.memories`): how fast an answer comes
does not depend on what it says. No token ends an answer, so each has as many tokens as it was asked for.
"""

import asyncio
import hashlib
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from api.inference.local.engine import LocalEngine
from api.inference.requests import ChatRequest, Finished, MemorySource, Piece
from api.inference.unavailable import InferenceUnavailable
from bench.speed.memories import plant, save
from bench.speed.ratios import InvalidRun
from memgen.backbone.loading import Backbone
from memgen.config import MemoryConfig
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.routing.loaded import FetchedMemory, LoadedMemories
from memgen.tasks.bfcl import single_calls
from registry.settings import Settings

PROMPT_TOKENS = (40, 80, 120, 240)
"""About as many tokens have the questions, in turn."""
ANSWER_TOKENS = (32, 64, 96, 160)
"""So many have the answers, in turn; the two turn at different speeds."""
_LOAD_SECONDS = 120.0


@dataclass(frozen=True)
class Answered:
    """When the text of one answer came, by `time.perf_counter`."""

    sent: float
    pieces: tuple[float, ...]
    tokens: int
    finished: Finished

    @property
    def first_seconds(self) -> float:
        return self.pieces[0] - self.sent


def questions(backbone: Backbone, count: int, tokens: Sequence[int] = PROMPT_TOKENS) -> list[str]:
    """Different texts of about so many tokens, in turn."""
    whole = [trajectory["messages"][0]["content"] for trajectory in single_calls("simple_python")]
    texts = []
    for number in range(count):
        words = " ".join([*whole[7 * number % len(whole) :], *whole])
        ids = backbone.tokenizer(words, add_special_tokens=False).input_ids[: tokens[number % len(tokens)]]
        texts.append(str(backbone.tokenizer.decode(ids)))
    return texts


def chat(question: str, tokens: int, memory: MemorySource | None = None, *, temperature: float = 0.0) -> ChatRequest:
    sampling = Sampling(max_new_tokens=tokens, temperature=temperature)
    return ChatRequest([{"role": "user", "content": question}], None, (sampling,), memory)


def mixed_chats(backbone: Backbone, count: int, versions: Sequence[MemorySource | None]) -> list[ChatRequest]:
    """Chats of mixed lengths, each answered by the next version."""
    every = len(PROMPT_TOKENS) + 1  # so that long questions do not always get long answers
    return [
        chat(question, ANSWER_TOKENS[(number + number // every) % len(ANSWER_TOKENS)], versions[number % len(versions)])
        for number, question in enumerate(questions(backbone, count))
    ]


def make_versions(backbone: Backbone, folder: Path, configs: Sequence[MemoryConfig]) -> list[Path]:
    """Artifacts in `folder`, one of each shape, each with values of its own."""
    stored = []
    for number, config in enumerate(configs):
        host = AdapterHost(backbone)
        plant(host, "planted", config, seed=number)
        stored.append(save(host, "planted", folder / f"version-{number}"))
    return stored


def source_of(stored: Path) -> MemorySource:
    """A version whose bytes are copied from a folder."""

    def fetch(target: Path) -> None:
        shutil.copytree(stored, target, dirs_exist_ok=True)

    manifest = (stored / "manifest.json").read_bytes()
    return MemorySource(stored.name, hashlib.sha256(manifest).hexdigest(), fetch)


@contextmanager
def endless() -> Iterator[None]:
    """No token ends an answer of any base in this process."""
    kept = Backbone.stop_token_ids
    Backbone.stop_token_ids = property(lambda _: frozenset())  # type: ignore[assignment, method-assign]  # for a while
    try:
        yield
    finally:
        Backbone.stop_token_ids = kept  # type: ignore[method-assign]  # its own method again


@contextmanager
def noted_loads() -> Iterator[list[float]]:
    """The times, by `time.perf_counter`, at which versions were put beside the model of this process."""
    times: list[float] = []
    kept = LoadedMemories.take

    def take(self: LoadedMemories, name: str, fetched: FetchedMemory) -> None:
        times.append(time.perf_counter())
        kept(self, name, fetched)

    LoadedMemories.take = take  # type: ignore[method-assign]  # for a while
    try:
        yield times
    finally:
        LoadedMemories.take = kept  # type: ignore[method-assign]  # its own method again


@contextmanager
def running(settings: Settings) -> Iterator[LocalEngine]:
    """An engine that is ready."""
    engine = LocalEngine(settings)
    engine.start()
    try:
        deadline = time.monotonic() + _LOAD_SECONDS
        while not _is_ready(engine):
            if time.monotonic() > deadline:
                raise InvalidRun(f"the engine was not ready within {_LOAD_SECONDS:g} s")
            time.sleep(0.05)
        yield engine
    finally:
        engine.stop()


async def follow(engine: LocalEngine, request: ChatRequest) -> Answered:
    """Send a chat and note when its text comes."""
    sent = time.perf_counter()
    pieces: list[float] = []
    finished: Finished | None = None
    async for event in engine.stream(request):
        if isinstance(event, Piece):
            pieces.append(time.perf_counter())
        else:
            finished = event
    if finished is None or not pieces:
        raise InvalidRun("an answer without text, or without an end")
    tokens = len(finished.generation.token_ids)
    if tokens != request.samplings[0].max_new_tokens:
        raise InvalidRun(f"an answer has {tokens} tokens; {request.samplings[0].max_new_tokens} were requested")
    return Answered(sent, tuple(pieces), tokens, finished)


async def throughput(engine: LocalEngine, chats: Sequence[ChatRequest], at_once: int) -> float:
    """Tokens a second while `at_once` of the chats are under way: from the first until no other is left to begin."""
    waiting = iter(chats)
    last_begun: list[tuple[float, int]] = []

    async def client() -> None:
        for request in waiting:
            await follow(engine, request)
        last_begun.append((time.perf_counter(), engine.figures.generated_tokens))

    started, before = time.perf_counter(), engine.figures.generated_tokens
    await asyncio.gather(*(client() for _ in range(at_once)))
    ended, after = last_begun[0]
    return (after - before) / (ended - started)


def _is_ready(engine: LocalEngine) -> bool:
    try:
        engine.check_ready()
    except InferenceUnavailable:
        return False
    return True
