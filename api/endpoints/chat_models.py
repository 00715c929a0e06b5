"""What a chat request looks like on the wire. OpenAI's fields, and two of its own: `top_k`, `repetition_penalty`.

A null is OpenAI's default, everywhere. What is not supported is taken at its neutral values, and refused at all others.
"""

import re
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from api.endpoints.answer_constraints import (
    ResponseFormat,
    ToolChoice,
    answer_constraint,
    check_tool_choice,
    read_tool_choice,
)
from api.endpoints.plain_values import PlainValues
from api.http.body_model import BodyModel
from memgen.generation.sampling import Sampling
from memgen.text.answer_grammars import Constraint
from memgen.text.answers import message_text
from registry.errors import InvalidTrajectory
from registry.json_text import show

_DEFAULT_TOKENS = 256
_LEAST_TOP_P = 1e-9
"""Leaves the likeliest token only, which OpenAI's 0 means."""
MOST_STOP_CHARACTERS = 1000
_MOST_STOPS = 4
_TOKEN_ID = re.compile(r"(0|[1-9][0-9]{0,9})\Z")
"""A number as JSON would write it; int() takes spaces, signs, underscores and other scripts too."""
_MOST_BIASES = 1024
_MOST_METADATA = 16
_MOST_MODEL_CHARACTERS = 600
"""Room for the longest names of an adapter and an alias."""

