"""A base's chat template, as foreign code that is asked to render: whatever it raises is one error in words."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time

from transformers import PreTrainedTokenizerBase

from memgen.errors import ChatTemplateError
from memgen.text.answers import ChatMessage

PINNED_DATE = date(2024, 7, 26)
"""What a template that writes today's date is told in training and judging: one prompt for all versions on all days."""


_DATE = re.compile(r"strftime_now\(\s*(['\"])(.*?)\1\s*\)")
_PINNED_NOW = """\
{%- macro strftime_now(format) -%}{{- pinned_dates.get(format, pinned_dates[""]) -}}{%- endmacro -%}
"""
"""In front of a template: transformers' function of this name asks the clock, and functions can't be passed to it."""


@dataclass(frozen=True, eq=False)
class ChatTemplate:
    tokenizer: PreTrainedTokenizerBase
    source: str
    """The Jinja text."""
    without_tools: tuple[()] | None = None
    """What stands for no tools: most templates ask whether there are any, some go through the list."""
    content_as_parts: bool = False
    """A message's content is a list of one text part, as templates for pictures want it."""
    _formats: frozenset[str] = field(init=False, repr=False, default=frozenset())

    def __post_init__(self) -> None:
        object.__setattr__(self, "_formats", frozenset(found[1] for found in _DATE.findall(self.source)))

    def render(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[ChatMessage] | None = None,
        *,
        generation_prompt: bool = False,
        today: date = PINNED_DATE,
    ) -> str:
        """The conversation as text. A template with a mode without thoughts writes in it.

        Raises:
            ChatTemplateError: the template refused the conversation, or failed.
        """
        now = datetime.combine(today, time())
        dates = {"": today.isoformat(), **{text: now.strftime(text) for text in self._formats}}
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    [self._with_parts(message) for message in messages] if self.content_as_parts else list(messages),
                    tools=list(tools) if tools else self.without_tools,  # type: ignore[arg-type]  # any sequence does
                    chat_template=(_PINNED_NOW if "strftime_now" in self.source else "") + self.source,
                    add_generation_prompt=generation_prompt,
                    tokenize=False,
                    enable_thinking=False,
                    pinned_dates=dates,
                )
            )
        except Exception as error:
            # A template is a program of the base's makers: what it raises may be of any class.
            raise ChatTemplateError(
                f"the model's chat template refused the conversation: {type(error).__name__}: {error}"[:500]
            ) from error

    def _with_parts(self, message: ChatMessage) -> ChatMessage:
        return {**message, "content": [{"type": "text", "text": message["content"]}]}


def templates_of(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The templates that a tokenizer carries, the one for tools first; none if it has no template."""
    carried = tokenizer.chat_template
    if isinstance(carried, dict):
        first = [carried[name] for name in ("tool_use", "default") if name in carried]
        return tuple(first or carried.values())
    return (str(carried),) if carried else ()
