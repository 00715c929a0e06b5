"""Procedural reasoning tasks of reasoning-gym, as a `Task` and as expert trajectories.

A dataset makes its item number n from `seed + n`, so items are drawn from ranges of seeds: the held-out side's begins
at 2**40, each training seed has 2**20 of its own. On top of that the text of a question decides its side (`split`), so
that a dataset with few different questions shares none either.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count as count_up
from itertools import islice
from typing import Any

from memgen.errors import ConfigError
from memgen.tasks.graders import Reference
from memgen.tasks.gym_scorer import GymScorer
from memgen.tasks.split import is_held_out, question_digest
from memgen.tasks.task import SingleTurn
from memgen.text.answers import Answer

_HELD_OUT_SEED = 2**40
_SEEDS_APART = 2**20
_CHUNK = 128
_DRAWS_WITHOUT_NEWS = 1000
"""After so many in a row a dataset is taken to have no further question."""


@dataclass(frozen=True)
class Reasoning:
    """A dataset of reasoning-gym by its name, graded by its own scorer.

    Raises:
        ConfigError: reasoning-gym has no such dataset, refuses the options, or makes no held-out items of it.
    """

    dataset: str
    options: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the dataset's config, such as `min_words`."""
    max_new_tokens: int = 64

    def __post_init__(self) -> None:
        try:
            _ = self._scorer.entries(size=1, seed=_HELD_OUT_SEED)[0]
        except ValueError as error:
            raise ConfigError(
                f"dataset {self.dataset!r} takes no seed as great as a held-out item's: {error}"
            ) from error

    @property
    def name(self) -> str:
        return f"reasoning-gym:{self.dataset}"

    def training_items(self, count: int, *, seed: int = 0) -> Sequence[SingleTurn]:
        return list(islice(self._items(seed * _SEEDS_APART, held_out=False), count))

    def held_out_items(self, count: int) -> Sequence[SingleTurn]:
        return list(islice(self._items(_HELD_OUT_SEED, held_out=True), count))

    def _items(self, first_seed: int, *, held_out: bool) -> Iterator[SingleTurn]:
        """Items of one side with different questions, until nothing new comes."""
        seen: set[str] = set()
        without_news = 0
        for seed in count_up(first_seed, _CHUNK):
            for entry in self._scorer.entries(size=_CHUNK, seed=seed):
                digest = question_digest(entry["question"])
                if digest in seen or is_held_out(entry["question"]) != held_out:
                    without_news += 1
                    continue
                without_news = 0
                seen.add(digest)
                yield self._item(entry, digest)
            if without_news >= _DRAWS_WITHOUT_NEWS:
                return

    def _item(self, entry: dict[str, Any], digest: str) -> SingleTurn:
        question, answer = _messages(entry)
        item_id, reference = f"{self.dataset}-{digest[:16]}", Reference(answer, {"entry": entry})
        # Some datasets know how to judge an answer, and none to give.
        return SingleTurn(item_id, (question,), self._grade, reference, has_expert=entry["answer"] is not None)

    def _grade(self, answer: Answer, reference: Reference) -> float:
        return self._scorer((answer.content or "").strip(), reference.metadata["entry"])

    @cached_property
    def _scorer(self) -> GymScorer:
        return GymScorer(self.dataset, self.options)


def reasoning_trajectories(dataset: str, *, size: int, seed: int, **options: Any) -> Iterator[dict[str, Any]]:
    """`size` trajectories of a reasoning-gym dataset: its question, and its answer as the assistant turn.

    `metadata.entry` is what reasoning-gym's scorer needs to grade another answer to the same question.
    """
    for entry in GymScorer(dataset, options).entries(size=size, seed=seed):
        yield {
            "trajectory_id": f"{dataset}-{seed}-{entry['metadata']['source_index']}",
            "messages": _messages(entry),
            "reward": 1.0,
            "reward_source": "grader",
            "success": True,
            "metadata": {"entry": entry},
        }


def _messages(entry: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": entry["question"]},
        {"role": "assistant", "content": entry["answer"]},
    ]
