"""What a request to `/v1/messages` looks like on the wire: Anthropic's Messages API, for text and tools."""

from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field

from api.endpoints.chat_models import StopText, UserText
from api.endpoints.foreign_body import ForeignBody, ModelName, only, refuse
from api.endpoints.message_blocks import chat_messages
from api.http.body_model import BodyModel
from api.http.json_object import JsonObject, JsonObjects
from registry.errors import InvalidTrajectory
from registry.json_text import show

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


class MetadataIn(BodyModel):
    model_config = ConfigDict(extra="forbid")

    user_id: UserText | None = None
    """Taken for the session, where the header names none."""


class OutputConfigIn(BodyModel):
    model_config = ConfigDict(extra="forbid")

    effort: Annotated[Any, AfterValidator(only("high", "medium"))] = None
    """`high` is Anthropic's default, and `medium` what other APIs have for one: neither asks for anything."""
    format: dict[str, Any] | None = None
    """`{"type": "json_schema", "schema": {...}}`."""


def _is_thinking(value: object) -> object:
    """A base thinks or does not; how much is not the service's to say, and a budget is no promise of Anthropic's."""
    kind = value.get("type") if isinstance(value, dict) else None
    if kind not in ("disabled", "enabled", "adaptive", "between_tools"):
        raise ValueError(f'{show(value)}; expected {{"type": "disabled"}}, "enabled" or "adaptive"')
    return value


class CountIn(ForeignBody):
    """What `/v1/messages/count_tokens` takes."""

    model: ModelName
    messages: list[dict[str, Any]]
    system: str | list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: Annotated[Any, AfterValidator(_is_thinking)] = None
    output_config: OutputConfigIn | None = None
    cache_control: Annotated[Any, Field(description="Accepted and not read: prompts are cached anyway.")] = None
    thread: Annotated[Any, Field(description="Refused: conversations are not kept.")] = None
    mcp_servers: Annotated[Any, AfterValidator(only([]))] = None
    context_management: Annotated[Any, AfterValidator(only())] = None
    speed: Annotated[Any, AfterValidator(only("standard"))] = None

    def chat_fields(self) -> JsonObject:
        """The same request as the fields of a chat's.

        Raises:
            InvalidTrajectory: a block or a tool that can't be read.
        """
        if self.thread is not None:
            raise InvalidTrajectory(
                "thread_unsupported_request", "thread: conversations are not kept here; send the whole one without it"
            )
        config = self.output_config or OutputConfigIn()
        choice = self.tool_choice or {}
        return {
            "model": self.model,
            "messages": chat_messages(self.system, self.messages),
            "tools": _chat_tools(self.tools),
            "tool_choice": _chat_choice(self.tool_choice),
            "parallel_tool_calls": False if choice.get("disable_parallel_tool_use") else None,
            "response_format": _chat_format(config.format),
        }


class MessageIn(CountIn):
    """Anthropic's request. A field that this service does not support is accepted at its neutral value only."""

    max_tokens: Annotated[int, Field(ge=1)]
    stop_sequences: list[StopText] | None = None
    temperature: Annotated[float | None, Field(ge=0, le=1)] = None
    top_p: Annotated[float | None, Field(ge=0, le=1)] = None
    top_k: Annotated[int | None, Field(ge=0, lt=2**63)] = None
    stream: bool | None = None
    metadata: MetadataIn | None = None
    service_tier: Annotated[Any, AfterValidator(only("auto", "standard_only"))] = None
    container: Annotated[Any, AfterValidator(only())] = None
    inference_geo: Annotated[Any, AfterValidator(only())] = None

    def chat_fields(self) -> JsonObject:
        return {
            **super().chat_fields(),
            "max_completion_tokens": self.max_tokens,
            "stop": self.stop_sequences or None,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "stream": self.stream,
            "user": self.metadata.user_id if self.metadata else None,
        }


def _chat_tools(tools: JsonObjects | None) -> JsonObjects | None:
    if not tools:
        return None
    found = []
    for number, tool in enumerate(tools):
        if (kind := tool.get("type", "custom")) not in ("custom", None):
            expected = "a tool of your own, with name and input_schema: others run on Anthropic's side"
            raise refuse(f"tools[{number}].type", kind, expected, "tools_malformed")
        if not isinstance(schema := tool.get("input_schema"), dict):
            raise refuse(f"tools[{number}].input_schema", schema, "a JSON schema, an object", "tool_parameters")
        function = {name: tool[name] for name in ("name", "description", "strict") if tool.get(name) is not None}
        found.append({"type": "function", "function": {**function, "parameters": schema}})
    return found


def _chat_choice(choice: JsonObject | None) -> str | JsonObject | None:
    if choice is None:
        return None
    kind = choice.get("type")
    if kind == "tool":
        return {"type": "function", "function": {"name": choice.get("name")}}
    if not isinstance(kind, str) or kind not in _CHOICES:
        raise refuse("tool_choice.type", kind, '"auto", "any", "tool" or "none"', "tools_malformed")
    return _CHOICES[kind]


def _chat_format(wanted: JsonObject | None) -> JsonObject | None:
    if wanted is None:
        return None
    if wanted.get("type") != "json_schema":
        raise refuse("output_config.format.type", wanted.get("type"), '"json_schema"', "tools_malformed")
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": wanted.get("schema")}}
