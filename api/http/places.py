"""Where a fault stands, in the words of the API that a request came in.

All of them are read as chats, whose checks name a chat's fields.
"""

import re

_TOOLS = (re.compile(r"tools\[(\d+)\]\.function\b"), r"tools[\1]")
_SCHEMAS = (re.compile(r"tools\[(\d+)\]\.function\.parameters\b"), r"tools[\1].input_schema")
_MESSAGES = re.compile(r"messages\b.*")
"""With what stands behind it: other APIs number their items otherwise."""
_TOKENS = re.compile(r"max(_completion)?_tokens\b")
_FORMAT = re.compile(r"response_format\b(\.json_schema\b)?")
_ANTHROPIC = (
    _SCHEMAS,
    _TOOLS,
    (_FORMAT, "output_config.format"),
    (_TOKENS, "max_tokens"),
    (re.compile(r"stop\b"), "stop_sequences"),
)
_OWN = {
    "/v1/completions": ((_MESSAGES, "prompt"), (re.compile(r"top_logprobs\b"), "logprobs")),
    "/v1/responses": (
        _TOOLS,
        (_MESSAGES, "input"),
        (_FORMAT, "text.format"),
        (re.compile(r"reasoning_effort\b"), "reasoning.effort"),
        (_TOKENS, "max_output_tokens"),
        (re.compile(r"logprobs\b"), "include"),
    ),
    "/v1/messages": _ANTHROPIC,
    "/v1/messages/count_tokens": _ANTHROPIC,
}
_PLACE = re.compile(
    r"(?:messages|tools|stop|tool_choice|response_format|logit_bias|max_completion_tokens|max_tokens)[\w.\[\]]*(?=: )"
)
"""How the checks of a chat begin their messages."""


def own_place(path: str, place: str) -> str:
    """The place in a chat, `tools[0].function.name`, as it is called on that path: `tools[0].name`."""
    for chats, own in _OWN.get(path, ()):
        if chats.match(place):
            return chats.sub(own, place, count=1)
    return place


def own_words(path: str, detail: str) -> str:
    """The message with the place at its beginning, if there is one, as it is called on that path."""
    if path not in _OWN or (found := _PLACE.match(detail)) is None:
        return detail
    return own_place(path, found[0]) + detail[found.end() :]