NEUTRAL: dict[str, tuple[object, ...]] = {
    "audio": (),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "modalities": (["text"],),
    "moderation": (),
    "prediction": (),
    "reasoning_effort": ("none", "medium"),
    "service_tier": ("auto", "default"),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""Values of OpenAI's fields that ask for nothing which this service lacks, beside null."""

StopText = Annotated[str, StringConstraints(max_length=MOST_STOP_CHARACTERS)]


def _read_stops(given: Any) -> Any:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise PydanticCustomError("stop_type", "expected a text, or a list of texts")
    if len(texts) > _MOST_STOPS:
        raise PydanticCustomError("too_long", f"{len(texts)} texts; expected at most {_MOST_STOPS}")
    if not all(texts):
        raise PydanticCustomError("string_too_short", "an empty text would end every answer; leave it out")
    if any(len(text) > MOST_STOP_CHARACTERS for text in texts):
        raise PydanticCustomError("string_too_long", f"expected texts of at most {MOST_STOP_CHARACTERS} characters")
    return tuple(texts)


Stops = Annotated[
    tuple[str, ...],
    BeforeValidator(_read_stops),
    Field(description=f"A text, or up to {_MOST_STOPS}, of at most {MOST_STOP_CHARACTERS} characters each."),
]
MetadataKey = Annotated[str, StringConstraints(max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]
UserText = MetadataValue
"""Who asks: `user` and `metadata.user` are the same. It is looked for in an index, which takes 2.7 kB at most."""


class StreamOptions(BodyModel):
    model_config = ConfigDict(extra="forbid")

    include_usage: bool | None = None
    """One more chunk at the end, with `usage`."""
    include_obfuscation: bool | None = None
    """Accepted; nothing is ever added to a chunk."""


class ChatIn(PlainValues):
    """OpenAI's request. A field that this service does not support is accepted at its neutral value only."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str, StringConstraints(max_length=_MOST_MODEL_CHARACTERS, pattern=r"\A[^\x00]*\z")]
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    tool_choice: Annotated[
        Any, Field(description="`auto`, `none`, `required`, a function, or `allowed_tools`; as OpenAI's.")
    ] = None
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None
    temperature: Annotated[float | None, Field(ge=0, le=2, description="1 if not given; 0 is greedy.")] = None
    top_p: Annotated[float | None, Field(ge=0, le=1, description="1 if not given.")] = None
    top_k: Annotated[
        int | None, Field(ge=0, lt=2**63, description="0 is off. Not OpenAI's: send it in `extra_body`.")
    ] = None
    repetition_penalty: Annotated[
        float | None, Field(gt=0, le=10, description="1 is off. Not OpenAI's: send it in `extra_body`.")
    ] = None
    stop: Stops | None = None
    seed: Annotated[
        int | None,
        Field(
            ge=-(2**63),
            lt=2**63,
            description="Seed of what is drawn. The same request repeats its answer if the base runs in float32; in "
            "bfloat16 an answer may turn where two tokens are nearly equal, with the requests beside it.",
        ),
    ] = None
    n: Annotated[int | None, Field(ge=1, le=8, description="Answers. The one at index i takes seed + i.")] = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=20)] = None
    frequency_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    presence_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    logit_bias: Annotated[
        dict[Annotated[int, Field(ge=0, lt=2**31)], Annotated[float, Field(ge=-100, le=100)]] | None,
        Field(max_length=_MOST_BIASES),
    ] = None
    min_tokens: Annotated[
        int | None, Field(ge=0, description="No answer ends before. Not OpenAI's: send it in `extra_body`.")
    ] = None
    response_format: ResponseFormat | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    parallel_tool_calls: bool | None = None
    metadata: Annotated[dict[MetadataKey, MetadataValue] | None, Field(max_length=_MOST_METADATA)] = None
    user: UserText | None = None
    store: Annotated[
        StrictBool | None, Field(description="Record the answer as a part of its run: see docs/recording.md.")
    ] = None
    safety_identifier: Annotated[str | None, Field(description="Accepted and not read.")] = None
    prompt_cache_key: Annotated[str | None, Field(description="Accepted and not read: prompts are cached anyway.")] = (
        None
    )
    prompt_cache_options: Annotated[Any, Field(description="Accepted and not read.")] = None
    prompt_cache_retention: Annotated[str | None, Field(description="Accepted and not read.")] = None
    audio: Any = None
    function_call: Any = None
    functions: Any = None
    modalities: Any = None
    moderation: Any = None
    prediction: Any = None
    reasoning_effort: Any = None
    service_tier: Any = None
    verbosity: Any = None
    web_search_options: Any = None

    @model_validator(mode="before")
    @classmethod
    def _nulls_are_absent(cls, body: Any) -> Any:
        """Also of fields that OpenAI may add."""
        if not isinstance(body, dict):
            return body
        return {name: value for name, value in body.items() if value is not None or name in ("model", "messages")}

    @field_validator(*NEUTRAL)
    @classmethod
    def _is_neutral(cls, value: object, info: ValidationInfo) -> object:
        neutral = NEUTRAL[str(info.field_name)]
        if value is not None and value not in neutral:
            expected = " or ".join(["null", *map(show, neutral)])
            raise ValueError(f"{show(value)} is not supported; expected {expected}, or leave it out")
        return value

    @field_validator("metadata", "logit_bias", mode="before")
    @classmethod
    def _null_values_are_absent(cls, given: Any) -> Any:
        return {key: value for key, value in given.items() if value is not None} if isinstance(given, dict) else given

    @field_validator("logit_bias", mode="before")
    @classmethod
    def _are_biases_of_ids(cls, given: Any) -> Any:
        for key, bias in given.items() if isinstance(given, dict) else ():
            if isinstance(key, str) and _TOKEN_ID.match(key) is None:
                raise PydanticCustomError("int_parsing", "expected token ids as keys, such as '50256'")
            if isinstance(bias, bool | str):
                raise PydanticCustomError("float_type", "expected numbers as values")
        return given

    @field_validator("tool_choice")
    @classmethod
    def _choice_is_one(cls, given: Any) -> ToolChoice:
        return read_tool_choice(given)

    @field_validator("top_logprobs")
    @classmethod
    def _alternatives_need_logprobs(cls, given: int | None, info: ValidationInfo) -> int | None:
        if given and not info.data.get("logprobs"):
            raise ValueError("only allowed when logprobs is true")
        return given

    @field_validator("stream_options")
    @classmethod
    def _options_belong_to_a_stream(cls, given: StreamOptions | None, info: ValidationInfo) -> StreamOptions | None:
        if given is not None and given.include_usage and not info.data.get("stream"):
            raise ValueError("stream_options is only allowed with stream: true")
        return given

    @property
    def session_id(self) -> str | None:
        """`metadata.session_id`, else `user`; empty ones are none."""
        return (self.metadata or {}).get("session_id") or self.user or None

    @property
    def choice(self) -> ToolChoice:
        return self.tool_choice or ToolChoice()

    @property
    def callable_tools(self) -> list[dict[str, Any]] | None:
        return None if self.choice.mode == "none" else self.tools or None

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def samplings(self, most_tokens: int) -> tuple[Sampling, ...]:
        """How each of the `n` answers is sampled. Messages and tools were checked before.

        Raises:
            InvalidTrajectory: more than `most_tokens` were requested, or the choice is not among the tools.
            SchemaRefused: a schema that no answer can be held to.
        """
        requested = self.max_completion_tokens or self.max_tokens or min(_DEFAULT_TOKENS, most_tokens)
        if requested > most_tokens:
            name = "max_completion_tokens" if self.max_completion_tokens else "max_tokens"
            raise InvalidTrajectory(
                "max_tokens_too_large",
                f"{name}: got {requested}; this service allows up to {most_tokens} (MEMGEN_MAX_NEW_TOKENS)",
            )
        least = self.min_tokens or 0
        if least > requested:
            raise InvalidTrajectory(
                "min_tokens_too_large", f"min_tokens is {least}; expected at most max_tokens, which is {requested}"
            )
        constraint = self._constraint()
        return tuple(
            Sampling(
                requested,
                1.0 if self.temperature is None else self.temperature,
                1.0 if self.top_p is None else max(self.top_p, _LEAST_TOP_P),
                self.stop or (),
                seed=None if self.seed is None else self.seed + choice,
                top_k=self.top_k or 0,
                repetition_penalty=1.0 if self.repetition_penalty is None else self.repetition_penalty,
                logprobs=bool(self.logprobs),
                frequency_penalty=self.frequency_penalty or 0.0,
                presence_penalty=self.presence_penalty or 0.0,
                logit_bias=tuple((self.logit_bias or {}).items()),
                top_logprobs=self.top_logprobs or 0,
                min_tokens=self.min_tokens or 0,
                constraint=constraint,
            )
            for choice in range(self.n or 1)
        )

    def _constraint(self) -> Constraint | None:
        check_tool_choice(self.choice, self.tools or ())
        parallel = self.parallel_tool_calls is not False
        if self.response_format is not None and self.response_format.type == "json_object":
            self._check_json_is_mentioned()
        return answer_constraint(self.tools or (), self.choice, self.response_format, parallel=parallel)

    def _check_json_is_mentioned(self) -> None:
        """OpenAI's rule: a model that is not told to write JSON may write anything that is some."""
        if not any("json" in message_text(message).lower() for message in self.messages):
            raise InvalidTrajectory(
                "json_not_mentioned",
                "messages: must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.",
            )
