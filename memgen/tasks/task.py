"""What a task is: items that open environments, and an expert where there is one.

A single-turn task (prompt, grader) is an environment that ends with its first step, so rollouts know one interface.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from memgen.tasks.graders import Grader, Reference
from memgen.text.answers import Answer, ChatMessage


@dataclass(frozen=True)
class Observation:
    """What an environment answers to a step."""

    messages: tuple[ChatMessage, ...]
    """Messages to append to the conversation, behind the assistant's turn if there was one."""
    reward: float = 0.0
    """Gained by the last step; an episode's reward is the sum over its steps."""
    done: bool = False


class Environment(Protocol):
    """One episode. Not shared between threads."""

    def reset(self) -> Observation:
        """Begin: the messages in front of the first assistant turn."""
        ...

    def step(self, answer: Answer) -> Observation:
        """Take the assistant's turn."""
        ...

    def close(self) -> None:
        """Free what the episode holds; may be called twice."""
        ...


class TaskItem(Protocol):
    """One problem of a task, the same at every look."""

    @property
    def item_id(self) -> str: ...

    @property
    def tools(self) -> list[dict[str, Any]] | None:
        """OpenAI tool schemas offered to the assistant."""
        ...

    @property
    def expert(self) -> tuple[ChatMessage, ...] | None:
        """A whole conversation that earns the full reward, for SFT; None where none is known."""
        ...

    @property
    def max_turns(self) -> int: ...

    def open(self) -> Environment: ...


class Task(Protocol):
    """A named domain of items, split once and for all."""

    @property
    def name(self) -> str: ...

    @property
    def max_new_tokens(self) -> int:
        """Most tokens of one assistant turn."""
        ...

    def training_items(self, count: int, *, seed: int = 0) -> Sequence[TaskItem]:
        """Up to `count` items; never a held-out one."""
        ...

    def held_out_items(self, count: int) -> Sequence[TaskItem]:
        """The first `count` held-out items, or all there are."""
        ...


@dataclass(frozen=True)
class SingleTurn:
    """A `TaskItem` with one question and a grader of the answer."""

    item_id: str
    prompt: tuple[ChatMessage, ...]
    grader: Grader
    reference: Reference
    tools: list[dict[str, Any]] | None = None
    has_expert: bool = True
    """Whether the reference message is a right answer in the form that the task wants."""
    max_turns: int = field(default=1, init=False)

    @property
    def expert(self) -> tuple[ChatMessage, ...] | None:
        return (*self.prompt, self.reference.message) if self.has_expert else None

    def open(self) -> Environment:
        return _OneStep(self)


class _OneStep:
    def __init__(self, item: SingleTurn) -> None:
        self._item = item

    def reset(self) -> Observation:
        return Observation(self._item.prompt)

    def step(self, answer: Answer) -> Observation:
        return Observation((), self._item.grader(answer, self._item.reference), done=True)

    def close(self) -> None:
        pass
