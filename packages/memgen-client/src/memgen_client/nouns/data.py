"""`client.tasks`, `.trajectories`, `.feedback`, `.recordings`, `.deletions`, `.garbage`: what is learned from."""

from collections.abc import Sequence
from typing import Literal, Unpack

from memgen_client.answers import json_object, one, page, rows
from memgen_client.calls import Call, ModeT, Noun, Pages, many, once
from memgen_client.content import Content, OnProgress, Trajectories
from memgen_client.json_values import Json, JsonObject, given
from memgen_client.models.data import (
    Deletion,
    Feedback,
    Garbage,
    ImportReport,
    ReceivedFeedback,
    RecordingPolicy,
    Recordings,
    RewardedTrajectory,
    Run,
    RunDetail,
    Task,
    Trajectory,
    TrajectoryLineage,
)
from memgen_client.models.rows import Page, Rows
from memgen_client.options import FeedbackFilter, RunFilter, TaskChange, TrajectoryFilter
from memgen_client.paths import path

_UPLOAD_SECONDS = 300.0
_REMOVAL_SECONDS = 600.0
_FORMAT = "format"


class Tasks(Noun[ModeT]):
    @once
    def create(
        self,
        name: str,
        *,
        grader: Json | None = None,
        holdout_share: float | None = None,
        shared_turns: int = 0,
        description: str = "",
    ) -> Call[Task]:
        """Create a task; creating an equal one again is harmless.

        Args:
            grader: `{"kind": ..., **options}`; without one the task is scored by held-out token loss.
            holdout_share: share of conversations kept for evaluation; by default the service's.
            shared_turns: assistant turns that every conversation of the task opens with.
        """
        body = {"name": name, "description": description, "holdout_share": holdout_share, "shared_turns": shared_turns}
        return Call("POST", path("tasks"), one(Task), body={**body, **given(grader=grader)}, harmless=True)

    @once
    def list(self) -> Call[Rows[Task]]:
        return Call("GET", path("tasks"), rows(Task))

    @once
    def get(self, name: str) -> Call[Task]:
        return Call("GET", path("tasks", name), one(Task))

    @once
    def change(self, name: str, **changes: Unpack[TaskChange]) -> Call[Task]:
        """Name the judge of its new trajectories, or none."""
        return Call("PATCH", path("tasks", name), one(Task), body=changes, harmless=True)


class TrajectoryNoun(Noun[ModeT]):
    @once
    def upload(
        self,
        source: Trajectories,
        *,
        task: str | None = None,
        format: str | None = None,  # noqa: A002 - the name of the API's own parameter
        on_progress: OnProgress | None = None,
    ) -> Call[ImportReport]:
        """Stream trajectories: a file, plain or gzip, or any iterable of them. Returns what became of each line.

        Nothing is held in memory, and sending the same again is harmless: a file is sent again from its beginning if
        the connection broke, and what is there already is not added twice.

        Args:
            task: the task of the trajectories that name none themselves.
            format: `chat`, `atif`, `otlp`, `sharegpt` or `hf-tools`; None for `chat`.
            on_progress: called after each block with the bytes sent so far, and those of the whole file.
        """
        return Call(
            "POST",
            path("trajectories", "import"),
            one(ImportReport),
            params={"task": task, _FORMAT: format},
            content=Content.of(source, on_progress),
            headers={"Content-Type": "application/x-ndjson"},
            seconds=_UPLOAD_SECONDS,
            harmless=True,
        )

    @once
    def create(
        self,
        trajectories: Sequence[Json],
        *,
        task: str | None = None,
        format: str | None = None,  # noqa: A002
    ) -> Call[ImportReport]:
        """Store up to 1,000 in one request; the report has a line for each."""
        body = {"trajectories": [*trajectories]}
        params = {"task": task, _FORMAT: format}
        return Call("POST", path("trajectories"), one(ImportReport), params=params, body=body, harmless=True)

    @once
    def list(
        self, *, limit: int = 50, cursor: str | None = None, **wanted: Unpack[TrajectoryFilter]
    ) -> Call[Page[Trajectory]]:
        """A page, in order of arrival, or the `newest` first; with `include_messages` also what was said."""
        return _trajectories(wanted).at(cursor, limit)

    @many
    def all(self, **wanted: Unpack[TrajectoryFilter]) -> Pages[Trajectory]:
        """All of them, fetched page by page; with `include_messages` also what was said."""
        return Pages(_trajectories(wanted))

    @once
    def get(self, trajectory: str) -> Call[RewardedTrajectory]:
        """One with its messages, and all rewards that it was given."""
        return Call("GET", path("trajectories", trajectory), one(RewardedTrajectory))

    @once
    def lineage(self, trajectory: str) -> Call[TrajectoryLineage]:
        """The suites, datasets and versions that the trajectory went to, and what serves them."""
        return Call("GET", path("trajectories", trajectory, "lineage"), one(TrajectoryLineage))

    @once
    def send_spans(self, spans: Json, *, task: str | None = None) -> Call[JsonObject]:
        """Record the calls of models in OpenTelemetry spans, an ExportTraceServiceRequest as JSON. Exporters send them
        by themselves. `partialSuccess` in the reply says what was not recorded, and why."""
        headers = {} if task is None else {"X-Memgen-Task": task}
        return Call("POST", path("traces"), json_object(), body=spans, headers=headers)


