"""Answers of models. Upstreams' are passed through as they come, so little is required of them."""

from typing import ClassVar

from memgen_client.json_values import JsonObject
from memgen_client.models.model import Model


class Usage(Model):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Insertion(Model):
    """A place where memory was woven in."""

    choice: int
    position: int
    latents: int
    reread: int
    probability: float


class Recorded(Model):
    run: str | None
    reason: str | None
    """Why it is not recorded."""


class Stamp(Model):
    """Which version answered, and where its memory was woven in."""

    adapter: str | None
    version: int | None
    alias: str | None
    route: int | None
    task: str | None
    cue: list[str]
    insertions: list[Insertion]
    seconds: float
    recorded: Recorded | None = None


class UpstreamStamp(Model):
    """Which upstream's model answered."""

    version: str
    """`upstream/model`, as it was asked for."""
    recorded: Recorded | None = None


class Message(Model):
    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[JsonObject] | None = None


class Choice(Model):
    index: int
    message: Message
    finish_reason: str | None = None
    logprobs: JsonObject | None = None


class Completion(Model):
    """OpenAI's chat completion; `memgen` says which version answered, or which upstream's model."""

    shown: ClassVar[tuple[str, ...]] = ("id", "model", "text")

    id: str
    model: str
    choices: list[Choice]
    usage: Usage | None = None
    memgen: Stamp | UpstreamStamp | None = None

    @property
    def text(self) -> str:
        """Content of the first choice; empty where it is a call of a tool."""
        return (self.choices[0].message.content or "") if self.choices else ""


class ChunkChoice(Model):
    index: int
    delta: Message
    finish_reason: str | None = None
    logprobs: JsonObject | None = None


class CompletionChunk(Model):
    """A piece of an answer that is being written. The last has `usage`, the one before it `memgen`."""

    id: str
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    memgen: Stamp | UpstreamStamp | None = None

    @property
    def text(self) -> str:
        """What it adds to the first choice."""
        return next((choice.delta.content or "" for choice in self.choices if choice.index == 0), "")


class TextChoice(Model):
    index: int
    text: str
    finish_reason: str | None = None
    logprobs: JsonObject | None = None


class TextCompletion(Model):
    """An answer of OpenAI's older API."""

    id: str
    model: str
    choices: list[TextChoice]
    usage: Usage | None = None
    memgen: Stamp | UpstreamStamp | None = None


class TokenCount(Model):
    input_tokens: int


class ResponseDeleted(Model):
    id: str
    deleted: bool
