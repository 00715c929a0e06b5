"""What a job is asked to do: its kind, and one typed request for each kind, as `Job.params` stores it.

A new kind of job touches these places, and needs no migration:

    here                          a member of `JobKind`; a frozen dataclass with that `kind`, named in `JobRequest` and
                                  `REQUESTS`, and for a training in `AnyTraining` and `TRAININGS`
    workers/jobs/<kind>.py        `run`, which does the work; listed in `make_handlers` of `workers.main`
    api/endpoints/job_bodies.py   over REST: the kind in `JobIn.kind`, and what reads its body in `READERS`
    packages/memgen-client, api/cli   the call and the command that make such a job

Tests fail as long as a kind lacks its request or its handler. This module knows no table and no session:
`registry.jobs` reads a job's request. How requests are stored is `registry.stored_json`'s.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from registry.errors import UnreadableRow
from registry.stored_json import StoredJson

GOOD_REWARD = 0.5
"""Least reward that counts as a success, where `success` is absent and no other threshold is named."""


class _StoredText(StrEnum):
    """Members are shown as their text, also where a validator lists what it expected."""

    def __repr__(self) -> str:
        return repr(self.value)


class JobKind(_StoredText):
    TRAIN_WEAVER = "train_weaver"
    TRAIN_TRIGGER = "train_trigger"
    EVALUATE = "evaluate"
    CHECK_IMPORT = "check_import"
    JUDGE = "judge"
    ANALYZE = "analyze"
    IMPORT = "import"


BOOKKEEPING = (JobKind.IMPORT,)
"""Kinds whose jobs are finished when they are made: no worker runs them."""


class Method(_StoredText):
    """How a weaver is trained."""

    SFT = "sft"
    """By imitating demonstrations."""
    GRPO = "grpo"
    """By the grader's reward for answers of its own."""
    GRPO_RECORDED = "grpo_recorded"
    """By comparing uploaded answers to the same prompts that got different rewards."""


@dataclass(frozen=True)
class PlayedEnvironment(StoredJson):
    """Where items to play come from, if not from a task's trajectories."""

    name: str
    """For example `textworld`, or `reasoning-gym:<dataset>`."""
    options: dict[str, Any]
    items: int
    """Number of items to draw."""


def _number(stored: Any) -> int:
    if not isinstance(stored, int) or isinstance(stored, bool):
        raise ValueError("expected a whole number")
    return stored


def _number_or_none(stored: Any) -> int | None:
    return None if stored is None else _number(stored)


def _texts(stored: Any) -> tuple[str, ...]:
    if not isinstance(stored, list) or not all(isinstance(text, str) for text in stored):
        raise ValueError("expected a list of texts")
    return tuple(stored)


def _environment(stored: Mapping[str, Any] | None) -> PlayedEnvironment | None:
    return None if stored is None else PlayedEnvironment.from_json(stored)


@dataclass(frozen=True)
class _Request(StoredJson):
    VERSIONS: ClassVar[tuple[str, ...]] = ()
    """Fields that hold the number of a version which the job reads."""

    @property
    def versions_needed(self) -> tuple[int, ...]:
        """Numbers of the versions that the job reads."""
        return tuple(number for number in (getattr(self, name) for name in self.VERSIONS) if number)


