"""What a chat request looks like on the wire. OpenAI's fields, and two of its own: `top_k`, `repetition_penalty`."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from memgen.generation.sampling import Sampling
from registry.errors import InvalidTrajectory

_DEFAULT_TOKENS = 256


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")

    include_usage: bool = False
    """One more chunk at the end, with `usage`."""


class ChatIn(BaseModel):
    """OpenAI's request. A field that this service does not support is accepted at its neutral value only."""

    model_config = ConfigDict(extra="forbid")

    model: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    tool_choice: Literal["auto", "none"] | None = None
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0, description="0 is off. Not OpenAI's: send it in `extra_body`.")] = 0
    repetition_penalty: Annotated[
        float, Field(gt=0, le=10, description="1 is off. Not OpenAI's: send it in `extra_body`.")
    ] = 1.0
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
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
    top_logprobs: Literal[0] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    presence_penalty: Annotated[float | None, Field(ge=0, le=0)] = None
    frequency_penalty: Annotated[float | None, Field(ge=0, le=0)] = None
    parallel_tool_calls: bool | None = None
    store: Literal[False] | None = None
    metadata: dict[str, str] | None = None

    @model_validator(mode="after")
    def _options_belong_to_a_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
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
        return self.stream_options is not None and self.stream_options.include_usage

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
                self.temperature,
                self.top_p,
                stop,
                seed=None if self.seed is None else self.seed + choice,
                top_k=self.top_k,
                repetition_penalty=self.repetition_penalty,
                logprobs=bool(self.logprobs),
            )
            for choice in range(self.n or 1)
        )
