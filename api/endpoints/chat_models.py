"""What a chat request looks like on the wire. OpenAI's fields, and two of its own: `top_k`, `repetition_penalty`.

A null is OpenAI's default, everywhere. What is not supported is taken at its neutral values, and refused at all others.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationInfo, field_validator, model_validator

from memgen.generation.sampling import Sampling
from registry.errors import InvalidTrajectory
from registry.json_text import show

_DEFAULT_TOKENS = 256
_LEAST_TOP_P = 1e-9
"""Leaves the likeliest token only, which OpenAI's 0 means."""
MOST_STOP_CHARACTERS = 1000
_MOST_METADATA = 16
_MOST_MODEL_CHARACTERS = 600
"""Room for the longest names of an adapter and an alias."""

NEUTRAL: dict[str, tuple[object, ...]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "prediction": (),
    "presence_penalty": (0,),
    "reasoning_effort": ("none", "medium"),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""Values of OpenAI's fields that ask for nothing which this service lacks, beside null."""

StopText = Annotated[str, StringConstraints(max_length=MOST_STOP_CHARACTERS)]
MetadataKey = Annotated[str, StringConstraints(max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")

    include_usage: bool | None = None
    """One more chunk at the end, with `usage`."""
    include_obfuscation: bool | None = None
    """Accepted; nothing is ever added to a chunk."""


class ChatIn(BaseModel):
    """OpenAI's request. A field that this service does not support is accepted at its neutral value only."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str, StringConstraints(max_length=_MOST_MODEL_CHARACTERS, pattern=r"\A[^\x00]*\z")]
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    tool_choice: Literal["auto", "none"] | None = None
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
    stop: StopText | Annotated[list[StopText], Field(max_length=4)] | None = None
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
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    parallel_tool_calls: bool | None = None
    metadata: Annotated[dict[MetadataKey, MetadataValue] | None, Field(max_length=_MOST_METADATA)] = None
    user: str | None = None
    safety_identifier: Annotated[str | None, Field(description="Accepted and not read.")] = None
    prompt_cache_key: Annotated[str | None, Field(description="Accepted and not read: prompts are cached anyway.")] = (
        None
    )
    prompt_cache_retention: Annotated[str | None, Field(description="Accepted and not read.")] = None
    audio: Any = None
    frequency_penalty: Any = None
    function_call: Any = None
    functions: Any = None
    logit_bias: Any = None
    modalities: Any = None
    prediction: Any = None
    presence_penalty: Any = None
    reasoning_effort: Any = None
    response_format: Any = None
    service_tier: Any = None
    store: Any = None
    top_logprobs: Any = None
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

    @model_validator(mode="after")
    def _options_belong_to_a_stream(self) -> Self:
        if self.include_usage and not self.stream:
            raise ValueError("stream_options is only allowed with stream: true")
        return self

    @property
    def session_id(self) -> str | None:
        """`metadata.session_id`, else `user`; empty ones are none."""
        return (self.metadata or {}).get("session_id") or self.user or None

    @property
    def callable_tools(self) -> list[dict[str, Any]] | None:
        return None if self.tool_choice == "none" else self.tools or None

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def samplings(self, most_tokens: int) -> tuple[Sampling, ...]:
        """How each of the `n` answers is sampled.

        Raises:
            InvalidTrajectory: more than `most_tokens` were requested.
            ConfigError: a stop string is empty.
        """
        requested = self.max_completion_tokens or self.max_tokens or min(_DEFAULT_TOKENS, most_tokens)
        if requested > most_tokens:
            raise InvalidTrajectory(
                "max_tokens_too_large",
                f"max_tokens is {requested}; this service allows up to {most_tokens} (MEMGEN_MAX_NEW_TOKENS)",
            )
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return tuple(
            Sampling(
                requested,
                1.0 if self.temperature is None else self.temperature,
                1.0 if self.top_p is None else max(self.top_p, _LEAST_TOP_P),
                stop,
                seed=None if self.seed is None else self.seed + choice,
                top_k=self.top_k or 0,
                repetition_penalty=1.0 if self.repetition_penalty is None else self.repetition_penalty,
                logprobs=bool(self.logprobs),
            )
            for choice in range(self.n or 1)
        )
