"""Prompts of chat requests as tokens, made beside the model's thread: it computes answers and nothing else. Needs of a
base what decides how it reads, not its weights.

A conversation that can't fit the model's context is refused after as many characters as show it: reading a prompt costs
what the context costs, however long it is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from api.inference.requests import ChatRequest
from memgen.backbone.loading import Backbone, BaseFiles
from memgen.errors import ConfigError, PromptTooLong
from memgen.generation.constraints import prepare
from memgen.generation.sampling import Sampling
from memgen.text.profile import shown_messages
from memgen.text.reasoning import opens_reasoning
from memgen.text.tool_calls import tool_pattern

_CHARACTERS_PER_TOKEN = 4
"""Shorter prompts are read at once: as a rule of thumb they have fewer tokens than the context."""
_PART_CHARACTERS = 16_000
_PART_TOKENS = 8
"""Tokens by which the parts of a text may have more than the text, for each part, and beside a tenth."""


@dataclass(frozen=True)
class Prompt:
    token_ids: tuple[int, ...]
    opens_reasoning: bool
    """The answer goes on inside of a thought that the prompt opens."""


def prompt_of(base: Backbone | BaseFiles, request: ChatRequest) -> Prompt:
    """The request's prompt. To be called by any thread. Raises as `read_prompt` and `read_raw_prompt`."""
    if request.raw_prompt is None:
        return read_prompt(base, request.messages, request.tools)
    return read_raw_prompt(base, request.raw_prompt)


def read_prompt(
    base: Backbone | BaseFiles, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None
) -> Prompt:
    """The tokens in front of the answer, with today's date where the template writes one. To be called by any thread.

    Raises:
        PromptTooLong: the texts alone have more tokens than the context.
        ChatTemplateError: the template refuses the conversation.
    """
    _check_length(base, shown_messages(messages), tools)
    ids = base.profile.on(datetime.now(UTC).date()).prompt_ids(messages, tools)
    return Prompt(ids, opens_reasoning(base.tokenizer, ids))


def check_sampling(base: Backbone | BaseFiles, sampling: Sampling, prompt: Prompt) -> str | None:
    """Compile what the answer is held to, and keep it for when it is drawn. To be called by any thread.

    Returns:
        The grammar of its constraint; None if it is free.

    Raises:
        ConfigError: a bias of a token that the vocabulary does not have.
        SchemaRefused, ConstraintUnsupported: as `memgen.generation.constraints.prepare`.
    """
    tokens = base.vocab_size
    for token, _ in sampling.logit_bias:
        if token >= tokens:
            raise ConfigError(f"logit_bias: {token} is no token of the model; expected 0 to {tokens - 1}")
    return prepare(base, sampling.constraint, prompt.token_ids) if sampling.constraint else None


def read_raw_prompt(base: Backbone | BaseFiles, prompt: str | tuple[int, ...]) -> Prompt:
    """The tokens of a prompt that no template writes; of a text, with those that the tokenizer begins each with.

    Raises:
        PromptTooLong: a text alone has more tokens than the context.
        ConfigError: there are none, or ids that are no tokens.
    """
    if isinstance(prompt, str):
        _check_texts(base, [prompt], 1)
        prompt = tuple(base.tokenizer(prompt).input_ids)
    most = base.vocab_size
    wrong = next((each for each in prompt if not 0 <= each < most), None)
    if wrong is not None:
        raise ConfigError(f"prompt: token id {wrong}; expected ids from 0 to {most - 1}")
    if not prompt:
        raise ConfigError("prompt: it has no tokens; expected one at least")
    return Prompt(prompt, opens_reasoning=False)


def _check_length(
    base: Backbone | BaseFiles, messages: Sequence[dict[str, Any]], tools: list[dict[str, Any]] | None
) -> None:
    _check_texts(base, [*_texts(messages), *_tool_texts(base, tools)], len(messages))


def _check_texts(base: Backbone | BaseFiles, texts: Sequence[str], messages: int) -> None:
    characters, most = sum(map(len, texts)), base.max_tokens
    if messages <= most and characters <= _CHARACTERS_PER_TOKEN * most:
        return
    tokens = float(messages)  # each is some token's worth of a template's text
    for part in _parts(texts):
        if tokens > most:
            break
        tokens += max(0.0, 0.9 * len(base.tokenizer(part, add_special_tokens=False).input_ids) - _PART_TOKENS)
    if tokens > most:
        counted = "1 message" if messages == 1 else f"{messages} messages"
        raise PromptTooLong(
            f"the prompt has {counted} of {characters} characters, which are more than {int(tokens)} tokens; the "
            f"model's context has {most}. Shorten the messages."
        )


def _texts(messages: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What of the messages is shown to the model."""
    for message in messages:
        yield message["content"].strip()
        for call in message.get("tool_calls", ()):
            yield call["function"]["name"]
            yield from _values(call["function"]["arguments"])


def _tool_texts(base: Backbone | BaseFiles, tools: list[dict[str, Any]] | None) -> Iterator[str]:
    """What of the tools is shown to the model: whole schemas where its template lists tools, else their patterns."""
    for tool in tools or ():
        if base.profile.form.tools:
            yield from _values(tool)
        else:
            yield tool_pattern(tool["function"])


def _values(value: Any) -> Iterator[str]:
    """A JSON value in pieces: its texts, keys, numbers, and what shows that a list or an object is empty."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, dict) and each:
            yield from each
            waiting += each.values()
        elif isinstance(each, list) and each:
            waiting += each
        else:
            yield str(each)


def _parts(texts: Sequence[str]) -> Iterator[str]:
    """The texts in pieces of a bounded length; short ones share a piece, since each costs a call."""
    piece: list[str] = []
    size = 0
    for text in texts:
        for start in range(0, len(text), _PART_CHARACTERS):
            part = text[start : start + _PART_CHARACTERS]
            piece.append(part)
            size += len(part)
            if size >= _PART_CHARACTERS:
                yield "\n".join(piece)
                piece, size = [], 0
    if piece:
        yield "\n".join(piece)
