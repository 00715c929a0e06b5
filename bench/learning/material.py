"""What a plan asks for: items of its tasks, examples to train on, examples to replay, demonstrations, ordinary text.

All of it follows from the plan and the seed.
"""

import json
from collections import Counter
from collections.abc import Sequence
from functools import cached_property, lru_cache
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from bench.learning.plan import LearningPlan, TaskChoice
from bench.learning.systems import Link
from bench.router.prompts import ordinary_text
from memgen.backbone.loading import Backbone
from memgen.errors import NothingToTrain
from memgen.experience.pool import Experience, past_trajectory
from memgen.tasks.catalogue import make_task
from memgen.tasks.task import Task, TaskItem
from memgen.text.answers import Answer, ChatMessage, message_calls, message_text
from memgen.training.examples import Example, ExampleSet, build_examples

VALIDATION = "validation"
"""Name under which scores on validation items are kept."""


class Material:
    """Made once a run; what is slow to make is kept."""

    def __init__(self, plan: LearningPlan, backbone: Backbone, games: Path) -> None:
        """`games` is a folder where TextWorld keeps its compiled games."""
        self.plan = plan
        self.backbone = backbone
        self._games = games
        self.training_items = lru_cache(maxsize=32)(self._training_items)
        self.held_out_items = lru_cache(maxsize=32)(self._held_out_items)
        self.examples = lru_cache(maxsize=32)(self._examples)

    @cached_property
    def tasks(self) -> list[Task]:
        return [self._task(choice) for choice in self.plan.tasks]

    def validation_items(self) -> Sequence[TaskItem]:
        """Training items of the first task, seed 0, beyond those trained on."""
        trained = self.plan.tasks[0].training_items
        found = self.tasks[0].training_items(trained + self.plan.validation_items, seed=0)[trained:]
        if not found:
            raise NothingToTrain(
                f"task {self.plan.labels[0]!r} has no training items beyond {trained} to choose a learning rate on; "
                "lower training_items, or give one learning rate"
            )
        return found

    def sft_examples(self, link: Link, seed: int) -> ExampleSet:
        """Examples of the link's task and, with replay, of all tasks before it in equal parts."""
        own = self.examples(link.task, seed)
        old = [self.examples(task, seed).examples[: self.plan.replay_examples] for task in range(link.task)]
        mixed = (*own.examples, *_in_turns(old, self._replayed(len(own.examples), link)))
        return ExampleSet(mixed, own.skipped_long, own.skipped_weight)

    def reward_items(self, link: Link, seed: int) -> list[TaskItem]:
        """To learn from by reward; the replayed share is that of SFT."""
        own = list(self.training_items(link.task, seed))
        old = [list(self.training_items(task, seed)) for task in range(link.task)]
        return [*own, *_in_turns(old, self._replayed(len(own), link))]

    def trigger_items(self, tasks: Sequence[int], seed: int) -> dict[str, Sequence[TaskItem]]:
        """Equally many of each of the tasks, and of the task that nobody learns."""
        count = self.plan.trigger_steps * self.plan.trigger_items
        items = {self.plan.labels[t]: self.training_items(t, seed)[:count] for t in tasks}
        if self.plan.outside is not None:
            items[self.plan.outside.label] = self._task(self.plan.outside).training_items(count, seed=seed)
        fewest = min(len(some) for some in items.values())
        return {label: some[:fewest] for label, some in items.items()}

    def new_tokens(self, tasks: Sequence[int]) -> int:
        return max(self.tasks[task].max_new_tokens for task in tasks)

    def most_frequent_answer(self, task: int, seed: int) -> Answer:
        """Over all turns of the experts."""
        turns = [m for messages in self._experts(task, seed) for m in messages if m["role"] == "assistant"]
        texts = Counter(json.dumps([message_text(m), message_calls(m)], sort_keys=True) for m in turns)
        content, calls = json.loads(texts.most_common(1)[0][0])
        return Answer(content or None, tuple(calls))

    def first_prompts(self, items: Sequence[TaskItem]) -> list[tuple[int, ...]]:
        """Token ids of what stands in front of the first assistant turn."""
        return [self.prompt_ids(opening(item), item.tools) for item in items]

    def prompt_ids(self, messages: Sequence[ChatMessage], tools: list[dict[str, Any]] | None) -> tuple[int, ...]:
        return self.backbone.profile.prompt_ids(messages, tools)

    def demonstrations(self, task: int, seed: int) -> list[tuple[ChatMessage, ...]]:
        """Experts' conversations of a task without system messages, which are the task's."""
        return [tuple(m for m in e if m["role"] != "system") for e in self._experts(task, seed)]

    def experience(self, stage: int, seed: int) -> tuple[Experience, dict[str, tuple[ChatMessage, ...]]]:
        """All experts of the tasks up to `stage`, to be searched, and the conversation of each entry."""
        conversations: dict[str, tuple[ChatMessage, ...]] = {}
        entries = []
        for task in range(stage + 1):
            for number, messages in enumerate(self.demonstrations(task, seed)):
                entry_id = f"{self.plan.labels[task]}-{number}"
                conversations[entry_id] = messages
                entries.append(past_trajectory(entry_id, self.plan.labels[task], messages, 1.0))
        return Experience(tuple(entries)), conversations

    def text_messages(self) -> list[list[ChatMessage]]:
        """Ordinary text as conversations: a request to continue its first half, and its second half as the answer.

        English conversation, documentation of Python and descriptions of packages (`bench.router.prompts`), in equal
        parts; none of it is of a task.
        """
        kinds, tokenizer = ordinary_text(), self.backbone.tokenizer
        share = -(-self.plan.texts // len(kinds))
        texts = []
        for prompts in kinds.values():
            whole = [tokenizer(p.messages[-1]["content"]).input_ids[: self.plan.text_tokens] for p in prompts]
            texts += [ids for ids in whole if len(ids) >= self.plan.text_tokens // 3][:share]
        halves = [(tokenizer.decode(ids[: len(ids) // 2]), tokenizer.decode(ids[len(ids) // 2 :])) for ids in texts]
        return [
            [
                {"role": "user", "content": f"Continue this text.\n\n{first}"},
                {"role": "assistant", "content": second},
            ]
            for first, second in halves[: self.plan.texts]
        ]

    def example(self, messages: Sequence[ChatMessage]) -> Example:
        return Example(*self.backbone.profile.turn_ids(messages))

    def _task(self, choice: TaskChoice) -> Task:
        # Where games are kept is the machine's business, not the plan's.
        place = {"folder": self._games} if choice.name == "textworld" else {}
        return make_task(choice.name, **place, **choice.options)

    def _training_items(self, task: int, seed: int) -> Sequence[TaskItem]:
        return self.tasks[task].training_items(self.plan.tasks[task].training_items, seed=seed)

    def _held_out_items(self, task: int) -> Sequence[TaskItem]:
        return self.tasks[task].held_out_items(self.plan.items)

    def _examples(self, task: int, seed: int) -> ExampleSet:
        items = [item for item in self.training_items(task, seed) if item.expert]
        trajectories = [{"messages": list(item.expert or ()), "tools": item.tools} for item in items]
        return build_examples(self.backbone.profile, trajectories, max_tokens=self.plan.max_example_tokens)

    def _experts(self, task: int, seed: int) -> list[tuple[ChatMessage, ...]]:
        return [item.expert for item in self.training_items(task, seed) if item.expert]

    def _replayed(self, own: int, link: Link) -> int:
        share = self.plan.replay_share if link.replay else 0.0
        return round(own * share / (1 - share))


def opening(item: TaskItem) -> tuple[ChatMessage, ...]:
    """The messages in front of the first assistant turn."""
    environment = item.open()
    try:
        return environment.reset().messages
    finally:
        environment.close()


def _in_turns(sources: Sequence[Sequence[Any]], count: int) -> list[Any]:
    """`count` of all sources, one of each in turn, from the start again when a source ends."""
    endless = [cycle(source) for source in sources if source]
    return [next(source) for source in islice(cycle(endless), count)] if endless else []
