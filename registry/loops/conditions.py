"""What stops a loop: for each state, when it holds, whether trainings are held, and what to do about it.

    paused                  somebody paused it, or its schedule, or deleted that                            held
    disk                    a disk of the service is almost full                                            held
    gate_rejected           so many versions in a row were rejected, or stopped as worse by their canary    held
    training_failed         its newest training failed; held after so many in a row
    canary_stopped          the newest version that was tried was stopped as worse
    canary_without_traffic  a canary runs and gets no answers, or no rewards
    no_traffic              nobody asks the adapter, and nothing of the task arrives
    no_rewards              runs are recorded, and nobody rewards them
    nothing_new             its times come, and never is enough new

The first that holds is the loop's state. Where trainings are held, a person resumes (`registry.loops.loops`), which
counts anew; the others end by themselves as soon as they do not hold any more.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from registry.loops.activity import last_reward, last_traffic, unrewarded_runs
from registry.loops.attempts import JudgedVersion, attempts, failed_in_a_row, failed_trainings_in_a_row
from registry.loops.disks import Disk
from registry.models import Exposure, Feedback, Loop, Route, ScheduleRun
from registry.serving.routes import live_route

FEW_RUNS = 10
"""Runs without a reward that say nothing yet."""
QUIET_SPANS_WITHOUT_TRAINING = 7
"""Times `quiet_hours` without a training, though its times came, until that is a state of its own."""
FEW_SKIPS = 3


@dataclass(frozen=True)
class Finding:
    state: str
    reason: str = ""
    advice: str = ""
    held: bool = False


RUNNING = Finding("running")


@dataclass(frozen=True)
class Surroundings:
    """What a loop is looked at with."""

    now: datetime
    full_disks: Sequence[Disk] = ()


def find_state(session: Session, loop: Loop, around: Surroundings) -> Finding:
    """The first condition that holds; `RUNNING` if none does."""
    return next(_holding(session, loop, around), RUNNING)


def find_hold(session: Session, loop: Loop, around: Surroundings) -> Finding | None:
    """The condition because of which no training may start; None if one may."""
    return next((found for found in _blocking(session, loop, around) if found.held), None)


def _holding(session: Session, loop: Loop, around: Surroundings) -> Iterator[Finding]:
    yield from _blocking(session, loop, around)
    route = live_route(session, loop.adapter)
    if route is not None and route.kind == "canary":
        yield from _canary_without_traffic(session, loop, route, around.now)
    yield from _silence(session, loop, around.now)


def _blocking(session: Session, loop: Loop, around: Surroundings) -> Iterator[Finding]:
    """The conditions that hold trainings, or warn before they do."""
    yield from _paused(loop)
    for disk in around.full_disks:
        yield Finding(
            "disk",
            f"{disk.place} ({disk.path}) has {disk.free_bytes / 1e9:.1f} GB free of {disk.total_bytes / 1e9:.0f} GB",
            "Free space: `memgen gc --apply` removes what no row names, `memgen versions retention` the bytes of old "
            "versions. It goes on by itself then; MEMGEN_MIN_FREE_BYTES is the limit",
            held=True,
        )
    failures = failed_in_a_row(found := attempts(session, loop, since=loop.counted_from))
    if len(failures) >= loop.most_failures:
        yield _rejected(loop, failures)
    failed = failed_trainings_in_a_row(session, loop, since=loop.counted_from)
    if len(failed) >= loop.most_failures:
        yield _training_failed(loop, failed[0].error, len(failed), held=True, job=str(failed[0].id))
    decided = next((attempt for attempt in found if attempt.outcome != "waiting"), None)
    if decided is not None and decided.outcome == "stopped":
        yield _stopped(loop, decided, len(failures))
    if failed:
        yield _training_failed(loop, failed[0].error, len(failed), held=False, job=str(failed[0].id))


def _paused(loop: Loop) -> Iterator[Finding]:
    name, schedule = loop.adapter.name, loop.schedule
    if loop.paused_at is not None:
        yield Finding("paused", "paused by hand", f"`memgen loop resume {name}` lets it go on", held=True)
    elif schedule.deleted_at is not None:
        advice = f"`memgen loop create {name} --task {loop.task.name}` makes it anew"
        yield Finding("paused", f"its schedule {schedule.name} was deleted", advice, held=True)
    elif schedule.paused_at is not None:
        advice = f"`memgen loop resume {name}` lets both go on"
        yield Finding("paused", f"its schedule {schedule.name} is paused", advice, held=True)


def _rejected(loop: Loop, failures: Sequence[JudgedVersion]) -> Finding:
    newest = failures[0]
    name = f"{loop.adapter.name}@{newest.version.number}"
    return Finding(
        "gate_rejected",
        f"{len(failures)} versions in a row were rejected or stopped as worse; the last is {name}: "
        + newest.reason.partition("; ")[0],
        f"Look at `memgen gate show {loop.adapter.name} {newest.version.number}` and at the rewards of these days "
        f"(`memgen trace`, `memgen delete-data` takes wrong ones out), then `memgen loop resume {loop.adapter.name}`",
        held=True,
    )


def _training_failed(loop: Loop, error: str | None, count: int, *, held: bool, job: str) -> Finding:
    advice = f"`memgen jobs show {job}` has its events. "
    if held:
        advice += f"Mend the cause, then `memgen loop resume {loop.adapter.name}`"
    else:
        advice += f"It is tried again; after {loop.most_failures} in a row the loop holds"
    line = (error or "no reason was recorded").partition("\n")[0]
    times = "its last training failed" if count == 1 else f"its last {count} trainings failed"
    return Finding("training_failed", f"{times}: {line}", advice, held)


def _stopped(loop: Loop, attempt: JudgedVersion, failures: int) -> Finding:
    name = loop.adapter.name
    return Finding(
        "canary_stopped",
        f"{name}@{attempt.version.number} passed its gate, but users' rewards were worse: {attempt.reason}",
        f"Look at `memgen route results {name}`, and at the rewards that it learned from. The champion answers all; "
        f"the loop goes on, and holds after {loop.most_failures} failures in a row ({failures} so far)",
    )


def _canary_without_traffic(session: Session, loop: Loop, route: Route, now: datetime) -> Iterator[Finding]:
    arm = route.arms[-1]
    name = f"{loop.adapter.name}@{arm.version.number}"
    mine = Exposure.route_id == route.id, Exposure.version_id == arm.version_id
    answers, answered = session.execute(select(func.count(), func.max(Exposure.at)).where(*mine)).one()
    rated = Feedback.route_id == route.id, Feedback.version_id == arm.version_id, Feedback.counted
    rewards, rewarded = session.execute(select(func.count(), func.max(Feedback.at)).where(*rated)).one()
    begun = max(route.created_at, loop.counted_from)
    limit = now - timedelta(hours=loop.quiet_hours)
    quiet, unrewarded = max(begun, answered or begun), max(begun, rewarded or begun)
    what = f"route {route.number} gives {name} {100 * arm.weight:g}% of the sessions"
    ending = f"or end it with `memgen route end {loop.adapter.name}`"
    if quiet < limit:
        yield Finding(
            "canary_without_traffic",
            f"{what}, and it has answered nothing for {_hours(now - quiet)}",
            f"Send requests for model {loop.adapter.name!r} (names with @ go past routes), {ending}",
        )
    elif unrewarded < limit:
        yield Finding(
            "canary_without_traffic",
            f"{what}; of its {answers} answers {rewards} are rewarded, none for {_hours(now - unrewarded)}",
            f"Report rewards with POST /v1/feedback: nothing decides without them; {ending}",
        )


def _silence(session: Session, loop: Loop, now: datetime) -> Iterator[Finding]:
    name, task = loop.adapter.name, loop.task.name
    limit = now - timedelta(hours=loop.quiet_hours)
    asked = max(loop.counted_from, last_traffic(session, loop) or loop.counted_from)
    if asked < limit:
        yield Finding(
            "no_traffic",
            f"nobody has asked {name} and nothing of {task} has arrived for {_hours(now - asked)}",
            f"Point the agent at this service with model {name!r} and the header X-Memgen-Task: {task}",
        )
    rewarded = max(loop.counted_from, last_reward(session, loop) or loop.counted_from)
    waiting = unrewarded_runs(session, loop, after=rewarded)
    if rewarded < limit and waiting >= FEW_RUNS:
        yield Finding(
            "no_rewards",
            f"{waiting} runs of {task} were recorded since the last reward, {_hours(now - rewarded)} ago",
            "Report rewards with POST /v1/feedback (completion, run or session), or let the task name a judge. What "
            "nobody rewarded is not learned",
        )
    yield from _nothing_new(session, loop, now)


def _nothing_new(session: Session, loop: Loop, now: datetime) -> Iterator[Finding]:
    runs = ScheduleRun.schedule_id == loop.schedule_id, ScheduleRun.at > loop.counted_from
    started = session.scalar(select(func.max(ScheduleRun.at)).where(*runs, ScheduleRun.outcome == "started"))
    begun = max(loop.counted_from, started or loop.counted_from)
    if begun >= now - QUIET_SPANS_WITHOUT_TRAINING * timedelta(hours=loop.quiet_hours):
        return
    skipped = select(ScheduleRun).where(*runs, ScheduleRun.at > begun, ScheduleRun.outcome == "skipped")
    newest = session.scalars(skipped.order_by(ScheduleRun.seq.desc()).limit(FEW_SKIPS)).all()
    if len(newest) == FEW_SKIPS:
        yield Finding(
            "nothing_new",
            f"no training for {_hours(now - begun)}; at its last time: {newest[0].reason}",
            f"Lower --after or --min-reward with `memgen loop create {loop.adapter.name} --task {loop.task.name}`: "
            "failures, held-out and repeated runs are not counted as new",
        )


def _hours(span: timedelta) -> str:
    hours = span.total_seconds() / 3600
    return f"{hours:.0f} hours" if hours < 72 else f"{hours / 24:.0f} days"
