"""A wrong answer beside what was right, as the rules that classify failures see it. It judges nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from memgen.analysis import failure_signs as signs
from memgen.analysis.items import AnalysisItem
from memgen.tasks.answer_text import last_number
from memgen.tasks.patterns import BoundedPattern
from memgen.text.answers import Answer, message_calls, message_text, parse_answer


@dataclass(frozen=True)
class WrongAnswer:
    """A wrong answer beside what was right."""

    item: AnalysisItem
    text: str
    cut_off: bool

    @cached_property
    def content(self) -> str:
        return (self._answer.content or "").strip()

    @cached_property
    def thought(self) -> str:
        return self._answer.reasoning or ""

    @cached_property
    def calls(self) -> Sequence[dict[str, Any]]:
        return self._answer.tool_calls

    @cached_property
    def wanted_calls(self) -> Sequence[dict[str, Any]]:
        return message_calls(self.item.held_out.reference.message)

    @cached_property
    def right(self) -> str:
        return message_text(self.item.held_out.reference.message).strip()

    @cached_property
    def read(self) -> str | None:
        """What the grader reads of the answer; None if there is nothing of the form that it looks for."""
        return self._pattern.last(self.content) if self._pattern else self.content

    @cached_property
    def right_read(self) -> str:
        """The same of the right answer."""
        return (self._pattern and self._pattern.last(self.right)) or self.right

    @cached_property
    def right_number(self) -> float | None:
        return last_number(self.right_read)

    @cached_property
    def kind(self) -> str:
        return str(self.item.grader.get("kind"))

    @cached_property
    def offered(self) -> dict[str, Any]:
        """Schemas of the tools' arguments, by name."""
        functions = [tool.get("function") or tool for tool in self.item.held_out.tools or ()]
        return {str(one.get("name")): one.get("parameters") for one in functions}

    @cached_property
    def question(self) -> str:
        """The newest user message."""
        users = [message for message in self.item.held_out.messages if message["role"] == "user"]
        return message_text(users[-1]) if users else ""

    @cached_property
    def result(self) -> str:
        """What tools have answered directly in front of the answer."""
        found: list[str] = []
        for message in reversed(self.item.held_out.messages):
            if message["role"] != "tool":
                break
            found.append(message_text(message))
        return "\n".join(reversed(found))

    @cached_property
    def choices(self) -> list[str] | None:
        """The choices that the grader knows, or that the question lists behind letters."""
        return self.known_choices or signs.listed_choices(self.question)

    @property
    def known_choices(self) -> list[str] | None:
        found = self.item.held_out.reference.metadata.get("choices")
        return found if isinstance(found, list) else None

    @property
    def is_numeric(self) -> bool:
        if self.kind in ("numeric", "reasoning_gym"):
            return self.right_number is not None
        return self.kind in ("exact", "alias", "regex") and signs.is_number(self.right_read)

    @cached_property
    def conversation(self) -> str:
        return "\n".join(message_text(message) for message in self.item.held_out.messages)

    @cached_property
    def _pattern(self) -> BoundedPattern | None:
        """The pattern of a grader that compares what it finds."""
        if self.kind != "regex":
            return None
        options = self.item.grader
        found = BoundedPattern(str(options.get("pattern")), ignore_case=bool(options.get("ignore_case")))
        return found if found.has_group else None

    @cached_property
    def _answer(self) -> Answer:
        return parse_answer(self.text)
