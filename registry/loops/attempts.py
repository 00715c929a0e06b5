"""What became of the versions that an adapter's loop made: rejected, being tried, stopped as worse, promoted.

And of its trainings. Read from the rows of gates, routes, aliases and jobs; nothing is kept twice.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import jobs
from registry.datasets.manifest import trains_weaver
from registry.gates.verdict import gates_of, verdict
from registry.models import AliasMove, Dataset, Gate, Job, Loop, Route, RouteArm, ScheduleRun, Version
from registry.names import CHAMPION

Outcome = Literal["rejected", "stopped", "promoted", "trying", "waiting"]
"""`waiting`: it passed, and neither a canary nor a person has decided on it."""
FAILED = ("rejected", "stopped")
_LOOKED_AT = 50
"""Newest attempts that are looked at; nobody allows as many failures in a row."""


@dataclass(frozen=True)
class JudgedVersion:
    version: Version
    outcome: Outcome
    at: datetime
    reason: str


def attempts(session: Session, loop: Loop, *, since: datetime) -> list[JudgedVersion]:
    """Versions that were judged since a time and might have been promoted, the newest first.

    Trainings by hand count as the loop's own, unless they were made so that no alias moves.
    """
    query = (
        select(Version)
        .join(Gate, Gate.version_id == Version.id)
        .join(Dataset, Dataset.id == Version.dataset_id)
        .join(Job, Job.id == Version.job_id)
        .where(Version.adapter_id == loop.adapter_id, Dataset.task_id == loop.task_id, trains_weaver())
        .where(Gate.created_at > since, jobs.may_promote())
        .order_by(Version.number.desc())
        .limit(_LOOKED_AT)
    )
    versions = session.scalars(query).all()
    gates, routes = gates_of(session, versions), _canaries(session, versions)
    promoted = _promoted(session, versions)
    return [
        _attempt(version, gates[version.id], routes.get(version.id), promoted.get(version.id)) for version in versions
    ]


def failed_in_a_row(found: Iterable[JudgedVersion]) -> list[JudgedVersion]:
    """The failures before the newest success; attempts that are not decided neither count nor end them."""
    failures = []
    for attempt in found:
        if attempt.outcome == "promoted":
            break
        if attempt.outcome in FAILED:
            failures.append(attempt)
    return failures


def failed_trainings_in_a_row(session: Session, loop: Loop, *, since: datetime) -> list[Job]:
    """Jobs of the loop's schedule that failed, since the newest that succeeded; the newest first."""
    query = (
        select(Job)
        .join(ScheduleRun, ScheduleRun.job_id == Job.id)
        .where(ScheduleRun.schedule_id == loop.schedule_id, ScheduleRun.at > since)
        .where(Job.state.in_(("succeeded", "failed")))
        .order_by(ScheduleRun.seq.desc())
        .limit(_LOOKED_AT)
    )
    failures = []
    for job in session.scalars(query):
        if job.state == "succeeded":
            break
        failures.append(job)
    return failures


def _attempt(version: Version, gate: Gate, route: Route | None, promotion: AliasMove | None) -> JudgedVersion:
    found = verdict(gate)
    if found == "rejected":
        decided = gate.decision
        if decided is not None:
            return JudgedVersion(version, "rejected", decided.at, f"{decided.actor} rejected it: {decided.reason}")
        return JudgedVersion(version, "rejected", gate.created_at, _why_rejected(gate))
    if promotion is not None:
        return JudgedVersion(version, "promoted", promotion.at, promotion.reason)
    if route is not None and route.state == "live":
        return JudgedVersion(
            version, "trying", route.created_at, f"route {route.number} gives it a share of the sessions"
        )
    if route is not None and route.state == "stopped" and route.ended_at is not None:
        return JudgedVersion(version, "stopped", route.ended_at, f"route {route.number} stopped it as worse")
    return JudgedVersion(version, "waiting", gate.created_at, "it passed its gate, and nothing was decided on it")


def _why_rejected(gate: Gate) -> str:
    """The first comparison that failed, else what the training complained of."""
    failed = [comparison["reason"] for comparison in gate.comparisons if not comparison["passed"]]
    flags = [reason for reason in gate.reasons if reason.startswith("training: ")]
    return next(iter([*failed, *flags, *gate.reasons]), "no reason was recorded")


def _canaries(session: Session, versions: Iterable[Version]) -> dict[object, Route]:
    """The newest canary of each version."""
    query = (
        select(RouteArm.version_id, Route)
        .join(Route, Route.id == RouteArm.route_id)
        .where(RouteArm.version_id.in_([version.id for version in versions]), RouteArm.place > 0)
        .where(Route.kind == "canary")
        .order_by(Route.number)
    )
    return {row.version_id: row.Route for row in session.execute(query)}


def _promoted(session: Session, versions: Iterable[Version]) -> dict[object, AliasMove]:
    query = select(AliasMove).where(
        AliasMove.to_version_id.in_([version.id for version in versions]), AliasMove.alias == CHAMPION
    )
    return {move.to_version_id: move for move in session.scalars(query.order_by(AliasMove.seq))}
