"""Baselines that only write into the prompt: demonstrations in front of a question, as turns of the conversation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.learning.material import Material
from bench.learning.systems import FewShot, Retrieval
from memgen.experience.pool import question_of
from memgen.experience.retrieval import Query, Retriever
from memgen.tasks.task import Environment, Observation, TaskItem
from memgen.text.answers import Answer, ChatMessage

Messages = Sequence[ChatMessage]
Prompting = Callable[[Messages], list[ChatMessage]]
"""Takes the opening of a conversation, returns it with demonstrations in it."""


@dataclass(frozen=True)
class PromptedItem:
    """A `TaskItem` whose environment begins with demonstrations."""

    item: TaskItem
    prompting: Prompting

    @property
    def item_id(self) -> str:
        return self.item.item_id

    @property
    def tools(self) -> list[dict[str, Any]] | None:
        return self.item.tools

    @property
    def expert(self) -> tuple[ChatMessage, ...] | None:
        return self.item.expert

    @property
    def max_turns(self) -> int:
        return self.item.max_turns

    def open(self) -> Environment:
        return _Prompted(self.item.open(), self.prompting)


class _Prompted:
    def __init__(self, environment: Environment, prompting: Prompting) -> None:
        self._environment = environment
        self._prompting = prompting

    def reset(self) -> Observation:
        seen = self._environment.reset()
        return replace(seen, messages=tuple(self._prompting(seen.messages)))

    def step(self, answer: Answer) -> Observation:
        return self._environment.step(answer)

    def close(self) -> None:
        self._environment.close()


def prompting_of(material: Material, system: FewShot | Retrieval, task: int | None) -> Prompting:
    """How a system writes its prompts; `task` is the item's task, None for ordinary text."""
    if isinstance(system, Retrieval):
        return _retrieving(material, system)
    shown = [] if task is None else _fitting(material, material.demonstrations(task, system.seed))
    return lambda messages: _insert(messages, shown)


def _retrieving(material: Material, system: Retrieval) -> Prompting:
    pool, conversations = material.experience(system.stage, system.seed)
    retriever = Retriever(pool, "bm25")

    def prompting(messages: Messages) -> list[ChatMessage]:
        query = Query(question_of(messages), trajectories=material.plan.demonstrations, insights=0)
        found = [conversations[hit.entry.entry_id] for hit in retriever.search(query)]
        return _insert(messages, _fitting(material, found))

    return prompting


def _fitting(material: Material, conversations: Sequence[tuple[ChatMessage, ...]]) -> list[tuple[ChatMessage, ...]]:
    """The first that fit into the plan's number and tokens; one that does not is passed over."""
    kept: list[tuple[ChatMessage, ...]] = []
    for conversation in conversations:
        wanted = [*kept, conversation]
        tokens = len(material.prompt_ids([message for one in wanted for message in one], None))
        if tokens <= material.plan.demonstration_tokens:
            kept = wanted
        if len(kept) == material.plan.demonstrations:
            break
    return kept


def _insert(messages: Messages, shown: Sequence[tuple[ChatMessage, ...]]) -> list[ChatMessage]:
    """Behind the system message, the best one next to the question."""
    begun = next((n for n, message in enumerate(messages) if message["role"] != "system"), len(messages))
    turns = [message for conversation in reversed(shown) for message in conversation]
    return [*messages[:begun], *turns, *messages[begun:]]