@dataclass(frozen=True)
class TrainWeaver(_Request):
    """Train the weaver on a task, going on from a version."""

    kind: ClassVar[JobKind] = JobKind.TRAIN_WEAVER
    VERSIONS = ("parent",)
    OPTIONAL = frozenset({"replay_share", "environment", "insights", "replaces", "retry_of", "form"})
    READERS: ClassVar[Mapping[str, Callable[[Any], Any]]] = {
        "method": Method,
        "environment": _environment,
        "insights": _texts,
        "parent": _number_or_none,
        "replaces": _number_or_none,
        "retry_of": _number_or_none,
    }

    task: str
    parent: int | None = None
    """Number of the version to go on from; None or 0 for none."""
    method: Method = Method.SFT
    training: dict[str, Any] = field(default_factory=dict)
    """Fields of the method's config in memgen; opaque here. A field that is missing has its default."""
    min_reward: float = GOOD_REWARD
    promote: bool = True
    """Whether passing the gate may move an alias or start a canary."""
    replay_share: float | None = None
    """None for the adapter's."""
    environment: PlayedEnvironment | None = None
    insights: tuple[str, ...] = ()
    """Rules in words that somebody wrote for the weaver's cues."""
    replaces: int | None = None
    """Number of the version that this one is trained anew for, without deleted data."""
    retry_of: int | None = None
    """Number of the version that forgot, which this training tries again with a larger replay share."""
    form: str | None = None
    """None for the adapter's."""


@dataclass(frozen=True)
class TrainTrigger(_Request):
    """Teach the trigger of a version when to weave."""

    kind: ClassVar[JobKind] = JobKind.TRAIN_TRIGGER
    VERSIONS = ("parent",)
    OPTIONAL = frozenset({"environment", "task", "replaces"})
    READERS: ClassVar[Mapping[str, Callable[[Any], Any]]] = {
        "tasks": _texts,
        "environment": _environment,
        "parent": _number_or_none,
        "replaces": _number_or_none,
    }

    tasks: tuple[str, ...]
    """Names of the tasks to play."""
    parent: int | None = None
    """Number of the version whose trigger is trained. Only a step of a retraining that has not begun has none yet."""
    training: dict[str, Any] = field(default_factory=dict)
    """Fields of memgen's TriggerConfig; opaque here. A field that is missing has its default."""
    min_reward: float = GOOD_REWARD
    promote: bool = True
    environment: PlayedEnvironment | None = None
    task: str | None = None
    """The task that the memory was trained for, noted by a retraining for those who look at the job. The worker does
    not read it: it takes the task of the parent."""
    replaces: int | None = None
    """As for `TrainWeaver`."""


@dataclass(frozen=True)
class Evaluate(_Request):
    """Score a version on the suites of what it has learned, and let the gate judge it if that is asked for."""

    kind: ClassVar[JobKind] = JobKind.EVALUATE
    VERSIONS = ("version",)
    OPTIONAL = frozenset({"judge"})
    READERS: ClassVar[Mapping[str, Callable[[Any], Any]]] = {"version": _number}

    version: int
    judge: bool = False
    """Whether the gate, which has not run because the version's own job failed, judges it as that job would have."""


@dataclass(frozen=True)
class CheckImport(_Request):
    """Let this installation's gate judge a version that another one trained."""

    kind: ClassVar[JobKind] = JobKind.CHECK_IMPORT
    VERSIONS = ("version",)
    READERS: ClassVar[Mapping[str, Callable[[Any], Any]]] = {"version": _number}

    version: int
    promote: bool = True


@dataclass(frozen=True)
class JudgeTrajectories(_Request):
    """Let a judge score what waits for it in a task, within a budget."""

    kind: ClassVar[JobKind] = JobKind.JUDGE
    VERSIONS = ("version",)
    OPTIONAL = frozenset({"version", "after", "unrewarded", "held_out", "again", "max_tokens", "by_itself"})
    READERS: ClassVar[Mapping[str, Callable[[Any], Any]]] = {
        "up_to": _number,
        "after": _number,
        "max_calls": _number,
        "max_tokens": _number_or_none,
        "version": _number_or_none,
    }

    judge: str
    task: str
    model: str
    """The exact model: `base`, `adapter@7` or `upstream/model`."""
    up_to: int
    """Arrival number of the newest trajectory to judge, so that the job ends."""
    max_calls: int
    max_tokens: int | None = None
    """Prompts and answers count."""
    version: int | None = None
    """Number of the version of the job's adapter that judges."""
    after: int = 0
    """Arrival number of the newest trajectory that an earlier job has dealt with."""
    unrewarded: bool = False
    """Only trajectories without a reward."""
    held_out: bool = False
    """Whether those that are kept for evaluation are judged, too."""
    again: bool = False
    """Whether those that got no score from earlier jobs are judged, too."""
    by_itself: bool = False
    """Whether the tick started it."""


