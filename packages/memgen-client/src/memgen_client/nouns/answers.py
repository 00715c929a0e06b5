"""`client.chat`, `.completions`, `.responses`, `.messages`, `.models`: answers, and what may be asked for them.

The stock clients of OpenAI and Anthropic work with the service too; here it is what a program needs that has this one.
"""

from collections.abc import Sequence
from functools import partial
from typing import Unpack

from memgen_client.answers import fitting, json_object, one, rows
from memgen_client.calls import Call, Chunks, ModeT, Noun, many, once
from memgen_client.json_values import Json, JsonObject
from memgen_client.models.completions import (
    Completion,
    CompletionChunk,
    ResponseDeleted,
    TextCompletion,
    TokenCount,
)
from memgen_client.models.rows import Rows
from memgen_client.models.service import ServedModel
from memgen_client.options import AnswerOptions, TextOptions
from memgen_client.paths import path

_ANSWER_SECONDS = 330.0
"""The service itself gives up after 300 s by default, and says why."""


class Chat(Noun[ModeT]):
    """`session` keeps a conversation on one arm of a route; `task` is what its recording is for."""

    @once
    def create(
        self,
        model: str,
        messages: Sequence[Json],
        *,
        session: str | None = None,
        task: str | None = None,
        **options: Unpack[AnswerOptions],
    ) -> Call[Completion]:
        """OpenAI's chat completion; `memgen` in it says which version answered."""
        body = {"model": model, "messages": [*messages], **options}
        place, headers = path("chat", "completions"), _headers(session, task)
        return Call("POST", place, one(Completion), body=body, headers=headers, seconds=_ANSWER_SECONDS)

    @many
    def stream(
        self,
        model: str,
        messages: Sequence[Json],
        *,
        session: str | None = None,
        task: str | None = None,
        **options: Unpack[AnswerOptions],
    ) -> Chunks[CompletionChunk]:
        """The same as it is written. Closing the iterator ends the answer."""
        body = {"model": model, "messages": [*messages], **options}
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        read = partial(fitting, CompletionChunk)
        place, headers = path("chat", "completions"), _headers(session, task)
        return Chunks(place, body, read, headers=headers, seconds=_ANSWER_SECONDS)


class Completions(Noun[ModeT]):
    @once
    def create(
        self,
        model: str,
        prompt: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]],
        **options: Unpack[TextOptions],
    ) -> Call[TextCompletion]:
        """OpenAI's older API: each prompt is continued as it is, without the base's chat template."""
        body = {"model": model, "prompt": prompt, **options}
        return Call("POST", path("completions"), one(TextCompletion), body=body, seconds=_ANSWER_SECONDS)


class Responses(Noun[ModeT]):
    """OpenAI's Responses API, in OpenAI's JSON."""

    @once
    def create(self, body: Json) -> Call[JsonObject]:
        """`body` is OpenAI's request; with `store` it may be read and continued later."""
        return Call("POST", path("responses"), json_object(), body=body, seconds=_ANSWER_SECONDS)

    @once
    def get(self, response_id: str) -> Call[JsonObject]:
        return Call("GET", path("responses", response_id), json_object())

    @once
    def delete(self, response_id: str) -> Call[ResponseDeleted]:
        """Those that continue it can't be continued any more."""
        return Call("DELETE", path("responses", response_id), one(ResponseDeleted))


class Messages(Noun[ModeT]):
    """Anthropic's Messages API, in Anthropic's JSON."""

    @once
    def create(self, body: Json) -> Call[JsonObject]:
        """`body` is Anthropic's request."""
        return Call("POST", path("messages"), json_object(), body=body, seconds=_ANSWER_SECONDS)

    @once
    def count_tokens(self, body: Json) -> Call[TokenCount]:
        """How many tokens the prompt has. Nothing is answered."""
        return Call("POST", path("messages", "count_tokens"), one(TokenCount), body=body, harmless=True)


class ServedModels(Noun[ModeT]):
    @once
    def list(self) -> Call[Rows[ServedModel]]:
        """`base`, each adapter with its aliases and versions, and the models of upstreams."""
        return Call("GET", path("models"), rows(ServedModel))

    @once
    def get(self, model: str) -> Call[ServedModel]:
        return Call("GET", path("models", model), one(ServedModel))


def _headers(session: str | None, task: str | None) -> dict[str, str]:
    named = {"X-Session-Id": session, "X-Memgen-Task": task}
    return {name: value for name, value in named.items() if value is not None}
