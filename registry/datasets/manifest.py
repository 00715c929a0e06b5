"""What a dataset's manifest says: how the snapshot was taken, and what a training has to know beside its lines.

The dataset's hash includes the manifest, so that a change of its keys changes the hash: each kind of snapshot writes
the keys that it uses and leaves out the others. One that came with an imported version is its origin's, and
only `trained_part` is read of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import ColumnElement, func

from registry.job_requests import PlayedEnvironment
from registry.models import Dataset
from registry.stored_json import StoredJson


class TrainedPart(StrEnum):
    """The part of a memory that a training changes."""

    WEAVER = "weaver"
    TRIGGER = "trigger"


@dataclass(frozen=True)
class JudgingTask(StoredJson):
    """A task whose held-out items the gate asks: how its conversations are drawn (`registry.trajectories.holdout`)."""

    task: str
    share: float
    shared_turns: int


def _judging_tasks(stored: list[dict[str, Any]]) -> tuple[JudgingTask, ...]:
    return tuple(JudgingTask.from_json(each) for each in stored)


@dataclass(frozen=True)
class Manifest(StoredJson):
    OPTIONAL = frozenset({"trains", "buffer", "min_reward", "graders", "shared_turns", "environment", "held_out"})
    READERS: ClassVar[Mapping[str, Callable[[Any], Any]]] = {
        "trains": TrainedPart,
        "environment": PlayedEnvironment.from_json,
        "held_out": _judging_tasks,
    }

    task: str
    new: int
    """Number of trajectories of the task."""
    replayed: dict[str, int]
    """Number of trajectories by earlier task."""
    replay_share: float
    seed: int
    trains: TrainedPart = TrainedPart.WEAVER
    """Left out by a training on demonstrations."""
    buffer: dict[str, dict[str, Any]] | None = None
    """By earlier task, what the replayed items were chosen from: `pool`, `items`, `content_hash`."""
    min_reward: float | None = None
    graders: dict[str, dict[str, Any]] | None = None
    """By task, the grader that rewards answers to its questions."""
    shared_turns: dict[str, int] | None = None
    """By task, the number of first turns that its recorded conversations share; tasks that share none are left out."""
    environment: PlayedEnvironment | None = None
    """Where the items to play come from, in place of the dataset's lines."""
    held_out: tuple[JudgingTask, ...] = ()
    """Tasks whose held-out items may be among the environment's."""


def manifest_of(dataset: Dataset) -> Manifest:
    """Raises UnreadableRow for the manifest of an imported version, if another kind of installation wrote it."""
    return Manifest.from_json(dataset.manifest)


def trained_part(dataset: Dataset) -> TrainedPart:
    return TrainedPart.TRIGGER if dataset.manifest.get("trains") == TrainedPart.TRIGGER else TrainedPart.WEAVER


def trains_weaver() -> ColumnElement[bool]:
    """Whether `trained_part` is the weaver, in a query on datasets."""
    return func.coalesce(Dataset.manifest["trains"].astext, TrainedPart.WEAVER.value) == TrainedPart.WEAVER.value
