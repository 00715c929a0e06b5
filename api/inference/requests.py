"""What an engine is asked, and what it answers: the values of `api.inference.engine.InferenceEngine`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.inference.token_texts import TokenText
from memgen.generation.requests import Generation
from memgen.generation.sampling import Sampling
from registry.binding import ServedBase


@dataclass(frozen=True)
class MemorySource:
    """Where a version's artifact comes from, called only by the engine, in a thread."""

    name: str
    manifest_sha256: str
    fetch: Callable[[Path], None]
    fetch_other: Callable[[str, Path], None] | None = None
    """Fills a folder with the memory of another task, by the manifest hash that this artifact refers to it by. None
    where a version has one memory."""
    check_base: Callable[[ServedBase], None] | None = None
    """Raises unless the version's adapter is bound to that base."""
    read_file: Callable[[str], bytes] | None = None
    """One file of the artifact by its name, for an engine that does not load the rest."""
    artifact_key: str = ""
    """Folder of the artifact in the object store, for an engine that fetches it there by itself."""
    label: str = ""
    """What people call the version, as `support-bot@7`."""


@dataclass(frozen=True)
class ChatRequest:
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    samplings: tuple[Sampling, ...]
    """One answer for each, in one batch: the prompt is read once."""
    memory: MemorySource | None
    """None answers with the bare base."""
    raw_prompt: str | tuple[int, ...] | None = None
    """The prompt itself, as text or token ids; then the messages are only what past experience is searched by."""
    timeout_seconds: float | None = None
    """How long the reader waits; the service's own limit holds too."""


@dataclass(frozen=True)
class Piece:
    """Text of an answer as it became final."""

    choice: int
    """Which of the request's answers, from 0."""
    text: str
    opened: bool = False
    """The prompt opens a thought, which the answer goes on with."""


@dataclass(frozen=True)
class Finished:
    """A whole answer."""

    choice: int
    generation: Generation
    task: str | None = None
    """Task that the prompt was routed to, where a version has a memory for each; None where it fits none of them."""
    cue: tuple[str, ...] = ()
    """Ids of the past trajectories that the weaver was shown."""
    tokens: tuple[TokenText, ...] = ()
    """Text and bytes of each of the generation's tokens, if logprobs were requested."""
    opened: bool = False
    """The prompt opens a thought, which the answer goes on with."""
    alternatives: tuple[tuple[TokenText, ...], ...] = ()
    """Text and bytes of the generation's alternatives at each place, if any were requested."""
    prompt_ids: tuple[int, ...] = ()
    """What the reasoner read in front of the answer, if the answer is recorded."""
