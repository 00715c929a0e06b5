"""Recorded conversations with an environment that is not there to be played, as multi-turn items.

The replay knows the environment's messages along the expert's path and nothing beside it, so it can only ask for the
expert's own actions: its reward is imitation, not success at the task.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from memgen.errors import ConfigError
from memgen.tasks.function_calls import same_calls
from memgen.tasks.task import Observation
from memgen.text.answers import Answer, ChatMessage, message_calls, message_text

_ACTION = re.compile(r"^\s*action\s*:\s*(.*\S)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class RecordedConversation:
    """A `TaskItem` whose expert is the record.

    Raises:
        ConfigError: no assistant turn of the record is to be learned.
    """

    item_id: str
    expert: tuple[ChatMessage, ...]
    """Assistant turns with `weight` 0 are context, not to be learned."""
    tools: list[dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        if not self.learned_turns:
            raise ConfigError(f"record {self.item_id!r} has no assistant turn to learn; expected one without weight 0")

    @property
    def learned_turns(self) -> tuple[int, ...]:
        """Indices into `expert`."""
        return tuple(
            index
            for index, message in enumerate(self.expert)
            if message["role"] == "assistant" and message.get("weight", 1) != 0
        )

    @property
    def max_turns(self) -> int:
        return len(self.learned_turns)

    def open(self) -> "ReplayedEnvironment":
        return ReplayedEnvironment(self)


class ReplayedEnvironment:
    """An environment that goes on as recorded while the assistant acts as the expert did, and ends where it does not.

    Each right action of n earns 1/n. The action of a turn that calls tools is its calls; of another one, the line
    `Action: ...` if there is one (ReAct's form), else the whole text. Case and white space do not count; silence is no
    action.
    """

    def __init__(self, item: RecordedConversation) -> None:
        self._item = item
        self._turn = 0

    def reset(self) -> Observation:
        self._turn = 0
        return Observation(self._item.expert[: self._item.learned_turns[0]])

    def step(self, answer: Answer) -> Observation:
        record, turns = self._item.expert, self._item.learned_turns
        if self._turn >= len(turns):
            raise ConfigError("the episode has ended; expected reset()")
        here = turns[self._turn]
        if not _acts_like(answer, record[here]):
            self._turn = len(turns)
            return Observation((), 0.0, done=True)
        self._turn += 1
        done = self._turn == len(turns)
        upcoming = len(record) if done else turns[self._turn]
        return Observation(tuple(record[here + 1 : upcoming]), 1 / len(turns), done)

    def close(self) -> None:
        pass


def _acts_like(answer: Answer, expert: ChatMessage) -> bool:
    if calls := message_calls(expert):
        return same_calls(answer.tool_calls, calls)
    acted = _action(answer.content or "")
    return bool(acted) and not answer.tool_calls and acted == _action(message_text(expert))


def _action(text: str) -> str:
    found: Sequence[str] = _ACTION.findall(text)
    return " ".join((found[-1] if found else text).casefold().split())