@dataclass(frozen=True)
class AnalyzeVersion(_Request):
    """Look into the memory of a version, on held-out items of tasks."""

    kind: ClassVar[JobKind] = JobKind.ANALYZE
    VERSIONS = ("version", "against")
    OPTIONAL = frozenset({"against", "judge", "judge_model", "max_calls"})
    READERS: ClassVar[Mapping[str, Callable[[Any], Any]]] = {
        **dict.fromkeys(("version", "items", "least_clusters", "most_clusters", "seed", "max_calls"), _number),
        "tasks": _texts,
        "against": _number_or_none,
    }

    version: int
    tasks: tuple[str, ...]
    items: int = 200
    """Items at most, of all tasks together."""
    least_clusters: int = 2
    most_clusters: int = 8
    interventions: bool = True
    """Whether the items are answered again without each cluster's latents."""
    ablations: bool = True
    """Whether they are answered again with less, or other, memory."""
    seed: int = 0
    against: int | None = None
    """Number of the version of the same adapter that its latents are compared with."""
    judge: str | None = None
    """Name of the judge whose model says of which kind a wrong answer is."""
    judge_model: str | None = None
    """The judge's exact model, as `JudgeTrajectories.model`."""
    max_calls: int = 1_000
    """Calls of the judge's model at most."""


@dataclass(frozen=True)
class RecordImport(_Request):
    """Stand for the training of an imported version, which happened elsewhere."""

    kind: ClassVar[JobKind] = JobKind.IMPORT
    OPTIONAL = frozenset({"form"})

    origin: str
    """`support-bot@7`, as it was called there."""
    form: str | None = None
    """As for `TrainWeaver`."""


AnyTraining = TrainWeaver | TrainTrigger
"""Requests that read a dataset and register a version trained on it."""
JobRequest = AnyTraining | Evaluate | CheckImport | JudgeTrajectories | AnalyzeVersion | RecordImport

_KINDS = (TrainWeaver, TrainTrigger, Evaluate, CheckImport, JudgeTrajectories, AnalyzeVersion, RecordImport)
REQUESTS: Mapping[JobKind, type[JobRequest]] = {request.kind: request for request in _KINDS}

TRAININGS = (JobKind.TRAIN_WEAVER, JobKind.TRAIN_TRIGGER)
"""Kinds of `AnyTraining`."""


def read_request(kind: str, params: Mapping[str, Any]) -> JobRequest:
    """Raises UnreadableRow: an unknown kind, or as `from_json`."""
    if kind not in REQUESTS:
        raise UnreadableRow(f"the kind is {kind!r}; expected one of {', '.join(sorted(REQUESTS))}")
    return REQUESTS[JobKind(kind)].from_json(params)


def versions_named(kind: str, params: Mapping[str, Any]) -> tuple[int, ...]:
    """Numbers of the versions that a job reads, also of one that this release can't read, which may still hold them.

    So that a job of another release stops neither a deletion nor retention.
    """
    try:
        return read_request(kind, params).versions_needed
    except UnreadableRow:
        named = params.get("parent", params.get("version"))
        return (named,) if isinstance(named, int) else ()


def replaced_named(params: Mapping[str, Any]) -> int | None:
    """Number of the version that the job's version is trained anew for, without deleted data; None if for none."""
    named = params.get("replaces")
    return named if isinstance(named, int) else None


def task_named(params: Mapping[str, Any]) -> str | None:
    """Name of the task that a job is for, also of one that this release can't read; None if it is for none."""
    named = params.get("task")
    return named if isinstance(named, str) else None
