"""`client.jobs`: trainings and evaluations, started, followed and waited for."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeAlias, Unpack

from memgen_client.answers import count, fitting, one, page, rows
from memgen_client.calls import Call, Download, Follow, ModeT, Noun, Pages, Wait, keyed, many, once
from memgen_client.following import Following, Update
from memgen_client.models.analyses import Analysis
from memgen_client.models.jobs import Job, JobEvent
from memgen_client.models.rows import Page, Rows
from memgen_client.options import AnalyzeOptions, TrainOptions, TriggerOptions
from memgen_client.paths import path

JobUpdate: TypeAlias = Job | JobEvent
"""Something new about a job that is followed: an event, or the job as it is now."""

_FILES_SECONDS = 600.0


class Jobs(Noun[ModeT]):
    @once
    def train(
        self, adapter: str, task: str, *, idempotency_key: str | None = None, **options: Unpack[TrainOptions]
    ) -> Call[Job]:
        """Queue a training: a version more, that goes on from the champion and is judged by its gate."""
        return create({"kind": "train_weaver", "adapter": adapter, "task": task, **options}, idempotency_key)

    @once
    def train_trigger(
        self, adapter: str, parent: int, *, idempotency_key: str | None = None, **options: Unpack[TriggerOptions]
    ) -> Call[Job]:
        """Queue the training of a version's trigger."""
        return create({"kind": "train_trigger", "adapter": adapter, "parent": parent, **options}, idempotency_key)

    @once
    def evaluate(self, adapter: str, version: int, *, idempotency_key: str | None = None) -> Call[Job]:
        """Queue the evaluation of a version on the suites of all tasks that it learned."""
        return create({"kind": "evaluate", "adapter": adapter, "version": version}, idempotency_key)

    @once
    def analyze(
        self, adapter: str, version: int, *, idempotency_key: str | None = None, **options: Unpack[AnalyzeOptions]
    ) -> Call[Job]:
        """Queue an analysis of what a version's memory has learned; `analysis` gives what it has found."""
        return create({"kind": "analyze", "adapter": adapter, "version": version, **options}, idempotency_key)

    @once
    def analysis(self, job_id: str) -> Call[Analysis]:
        """What a job that was queued by `analyze` has found."""
        return Call("GET", path("jobs", job_id, "analysis"), one(Analysis))

    @once
    def analysis_files(self, job_id: str, target: str | Path) -> Call[int]:
        """Write all files of an analysis, latents among them, as a tar to `target`, and return its size in bytes."""
        where = path("jobs", job_id, "analysis", "files")
        return Download("GET", where, count("bytes"), target=Path(target), seconds=_FILES_SECONDS)

    @once
    def list(self, *, limit: int = 50, cursor: str | None = None) -> Call[Page[Job]]:
        """A page, newest first."""
        return Call("GET", path("jobs"), page(Job)).at(cursor, limit)

    @many
    def all(self) -> Pages[Job]:
        """Every job, newest first."""
        return Pages(Call("GET", path("jobs"), page(Job)))

    @once
    def get(self, job_id: str) -> Call[Job]:
        return Call("GET", path("jobs", job_id), one(Job))

    @once
    def cancel(self, job_id: str) -> Call[Job]:
        """A queued job ends at once, a running one within seconds, keeping its checkpoint."""
        return Call("POST", path("jobs", job_id, "cancel"), one(Job))

    @once
    def events(self, job_id: str, *, after: int = 0, limit: int = 200) -> Call[Rows[JobEvent]]:
        """Oldest first, from the first one whose `seq` is greater than `after`."""
        params = {"after": after, "limit": limit}
        return Call("GET", path("jobs", job_id, "events"), rows(JobEvent), params=params)

    @many
    def follow(self, job_id: str, *, after: int = 0, patience_seconds: float = 60.0) -> Follow[JobUpdate]:
        """A job's events after number `after`, and the job whenever its state or progress changed, until it has ended.

        A broken connection is opened again where it broke off.

        Raises:
            ApiUnreachable: the service was gone for `patience_seconds`.
        """
        begin = partial(_following, job_id, after, patience_seconds, None)
        return Follow(path("jobs", job_id, "stream"), begin, _read_update)

    @once
    def wait(
        self,
        job_id: str,
        *,
        timeout: float | None = None,
        check: bool = True,
        patience_seconds: float = 60.0,
        on_update: Callable[[JobUpdate], None] | None = None,
    ) -> Wait[Job]:
        """The job, once it has ended.

        Args:
            timeout: seconds; None waits as long as it takes. The job goes on in any case.
            check: whether a job that failed or was cancelled raises.
            on_update: called with what `follow` gives.

        Raises:
            JobEnded: it failed or was cancelled.
            WaitTimedOut: it has not ended in time.
            ApiUnreachable: the service was gone for `patience_seconds`.
        """
        begin = partial(_following, job_id, 0, patience_seconds, timeout)
        tell = None if on_update is None else partial(_tell, on_update)
        return Wait(job_id, begin, path("jobs", job_id, "stream"), partial(fitting, Job), tell, check)


def create(body: Mapping[str, object], idempotency_key: str | None) -> Call[Job]:
    return Call("POST", path("jobs"), one(Job), body=body, headers=keyed(idempotency_key))


def _following(job_id: str, after: int, patience_seconds: float, timeout: float | None, now: float) -> Following:
    return Following(job_id, now=now, after=after, patience_seconds=patience_seconds, timeout=timeout)


def _tell(on_update: Callable[[JobUpdate], None], update: Update) -> None:
    on_update(_read_update(update))


def _read_update(update: Update) -> JobUpdate:
    return fitting(JobEvent, update.data) if update.kind == "event" else fitting(Job, update.data)
