"""What a request to `/v1/completions` looks like on the wire: OpenAI's older API, of prompts without a conversation."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from api.endpoints.chat_models import Stops, StreamOptions, UserText
from api.endpoints.foreign_body import ForeignBody, ModelName, only
from api.http.json_object import JsonObject
from registry.json_text import show

_DEFAULT_TOKENS = 16
MOST_PROMPTS = 32

RawPrompt = str | tuple[int, ...]
"""A text, or token ids."""


def _is_prompt(value: Any) -> Any:
    """A text, token ids, or a list of either; checked here so that one message says what was expected."""
    prompts = value if isinstance(value, list) and value and not isinstance(value[0], int) else [value]
    if len(prompts) > MOST_PROMPTS:
        raise ValueError(f"{len(prompts)} prompts; expected up to {MOST_PROMPTS}. Send the others in another request")
    for prompt in prompts:
        if not isinstance(prompt, str) and not (prompt and isinstance(prompt, list) and all(map(_is_id, prompt))):
            raise ValueError(f"got {show(prompt)}; expected a text, a list of token ids, or a list of either")
    return value


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


class CompletionIn(ForeignBody):
    """OpenAI's request. A field that this service does not support is accepted at its neutral value only."""

    model: ModelName
    prompt: Annotated[str | list[str] | list[int] | list[list[int]], BeforeValidator(_is_prompt)]
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(ge=0, le=1)] = None
    top_k: Annotated[int | None, Field(ge=0, lt=2**63, description="Not OpenAI's: send it in `extra_body`.")] = None
    repetition_penalty: Annotated[float | None, Field(gt=0, le=10, description="Not OpenAI's.")] = None
    frequency_penalty: Any = None
    presence_penalty: Any = None
    logit_bias: Any = None
    stop: Stops | None = None
    seed: Annotated[int | None, Field(ge=-(2**63), lt=2**63)] = None
    n: Annotated[int | None, Field(ge=1, le=8, description="Answers to each prompt.")] = None
    logprobs: Annotated[int | None, Field(ge=0, le=5, description="Alternatives to each token.")] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: UserText | None = None
    best_of: Annotated[Any, AfterValidator(only(1))] = None
    echo: Annotated[Any, AfterValidator(only(False))] = None
    suffix: Annotated[Any, AfterValidator(only(""))] = None

    @property
    def prompts(self) -> list[RawPrompt]:
        if isinstance(self.prompt, str):
            return [self.prompt]
        ids = tuple(each for each in self.prompt if isinstance(each, int))
        return [ids] if ids else [each if isinstance(each, str) else _ids(each) for each in self.prompt]

    def chat_fields(self) -> JsonObject:
        """What of the request a chat has too: how answers are drawn."""
        return {
            "model": self.model,
            "messages": [],
            "max_tokens": self.max_tokens or _DEFAULT_TOKENS,
            "logprobs": None if self.logprobs is None else True,
            "top_logprobs": self.logprobs or None,
            "stream_options": self.stream_options.model_dump() if self.stream_options else None,
            **{name: getattr(self, name) for name in _SAME},
        }


_SAME = (
    *("temperature", "top_p", "top_k", "repetition_penalty", "frequency_penalty", "presence_penalty", "logit_bias"),
    *("stop", "seed", "n", "stream", "user"),
)


def _ids(prompt: object) -> tuple[int, ...]:
    return tuple(prompt) if isinstance(prompt, list) else ()
