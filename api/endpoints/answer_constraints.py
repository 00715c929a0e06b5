"""From OpenAI's `response_format`, `tools` and `tool_choice` to what an answer must be. Pure; knows no base.

A strict schema that can't be held to is refused. Any other is held to as closely as a grammar can: exactly, else
without the keywords that no grammar expresses, else as any object.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from api.http.body_model import BodyModel
from memgen.errors import SchemaRefused
from memgen.generation.constraints import schema_fault
from memgen.text.answer_grammars import CallForm, Constraint
from memgen.text.json_schemas import ANY_OBJECT, NO_ARGUMENTS, check_bounds, check_strict, grammar_schema
from memgen.text.tool_schemas import plain_function
from registry.errors import InvalidTrajectory
from registry.json_text import show

_MODES = ("none", "auto", "required")
_EXPECTED = (
    '"none", "auto", "required", {"type": "function", "function": {"name": "..."}} or {"type": "allowed_tools", '
    '"allowed_tools": {"mode": "auto" or "required", "tools": [...]}}'
)


class JsonSchemaIn(BodyModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, StringConstraints(pattern=r"\A[a-zA-Z0-9_-]{1,64}\z")]
    description: str | None = None
    """Not read: what the content is for is said in the messages."""
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class ResponseFormat(BodyModel):
    model_config = ConfigDict(extra="forbid")

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaIn | None = None

    @model_validator(mode="before")
    @classmethod
    def _nulls_are_absent(cls, given: Any) -> Any:
        return {key: value for key, value in given.items() if value is not None} if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _schema_belongs_to_its_type(self) -> Self:
        if (self.json_schema is not None) != (self.type == "json_schema"):
            raise ValueError("expected json_schema with the type json_schema, and with no other")
        return self


@dataclass(frozen=True)
class ToolChoice:
    mode: Literal["none", "auto", "required"] = "auto"
    names: tuple[str, ...] | None = None
    """The only functions that may be called; None: any."""


def read_tool_choice(given: object) -> ToolChoice:
    """Raises ValueError unless it is one of OpenAI's forms."""
    if given is None or given in _MODES:
        return ToolChoice(given or "auto")  # type: ignore[arg-type]  # it is one of them
    if isinstance(given, dict):
        if given.get("type") == "function" and (name := _function_name(given)) is not None:
            return ToolChoice("required", (name,))
        allowed = given.get("allowed_tools")
        if (
            given.get("type") == "allowed_tools"
            and isinstance(allowed, dict)
            and isinstance(allowed.get("tools"), list)
        ):
            names = tuple(_function_name(tool) for tool in allowed["tools"])
            mode = allowed.get("mode")
            if names and None not in names and mode in ("auto", "required"):
                return ToolChoice(mode, tuple(filter(None, names)))
    raise ValueError(f"{show(given)} is not supported; expected {_EXPECTED}")


def check_tool_choice(choice: ToolChoice, tools: Sequence[Mapping[str, Any]]) -> None:
    """Raises InvalidTrajectory where the choice is not among the tools, which were checked."""
    known = {tool["function"]["name"] for tool in tools}
    if not known and choice.mode == "required":
        raise InvalidTrajectory("tool_choice_without_tools", "tool_choice: only allowed when tools are specified")
    for name in choice.names or ():
        if name not in known:
            raise InvalidTrajectory(
                "tool_choice_unknown",
                f"tool_choice: {show(name)} is no function of tools; expected one of {show(sorted(known))}",
            )


def answer_constraint(
    tools: Sequence[Mapping[str, Any]],
    choice: ToolChoice,
    response_format: ResponseFormat | None,
    *,
    parallel: bool,
) -> Constraint | None:
    """What an answer must be; None if it is free. It takes time linear in the schemas' length, as a rule.

    Args:
        tools: OpenAI's, which were checked, as the choice was.

    Raises:
        SchemaRefused: a strict schema, or one that is none, can't be held to. The message begins with its place.
    """
    for number, tool in enumerate(tools):
        _check_strict_tool(tool["function"], number)
    content = _content_schema(response_format)
    offered = () if choice.mode == "none" else tuple(_call_forms(tools, choice))
    if not offered:
        return Constraint(content) if content is not None else None
    must_call = choice.mode == "required"
    return Constraint(
        None if must_call else content,
        offered,
        must_call=must_call,
        parallel=parallel,
        optional=not must_call and content is None and parallel and not _any_strict(tools),
        origin="tools" if must_call or content is None else "response_format",
    )


def _function_name(tool: object) -> str | None:
    function = tool.get("function") if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


def _any_strict(tools: Sequence[Mapping[str, Any]]) -> bool:
    return any(tool["function"].get("strict") for tool in tools)


def _check_strict_tool(function: Mapping[str, Any], number: int) -> None:
    if not function.get("strict"):
        return
    schema = function.get("parameters") or NO_ARGUMENTS
    try:
        _check(schema, strict=True)
    except SchemaRefused as error:
        raise SchemaRefused(
            f"tools[{number}].function.parameters: Invalid schema for function {show(function['name'])}: {error}"
        ) from error


def _call_forms(tools: Sequence[Mapping[str, Any]], choice: ToolChoice) -> Iterator[CallForm]:
    for tool in tools:
        function = tool["function"]
        if choice.names is None or function["name"] in choice.names:
            yield CallForm(function["name"], _arguments_schema(function))


def _arguments_schema(function: Mapping[str, Any]) -> str:
    if function.get("strict"):
        return grammar_schema(function.get("parameters") or NO_ARGUMENTS, strict=True)
    given = plain_function(dict(function)).get("parameters")
    schema = given if given else NO_ARGUMENTS
    kinds = schema.get("type")
    if kinds is None:
        schema = {**schema, "type": "object"}
    elif kinds != "object":
        schema = ANY_OBJECT
    return _held_schema(schema) or grammar_schema(ANY_OBJECT, strict=True)


def _content_schema(response_format: ResponseFormat | None) -> str | None:
    if response_format is None or response_format.type == "text":
        return None
    if response_format.json_schema is None:
        return grammar_schema(ANY_OBJECT, strict=True)
    asked = response_format.json_schema
    schema = asked.schema_ if asked.schema_ is not None else ANY_OBJECT
    try:
        if asked.strict:
            _check(schema, strict=True)
            return grammar_schema(schema, strict=True)
        held = _held_schema(schema)
        return held if held is not None else _refuse(schema)
    except SchemaRefused as error:
        raise SchemaRefused(
            f"response_format: Invalid schema for response_format {show(asked.name)}: {error}"
        ) from error


def _held_schema(schema: Mapping[str, Any]) -> str | None:
    """The schema as exactly as a grammar can hold to it; None if it can't at all."""
    try:
        check_bounds(schema)
    except SchemaRefused:
        return None
    texts = (grammar_schema(schema, strict=strict) for strict in (True, False))
    return next((text for text in texts if schema_fault(text) is None), None)


def _refuse(schema: Mapping[str, Any]) -> str:
    """Raises SchemaRefused, with the reason."""
    check_bounds(schema)
    raise SchemaRefused(schema_fault(grammar_schema(schema, strict=False)) or "no answer can be held to it")


def _check(schema: Mapping[str, Any], *, strict: bool) -> None:
    check_bounds(schema)
    if strict:
        check_strict(schema)
    if fault := schema_fault(grammar_schema(schema, strict=True)):
        raise SchemaRefused(fault)
