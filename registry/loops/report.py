"""What a loop did in the last day, in the last week and in all, what waits, and why what waits does not move."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, select, true
from sqlalchemy.orm import InstrumentedAttribute, Session

from registry.adapters import AdapterSettings
from registry.loops.attempts import JudgedVersion, attempts, failed_in_a_row
from registry.loops.findings import Surroundings
from registry.loops.judging import say_judge
from registry.loops.recording import say_recording
from registry.loops.setup import say_gate
from registry.loops.states import why_held
from registry.models import (
    AliasMove,
    Dataset,
    Gate,
    Loop,
    Route,
    RouteChange,
    Run,
    ScheduleRun,
    Trajectory,
    TrajectoryReward,
    Version,
)
from registry.names import CHAMPION
from registry.rewards.rewards import JUDGE_PREFIX
from registry.schedules.schedules import training_request
from registry.schedules.ticks import why_not_now
from registry.schedules.waiting import NotCounted, not_counted, waiting_for
from registry.serving.results import results_of
from registry.serving.routes import live_route
from registry.versions.champion import champion
from registry.wording import counted

SHOWN_ATTEMPTS = 5
_DAY, _WEEK = timedelta(days=1), timedelta(days=7)


@dataclass(frozen=True)
class StageCount:
    """How often a stage of the loop was passed."""

    stage: str
    day: int
    week: int
    total: int
    last: datetime | None


@dataclass(frozen=True)
class CanaryProgress:
    """How far the canary that runs is from a result."""

    route: int
    version: int
    share: float
    since: datetime
    answers: int
    rewarded: int
    """Rewarded sessions of the version."""
    sessions_needed: int
    """Further ones until a result can be expected; 0 if none is to come."""
    days_needed: float | None
    """At the pace so far; None while there is none."""


@dataclass(frozen=True)
class WaitsFor:
    """What the next training waits for."""

    new: int
    """Trajectories that count as new."""
    enough: int
    not_counted: NotCounted
    """What came since the adapter last learned, and does not count."""
    min_reward: float
    """Lower rewards do not count."""
    next_run: datetime | None
    """The next due time; None for a schedule without a clock."""
    why_not: str | None
    """Why no training starts now; None if one would, at the next due time."""
    last_skip: str | None
    """Why none started at the last due time; None if one did."""


@dataclass(frozen=True)
class LoopReport:
    recording: str
    """What of the adapter's answers is recorded, for people."""
    refused: str | None
    """Why the newest run of the last week that teaches nothing is no trajectory, for people; None if there is none."""
    judge: str | None
    """Who judges it, for people; None if nobody does."""
    gate: str
    """What a version must pass to become the champion, for people."""
    stages: list[StageCount]
    waiting: WaitsFor
    canary: CanaryProgress | None
    champion: int | None
    champion_since: datetime | None
    attempts: list[JudgedVersion]
    """The newest versions that were judged, and what became of them; the newest first."""
    failures: int
    """Versions in a row that were rejected or stopped, and count towards `most_failures`."""


def report_of(session: Session, loop: Loop, around: Surroundings) -> LoopReport:
    found = attempts(session, loop, since=loop.adapter.created_at)
    best = champion(session, loop.adapter)
    moves = select(AliasMove.at).where(AliasMove.adapter_id == loop.adapter_id, AliasMove.alias == CHAMPION)
    moved = session.scalar(moves.order_by(AliasMove.seq.desc()).limit(1))
    return LoopReport(
        recording=say_recording(session, loop),
        refused=_refused(session, loop, around.now),
        judge=say_judge(session, loop),
        gate=say_gate(AdapterSettings.of(loop.adapter)),
        stages=_stages(session, loop, around.now),
        waiting=_waiting(session, loop, around),
        canary=_canary(session, loop, around.now),
        champion=best.number if best else None,
        champion_since=moved if best else None,
        attempts=found[:SHOWN_ATTEMPTS],
        failures=len(failed_in_a_row(each for each in found if each.at > loop.counted_from)),
    )


