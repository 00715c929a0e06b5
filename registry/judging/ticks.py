"""Jobs of judges: made when they are asked for, or by the tick for tasks that name a judge.

One job at most judges a task by a judge at a time, so that nothing is asked twice. What a judge may spend a day by
itself is its own setting; a job that failed, was cancelled or found only answers that could not be read is followed by
another one only when something new has come, and not at once.
"""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from registry import jobs
from registry.clock import FARTHEST_AHEAD
from registry.errors import Invalid, JudgeBusy, NotFound, VersionNotServable
from registry.job_requests import JobKind, JudgeTrajectories
from registry.judging.calls import spent_since
from registry.judging.judges import find_model, get_judge
from registry.judging.waiting import Wanted, is_waiting, newest
from registry.models import Adapter, Job, Judge, Task, TaskJudge

MAX_CALLS = 10_000_000
DONE, SPENT, UNREADABLE = "done", "budget", "unreadable"
"""Why a job ended: nothing waits any more, its budget is spent, or its answers could not be read."""
_PAUSE_SECONDS = 900.0
"""Wait behind a job that did not end well."""
_DAY = timedelta(hours=24)


@dataclass(frozen=True)
class JudgingOrder:
    """What somebody asks of a judge."""

    max_calls: int = 1_000
    max_tokens: int | None = None
    unrewarded: bool = False
    held_out: bool = False
    again: bool = False

    def check(self) -> None:
        """Raises Invalid."""
        if not 1 <= self.max_calls <= MAX_CALLS:
            raise Invalid(f"max_calls is {self.max_calls}; expected 1 to {MAX_CALLS}")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise Invalid(f"max_tokens is {self.max_tokens}; expected at least 1, or null for no limit")


def judging_request(
    session: Session,
    project_id: uuid.UUID,
    judge_name: str,
    task: Task,
    order: JudgingOrder,
    *,
    by_itself: bool = False,
) -> tuple[Adapter | None, JudgeTrajectories]:
    """The adapter and the request of a job that judges what waits now. Its model is that of this moment.

    The judge is locked until the transaction ends, in which the job has to be made.

    Raises:
        JudgeNotFound: no such judge.
        JudgeBusy: one is queued or runs.
        Invalid: the budget.
        AdapterNotFound, AliasNotFound, VersionNotFound, VersionNotServable: the judge's model is gone.
    """
    order.check()
    judge = get_judge(session, project_id, judge_name, lock=True)
    live = live_judging(session, judge, task)
    if live is not None:
        raise JudgeBusy(
            f"job {live.id} is {live.state}: judge {judge.name!r} has task {task.name!r} in hand; wait for it, or "
            "cancel it"
        )
    model = find_model(session, project_id, judge.model)
    return model.adapter, JudgeTrajectories(
        judge=judge.name,
        task=task.name,
        model=model.label,
        version=model.version.number if model.version else None,
        up_to=newest(session, task.id),
        max_calls=order.max_calls,
        max_tokens=order.max_tokens,
        unrewarded=order.unrewarded,
        held_out=order.held_out,
        again=order.again,
        by_itself=by_itself,
    )


def live_judging(session: Session, judge: Judge, task: Task) -> Job | None:
    """The job that judges the task by this judge, if one is queued or runs."""
    found = session.scalars(
        select(Job).where(Job.project_id == judge.project_id, Job.kind == JobKind.JUDGE.value, Job.state.in_(jobs.LIVE))
    )
    for job in found:
        request = jobs.request_as(job, JudgeTrajectories)
        if (request.judge, request.task) == (judge.name, task.name):
            return job
    return None


def tasks_to_judge(session: Session) -> list[uuid.UUID]:
    """Ids of tasks that name a judge which may spend something by itself."""
    query = select(TaskJudge.task_id).join(TaskJudge.judge).where(Judge.daily_calls > 0)
    return list(session.scalars(query.order_by(TaskJudge.named_at, TaskJudge.task_id)))


def tick_judge(session: Session, task_id: uuid.UUID) -> uuid.UUID | None:
    """Start a task's judge if something waits for it. Returns the job to enqueue after the commit, or None."""
    named = session.scalars(
        select(TaskJudge).where(TaskJudge.task_id == task_id).with_for_update(skip_locked=True)
    ).one_or_none()
    if named is None:
        return None
    judge, task = named.judge, named.task
    now = session.scalars(select(func.now())).one()
    after = _after(session, named, now)
    if after is None:
        return None
    # Where its scores are rewards, held-out runs need them too: what nobody rewarded is no reference of a suite.
    fills = task.judge_rewards == "fill"
    wanted = Wanted(judge, task.id, newest(session, task.id), after, unrewarded=fills, held_out=fills)
    if not is_waiting(session, wanted):
        return None
    left = judge.daily_calls - spent_since(session, judge.id, now - _DAY).calls
    if left <= 0:
        return None
    order = JudgingOrder(max_calls=left, unrewarded=fills, held_out=fills)
    try:
        with session.begin_nested():
            adapter, request = judging_request(session, task.project_id, judge.name, task, order, by_itself=True)
            job = jobs.create_job(session, task.project_id, request, adapter)
    except (JudgeBusy, NotFound, VersionNotServable):
        return None
    jobs.add_event(session, job.id, "info", f"started because runs of {task.name} wait for judge {judge.name}")
    named.last_job_id = job.id
    return job.id


def _after(session: Session, named: TaskJudge, now: datetime) -> int | None:
    """Arrival number of the newest trajectory that the last job has dealt with; None while no other may start."""
    if named.last_job_id is None:
        return 0
    last = session.get_one(Job, named.last_job_id)
    if last.state in jobs.LIVE:
        return None
    stopped = (last.result or {}).get("stopped")
    if last.state == "succeeded" and stopped == SPENT:
        return 0
    if not (last.state == "succeeded" and stopped == DONE):
        ended = last.finished_at or now
        # What ended ahead of now did so by a clock that has been set back.
        if ended <= now + FARTHEST_AHEAD and now < ended + timedelta(seconds=_PAUSE_SECONDS):
            return None
    return jobs.request_as(last, JudgeTrajectories).up_to
