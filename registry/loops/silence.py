"""The states of silence: a worker, traffic, rewards, a canary's result or enough new runs stay away."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from registry.loops.activity import last_event, last_reward, last_traffic, unrewarded_runs, works_anywhere
from registry.loops.attempts import live_training
from registry.loops.findings import Finding, say_span
from registry.models import Exposure, Feedback, Loop, Route, ScheduleRun
from registry.schedules.schedules import training_request
from registry.schedules.waiting import not_counted, waiting_for
from registry.serving.results import results_of
from registry.serving.routes import live_route
from registry.wording import counted

FEW_RUNS = 10
"""Runs without a reward that say nothing yet."""
QUIET_SPANS = 7
"""Times `quiet_hours` without a training, or without a canary's result, until that is a state of its own."""
FEW_SKIPS = 3
WORKER_MINUTES = 15.0
"""How long a job may wait, while no job of anybody runs, until the workers are taken for dead."""


def find_silence(session: Session, loop: Loop, now: datetime) -> Iterator[Finding]:
    yield from _no_worker(session, loop, now)
    route = live_route(session, loop.adapter)
    if route is not None and route.kind == "canary":
        yield from _canary(session, loop, route, now)
    yield from _no_traffic(session, loop, now)
    yield from _no_rewards(session, loop, now)
    yield from _nothing_new(session, loop, now)


def _no_worker(session: Session, loop: Loop, now: datetime) -> Iterator[Finding]:
    job = live_training(session, loop)
    if job is None or job.state != "queued" or works_anywhere(session):
        return
    since = last_event(session, job)
    if now - since > timedelta(minutes=WORKER_MINUTES):
        yield Finding(
            "no_worker",
            f"job {job.id} has waited for a worker for {say_span(now - since)}, and none works on anything",
            "`memgen status` says whether the worker of queue gpu runs on this machine, and where its log is; it goes "
            "on by itself then",
        )


def _canary(session: Session, loop: Loop, route: Route, now: datetime) -> Iterator[Finding]:
    arm, adapter = route.arms[-1], loop.adapter.name
    name = f"{adapter}@{arm.version.number}"
    mine = Exposure.route_id == route.id, Exposure.version_id == arm.version_id
    answers, answered = session.execute(select(func.count(), func.max(Exposure.at)).where(*mine)).one()
    rated = Feedback.route_id == route.id, Feedback.version_id == arm.version_id, Feedback.counted
    rewards, rewarded = session.execute(select(func.count(), func.max(Feedback.at)).where(*rated)).one()
    begun, quiet_hours = max(route.created_at, loop.counted_from), timedelta(hours=loop.quiet_hours)
    quiet, unrewarded = max(begun, answered or begun), max(begun, rewarded or begun)
    what = f"route {route.number} gives {name} {100 * arm.weight:g}% of the sessions"
    ending = f"or end it with `memgen route end {adapter}`"
    if quiet < now - quiet_hours:
        yield Finding(
            "canary_without_traffic",
            f"{what}, and it has answered nothing for {say_span(now - quiet)}",
            f"Send requests for model {adapter!r} (names with @ go past routes), {ending}",
        )
    elif unrewarded < now - quiet_hours:
        yield Finding(
            "canary_without_traffic",
            f"{what}; {counted(answers, 'answer')} got {counted(rewards, 'reward')}, none for "
            f"{say_span(now - unrewarded)}",
            f"Report rewards with POST /v1/feedback: nothing decides without them; {ending}",
        )
    elif begun < now - QUIET_SPANS * quiet_hours:
        needed = results_of(session, route).arms[-1].sessions_needed
        more = f"; about {needed} more to a result" if needed else ""
        yield Finding(
            "canary_undecided",
            f"{what} for {say_span(now - begun)}, and nothing is decided by "
            f"{counted(rewards, 'rewarded session')}{more}",
            f"Look at `memgen route results {adapter}`; `memgen promote {adapter} {arm.version.number}` makes it the "
            f"champion, `memgen route end {adapter}` drops it. More is learned after that",
        )


def _no_traffic(session: Session, loop: Loop, now: datetime) -> Iterator[Finding]:
    name, task = loop.adapter.name, loop.task.name
    asked = max(loop.counted_from, last_traffic(session, loop) or loop.counted_from)
    if asked < now - timedelta(hours=loop.quiet_hours):
        yield Finding(
            "no_traffic",
            f"nobody has asked {name} and nothing of {task} has arrived for {say_span(now - asked)}",
            f"Point the agent at this service with model {name!r} and the header X-Memgen-Task: {task}",
        )


def _no_rewards(session: Session, loop: Loop, now: datetime) -> Iterator[Finding]:
    rewarded = max(loop.counted_from, last_reward(session, loop) or loop.counted_from)
    if rewarded >= now - timedelta(hours=loop.quiet_hours):
        return
    waiting = unrewarded_runs(session, loop, after=rewarded)
    if waiting >= FEW_RUNS:
        yield Finding(
            "no_rewards",
            f"{waiting} runs of {loop.task.name} were recorded since the last reward, {say_span(now - rewarded)} ago",
            "Report rewards with POST /v1/feedback (completion, run or session), or name a judge with `memgen loop "
            f"create {loop.adapter.name} --task {loop.task.name} --judge NAME`. What nobody rewarded is not learned",
        )


def _nothing_new(session: Session, loop: Loop, now: datetime) -> Iterator[Finding]:
    schedule = loop.schedule
    runs = ScheduleRun.schedule_id == schedule.id, ScheduleRun.at > loop.counted_from
    started = session.scalar(select(func.max(ScheduleRun.at)).where(*runs, ScheduleRun.outcome == "started"))
    begun = max(loop.counted_from, started or loop.counted_from)
    if begun >= now - QUIET_SPANS * timedelta(hours=loop.quiet_hours):
        return
    if schedule.kind == "cron":
        skipped = select(ScheduleRun.seq).where(*runs, ScheduleRun.at > begun, ScheduleRun.outcome == "skipped")
        if len(session.scalars(skipped.limit(FEW_SKIPS)).all()) < FEW_SKIPS:
            return
    new, enough = waiting_for(session, schedule).count, schedule.new_trajectories or 1
    if new >= enough:  # a canary or a job is waited for
        return
    beside = not_counted(session, schedule).in_words(training_request(schedule).min_reward)
    yield Finding(
        "nothing_new",
        f"no training for {say_span(now - begun)}: {new} of {enough} new runs wait"
        + (f"; not counted: {beside}" if beside else ""),
        f"Lower --after or --min-reward with `memgen loop create {loop.adapter.name} --task {loop.task.name}`: "
        "failures, held-out and repeated runs are not counted as new",
    )
