"""What a request to `/v1/responses` looks like on the wire: OpenAI's Responses API, for text and functions."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from api.endpoints.chat_models import MetadataKey, MetadataValue, UserText
from api.endpoints.foreign_body import ForeignBody, ModelName, only, refuse
from api.endpoints.response_items import chat_messages
from api.http.body_model import BodyModel
from api.http.json_object import JsonObject, JsonObjects
from registry.json_text import show

_LOGPROBS = "message.output_text.logprobs"


def _is_input(value: Any) -> Any:
    """Checked here so that one message says what was expected."""
    if isinstance(value, str):
        return value
    wrong = value if not isinstance(value, list) else next((e for e in value if not isinstance(e, dict)), None)
    if not isinstance(value, list) or wrong is not None or None in value:
        raise ValueError(f"got {show(wrong)}; expected a text, or a list of items, which are objects")
    return value


class TextIn(BodyModel):
    model_config = ConfigDict(extra="forbid")

    format: dict[str, Any] | None = None
    """`{"type": "text"}`, `json_object`, or `json_schema` with `name`, `schema` and `strict` beside it."""
    verbosity: Annotated[Any, AfterValidator(only("medium"))] = None


class ReasoningIn(BodyModel):
    model_config = ConfigDict(extra="forbid")

    effort: Any = None
    """As a chat's `reasoning_effort`."""
    summary: Any = None
    """Accepted: thoughts are returned whole, and never summed up."""
    generate_summary: Any = None
    context: Annotated[Any, AfterValidator(only("auto"))] = None
    mode: Annotated[Any, AfterValidator(only("standard"))] = None


class StreamOptionsIn(BodyModel):
    model_config = ConfigDict(extra="forbid")

    include_obfuscation: bool | None = None
    """Accepted; nothing is ever added to an event."""


class ResponseIn(ForeignBody):
    """OpenAI's request. A field that this service does not support is accepted at its neutral value only."""

    model: ModelName
    input: Annotated[str | list[dict[str, Any]], BeforeValidator(_is_input)]
    instructions: str | None = None
    previous_response_id: Annotated[str | None, Field(max_length=200)] = None
    store: Annotated[
        bool | None, Field(description="Only `true` records the reply; OpenAI's default is not taken over.")
    ] = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextIn | None = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(ge=0, le=1)] = None
    top_k: Annotated[int | None, Field(ge=0, lt=2**63, description="Not OpenAI's: send it in `extra_body`.")] = None
    repetition_penalty: Annotated[float | None, Field(gt=0, le=10, description="Not OpenAI's.")] = None
    seed: Annotated[int | None, Field(ge=-(2**63), lt=2**63, description="Not OpenAI's.")] = None
    max_output_tokens: Annotated[int | None, Field(ge=1)] = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=20)] = None
    stream: bool | None = None
    stream_options: StreamOptionsIn | None = None
    include: list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] | None = None
    reasoning: ReasoningIn | None = None
    metadata: Annotated[dict[MetadataKey, MetadataValue] | None, Field(max_length=16)] = None
    user: UserText | None = None
    safety_identifier: Annotated[str | None, Field(description="Accepted and not read.")] = None
    prompt_cache_key: Annotated[str | None, Field(description="Accepted and not read: prompts are cached anyway.")] = (
        None
    )
    prompt_cache_retention: Annotated[str | None, Field(description="Accepted and not read.")] = None
    prompt_cache_options: Annotated[Any, Field(description="Accepted and not read.")] = None
    truncation: Annotated[Any, AfterValidator(only("disabled"))] = None
    service_tier: Annotated[Any, AfterValidator(only("auto", "default"))] = None
    background: Annotated[Any, AfterValidator(only(False))] = None
    max_tool_calls: Annotated[Any, AfterValidator(only())] = None
    context_management: Annotated[Any, AfterValidator(only([]))] = None
    conversation: Annotated[Any, AfterValidator(only())] = None
    moderation: Annotated[Any, AfterValidator(only())] = None
    prompt: Annotated[Any, AfterValidator(only())] = None

    @property
    def items(self) -> JsonObjects:
        """The input as items; a text is a user's message."""
        return [{"role": "user", "content": self.input}] if isinstance(self.input, str) else self.input

    def chat_fields(self, earlier: JsonObjects) -> JsonObject:
        """The same request as the fields of a chat's.

        Args:
            earlier: messages of the responses that this one continues.

        Raises:
            InvalidTrajectory: an item or a tool that can't be read.
        """
        guidance = [{"role": "system", "content": self.instructions}] if self.instructions else []
        wants_logprobs = _LOGPROBS in (self.include or ()) or bool(self.top_logprobs)
        return {
            "model": self.model,
            "messages": [*guidance, *earlier, *chat_messages(self.items)],
            "tools": _chat_tools(self.tools),
            "tool_choice": _chat_choice(self.tool_choice),
            "parallel_tool_calls": self.parallel_tool_calls,
            "response_format": _chat_format(self.text),
            "max_completion_tokens": self.max_output_tokens,
            "logprobs": wants_logprobs or None,
            "top_logprobs": self.top_logprobs or None,
            "reasoning_effort": self.reasoning.effort if self.reasoning else None,
            **{name: getattr(self, name) for name in _SAME},
        }


_SAME = ("store", "temperature", "top_p", "top_k", "repetition_penalty", "seed", "stream", "metadata", "user")
"""Fields that a chat has too."""


def _chat_tools(tools: JsonObjects | None) -> JsonObjects | None:
    """Functions stand flat in this API."""
    if tools is None:
        return None
    found = []
    for number, tool in enumerate(tools):
        if (kind := tool.get("type")) != "function":
            raise refuse(
                f"tools[{number}].type", kind, '"function": other tools run on OpenAI\'s side', "tools_malformed"
            )
        found.append({"type": "function", "function": {k: v for k, v in tool.items() if k != "type" and v is not None}})
    return found


def _chat_choice(choice: str | JsonObject | None) -> str | JsonObject | None:
    if not isinstance(choice, dict):
        return choice
    if choice.get("type") == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}
    if choice.get("type") == "allowed_tools" and isinstance(choice.get("tools"), list):
        allowed = [{"type": "function", "function": {"name": _name(tool)}} for tool in choice["tools"]]
        return {"type": "allowed_tools", "allowed_tools": {"mode": choice.get("mode"), "tools": allowed}}
    raise refuse(
        "tool_choice", choice, '"auto", "none", "required", or {"type": "function", "name": "..."}', "tools_malformed"
    )


def _name(tool: object) -> object:
    return tool.get("name") if isinstance(tool, dict) else tool


def _chat_format(text: TextIn | None) -> JsonObject | None:
    if text is None or text.format is None:
        return None
    if text.format.get("type") != "json_schema":
        return text.format
    return {
        "type": "json_schema",
        "json_schema": {k: v for k, v in text.format.items() if k != "type" and v is not None},
    }