class FeedbackNoun(Noun[ModeT]):
    @once
    def give(
        self,
        reward: float,
        *,
        completion: str | None = None,
        run: str | None = None,
        session: str | None = None,
        trajectory: str | None = None,
        source: str = "user",
        comment: str = "",
    ) -> Call[ReceivedFeedback]:
        """Report a reward from 0 to 1 of exactly one of them. Feedback on a run or a session closes it.

        The first reward of a source stands: sending the same again is harmless, another one is refused (Conflict).
        """
        named = given(completion_id=completion, run_id=run, session_id=session, trajectory_id=trajectory)
        body = {**named, "reward": float(reward), "source": source, "comment": comment}
        return Call("POST", path("feedback"), one(ReceivedFeedback), body=body, harmless=True)

    @once
    def list(
        self, *, limit: int = 50, cursor: str | None = None, **wanted: Unpack[FeedbackFilter]
    ) -> Call[Page[Feedback]]:
        """A page, newest first."""
        return _feedback(wanted).at(cursor, limit)

    @many
    def all(self, **wanted: Unpack[FeedbackFilter]) -> Pages[Feedback]:
        """All of it, newest first."""
        return Pages(_feedback(wanted))


class RecordingNoun(Noun[ModeT]):
    @once
    def get(self) -> Call[Recordings]:
        """Policies, and how much was recorded, waits, and was not recorded by which reason."""
        return Call("GET", path("recordings"), one(Recordings))

    @once
    def set_policy(
        self,
        mode: Literal["off", "asked", "all"],
        *,
        adapter: str | None = None,
        share: float = 1.0,
        task: str | None = None,
        idle_seconds: float | None = None,
    ) -> Call[RecordingPolicy]:
        """Set the policy of the project, or of an adapter."""
        body = {"mode": mode, "share": float(share), "task": task, "idle_seconds": idle_seconds}
        place = path("recordings", "policy") if adapter is None else path("recordings", "policies", adapter)
        return Call("PUT", place, one(RecordingPolicy), body=body)

    @once
    def clear_policy(self, adapter: str) -> Call[RecordingPolicy]:
        """Let the project's policy, which it returns, hold for an adapter again."""
        return Call("DELETE", path("recordings", "policies", adapter), one(RecordingPolicy), harmless=True)

    @once
    def runs(self, *, limit: int = 50, cursor: str | None = None, **wanted: Unpack[RunFilter]) -> Call[Page[Run]]:
        """A page of runs, newest first."""
        return _runs(wanted).at(cursor, limit)

    @many
    def all_runs(self, **wanted: Unpack[RunFilter]) -> Pages[Run]:
        """Every run, newest first."""
        return Pages(_runs(wanted))

    @once
    def run(self, run_id: str) -> Call[RunDetail]:
        """A run with its messages, by its id or by the one that an answer's `memgen.recorded` named."""
        return Call("GET", path("runs", run_id), one(RunDetail))


class Deletions(Noun[ModeT]):
    @once
    def create(
        self,
        scope: Literal["trajectory", "session", "user"],
        identifier: str,
        *,
        policy: Literal["keep", "retrain", "withdraw"] = "keep",
        reason: str = "",
        dry_run: bool = True,
        expected: int | None = None,
    ) -> Call[Deletion]:
        """Delete data for good. By default a dry run.

        Args:
            policy: what becomes of versions that learned the data.
            expected: number of trajectories that the dry run showed; Conflict if they are not as many.
        """
        body = {"scope": scope, "id": identifier, "policy": policy, "reason": reason, "dry_run": dry_run}
        body |= {"expected": expected}
        return Call("POST", path("deletions"), one(Deletion), body=body, seconds=_REMOVAL_SECONDS)

    @once
    def list(self, *, limit: int = 50, cursor: str | None = None) -> Call[Page[Deletion]]:
        """A page, newest first."""
        return Call("GET", path("deletions"), page(Deletion)).at(cursor, limit)

    @many
    def all(self) -> Pages[Deletion]:
        """Every deletion, newest first."""
        return Pages(Call("GET", path("deletions"), page(Deletion)))

    @once
    def get(self, deletion: str) -> Call[Deletion]:
        """`retrainings` in it says how the training of versions anew goes."""
        return Call("GET", path("deletions", deletion), one(Deletion))


class GarbageNoun(Noun[ModeT]):
    @once
    def collect(self, *, dry_run: bool = True) -> Call[Garbage]:
        """Remove objects that no row names any more. By default a dry run."""
        return Call("POST", path("garbage"), one(Garbage), body={"dry_run": dry_run}, seconds=_REMOVAL_SECONDS)


def _trajectories(wanted: TrajectoryFilter) -> Call[Page[Trajectory]]:
    return Call("GET", path("trajectories"), page(Trajectory), params=wanted)


def _feedback(wanted: FeedbackFilter) -> Call[Page[Feedback]]:
    return Call("GET", path("feedback"), page(Feedback), params=wanted)


def _runs(wanted: RunFilter) -> Call[Page[Run]]:
    return Call("GET", path("runs"), page(Run), params=wanted)