def _stages(session: Session, loop: Loop, now: datetime) -> list[StageCount]:
    trajectories = select(Trajectory).where(Trajectory.task_id == loop.task_id)
    runs = select(Run).where(Run.task_id == loop.task_id, Run.state == "closed")
    rewards = select(TrajectoryReward).join(Trajectory, Trajectory.id == TrajectoryReward.trajectory_id)
    by_judge = TrajectoryReward.source.startswith(JUDGE_PREFIX)
    versions = select(Version).join(Dataset, Dataset.id == Version.dataset_id)
    versions = versions.where(Version.adapter_id == loop.adapter_id, Dataset.task_id == loop.task_id)
    gates = select(Gate).where(Gate.version_id.in_(versions.with_only_columns(Version.id)))
    canaries = select(RouteChange).join(Route, Route.id == RouteChange.route_id)
    canaries = canaries.where(Route.adapter_id == loop.adapter_id, Route.kind == "canary")
    moves = select(AliasMove).where(AliasMove.adapter_id == loop.adapter_id, AliasMove.alias == CHAMPION)

    def count(rows: Select[Any], at: InstrumentedAttribute[Any], **stages: ColumnElement[bool]) -> list[StageCount]:
        """Several stages in one reading of the rows that they share."""
        counted = [
            each
            for which in stages.values()
            for each in (
                func.count().filter(and_(which, at > now - _DAY)),
                func.count().filter(and_(which, at > now - _WEEK)),
                func.count().filter(which),
                func.max(at).filter(which),
            )
        ]
        found = iter(session.execute(rows.with_only_columns(*counted)).one())
        return [StageCount(stage, next(found), next(found), next(found), next(found)) for stage in stages]

    return [
        *count(trajectories, Trajectory.created_at, arrived=true()),
        *count(runs, Run.closed_at, recorded=Run.trajectory_id.is_not(None), refused=Run.refusal_code.is_not(None)),
        *count(
            rewards.where(Trajectory.task_id == loop.task_id), TrajectoryReward.at, rewarded=~by_judge, judged=by_judge
        ),
        *count(versions, Version.created_at, trained=true()),
        *count(gates, Gate.created_at, passed=Gate.passed.is_(True), rejected=Gate.passed.is_(False)),
        *count(canaries, RouteChange.at, tried=RouteChange.kind == "started", stopped=RouteChange.kind == "stopped"),
        *count(moves, AliasMove.at, promoted=AliasMove.kind == "promotion", rolled_back=AliasMove.kind == "rollback"),
    ]


def _refused(session: Session, loop: Loop, now: datetime) -> str | None:
    query = select(Run.refusal_reason).where(
        Run.task_id == loop.task_id, Run.refusal_code.is_not(None), Run.closed_at > now - _WEEK
    )
    return session.scalar(query.order_by(Run.last_at.desc()).limit(1))


def _waiting(session: Session, loop: Loop, around: Surroundings) -> WaitsFor:
    schedule = loop.schedule
    waiting, enough = waiting_for(session, schedule), schedule.new_trajectories or 1
    newest = session.scalars(
        select(ScheduleRun).where(ScheduleRun.schedule_id == schedule.id).order_by(ScheduleRun.seq.desc()).limit(1)
    ).one_or_none()
    why_not = why_held(session, schedule, around) or why_not_now(session, schedule, waiting)
    if why_not is None and waiting.count < enough:
        why_not = f"{waiting.count} of {counted(enough, 'new trajectory')} wait"
    return WaitsFor(
        new=waiting.count,
        enough=enough,
        not_counted=not_counted(session, schedule),
        min_reward=training_request(schedule).min_reward,
        next_run=schedule.next_run_at if schedule.paused_at is None and schedule.deleted_at is None else None,
        why_not=why_not,
        last_skip=newest.reason if newest is not None and newest.outcome == "skipped" else None,
    )


def _canary(session: Session, loop: Loop, now: datetime) -> CanaryProgress | None:
    route = live_route(session, loop.adapter)
    if route is None or route.kind != "canary":
        return None
    arm, result = route.arms[-1], results_of(session, route).arms[-1]
    days = max((now - route.created_at) / _DAY, 1e-6)
    pace = result.sessions / days
    return CanaryProgress(
        route=route.number,
        version=arm.version.number,
        share=arm.weight,
        since=route.created_at,
        answers=result.exposures,
        rewarded=result.sessions,
        sessions_needed=result.sessions_needed,
        days_needed=result.sessions_needed / pace if pace else None,
    )
