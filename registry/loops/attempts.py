"""What became of the versions that an adapter's loop made: rejected, being tried, stopped as worse, promoted.

And of its trainings. Read from the rows of gates, routes, aliases and jobs; nothing is kept twice.
"""

import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from registry import jobs
from registry.datasets.manifest import trains_weaver
from registry.gates.verdict import gates_of, verdict
from registry.job_requests import JobKind
from registry.models import AliasMove, Dataset, Gate, Job, Loop, Route, RouteArm, RouteChange, Version
from registry.names import CHAMPION
from registry.serving.routes import live_route
from registry.versions.champion import champion
from registry.versions.state import why_not_servable

Outcome = Literal["unchecked", "rejected", "waiting", "trying", "undecided", "stopped", "promoted", "rolled_back"]
"""`unchecked`: no gate has judged it. `waiting`: it passed, and neither a canary nor a person has decided on it.
`undecided`: its canary was ended before its rewards said anything."""
FAILED = ("rejected", "stopped", "rolled_back")
DECIDED = (*FAILED, "promoted")
_LOOKED_AT = 50
"""Newest attempts that are looked at; nobody allows as many failures in a row."""


@dataclass(frozen=True)
class JudgedVersion:
    version: int
    """Its number."""
    outcome: Outcome
    at: datetime
    reason: str


@dataclass(frozen=True)
class _Canary:
    route: Route
    change: RouteChange
    """Its newest one."""


@dataclass(frozen=True)
class _Now:
    """What versions that wait wait for."""

    champion: Version | None
    route: Route | None
    """The live one."""


def attempts(session: Session, loop: Loop, *, since: datetime) -> list[JudgedVersion]:
    """Versions that might have been promoted and of which something was found or decided since a time, newest first.

    Trainings by hand count as the loop's own, unless they were made so that no alias moves.
    """
    query = (
        select(Version, Job)
        .join(Dataset, Dataset.id == Version.dataset_id)
        .join(Job, Job.id == Version.job_id)
        .where(Version.adapter_id == loop.adapter_id, Dataset.task_id == loop.task_id, trains_weaver())
        .where(jobs.may_promote())
        .order_by(Version.number.desc())
        .limit(_LOOKED_AT)
    )
    trained = {row.Version: row.Job for row in session.execute(query)}
    gates, canaries, moves = gates_of(session, trained), _canaries(session, trained), _moves(session, trained)
    now = _Now(champion(session, loop.adapter), live_route(session, loop.adapter))
    found = []
    for version, job in trained.items():
        gate, canary, move = gates.get(version.id), canaries.get(version.id), moves.get(version.id)
        if gate is None:
            found.append(JudgedVersion(version.number, "unchecked", version.created_at, _why_unchecked(version, job)))
        elif verdict(gate) == "rejected":
            found.append(_rejected(version, gate))
        elif move is not None:
            found.append(_moved(version, move))
        elif canary is not None:
            found.append(_tried(version, canary))
        else:
            why = why_not_servable(session, version) or _why_waiting(version, gate, now)
            found.append(JudgedVersion(version.number, "waiting", gate.created_at, why))
    return [attempt for attempt in found if attempt.at > since]


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
    """Trainings of the adapter on the task that failed since a time and the newest that succeeded; newest first."""
    query = (
        select(Job)
        .where(*_trainings(loop), Job.state.in_(("succeeded", "failed")), jobs.may_promote(), Job.finished_at > since)
        .order_by(Job.seq.desc())
        .limit(_LOOKED_AT)
    )
    failures = []
    for job in session.scalars(query):
        if job.state == "succeeded":
            break
        failures.append(job)
    return failures


def live_training(session: Session, loop: Loop) -> Job | None:
    """The training of the adapter on the task that has not ended, whoever started it; the oldest of several."""
    query = select(Job).where(*_trainings(loop), Job.state.in_(jobs.LIVE))
    return session.scalars(query.order_by(Job.seq).limit(1)).one_or_none()


def _trainings(loop: Loop) -> tuple[ColumnElement[bool], ...]:
    learns = Job.params["task"].as_string() == loop.task.name
    return Job.adapter_id == loop.adapter_id, Job.kind == JobKind.TRAIN_WEAVER, learns


def _rejected(version: Version, gate: Gate) -> JudgedVersion:
    """With the decision of a person, else the first comparison that failed, else what the training complained of."""
    if gate.decision is not None:
        why = f"{gate.decision.actor} rejected it: {gate.decision.reason}"
        return JudgedVersion(version.number, "rejected", gate.decision.at, why)
    failed = [comparison["reason"] for comparison in gate.comparisons if not comparison["passed"]]
    flags = [reason for reason in gate.reasons if reason.startswith("training: ")]
    why = next(iter([*failed, *flags, *gate.reasons]), "no reason was recorded")
    return JudgedVersion(version.number, "rejected", gate.created_at, why)


def _tried(version: Version, canary: _Canary) -> JudgedVersion:
    route, change = canary.route, canary.change
    if route.state == "live":
        text = f"route {route.number} gives it a share of the sessions"
        return JudgedVersion(version.number, "trying", route.created_at, text)
    if route.state == "stopped":
        return JudgedVersion(version.number, "stopped", change.at, f"route {route.number} stopped it as worse")
    why = f": {change.reason}" if change.reason else ""
    return JudgedVersion(version.number, "undecided", change.at, f"{change.actor} ended route {route.number}{why}")


def _moved(version: Version, move: AliasMove) -> JudgedVersion:
    why = move.reason or f"by {move.actor}"
    if move.to_version_id != version.id:
        return JudgedVersion(version.number, "rolled_back", move.at, why)
    return JudgedVersion(
        version.number, "promoted", move.at, f"rolled back to: {why}" if move.kind == "rollback" else why
    )


def _why_unchecked(version: Version, job: Job) -> str:
    if job.state in jobs.LIVE:
        return f"job {job.id}, which made it, is still at it"
    return f"job {job.id} {job.state} before its gate: `memgen gate run {version.adapter.name} {version.number}`"


def _why_waiting(version: Version, gate: Gate, now: _Now) -> str:
    """Why a version that passed its gate is neither tried nor promoted."""
    name, route = version.adapter.name, now.route
    if verdict(gate) == "waiting":
        return f"its gate asks a person: `memgen gate approve {name} {version.number}`"
    if gate.champion_id != (now.champion.id if now.champion else None):
        before = f"{name}@{gate.champion.number}" if gate.champion else "the bare base"
        after = f"{name}@{now.champion.number}" if now.champion else "none"
        return f"its gate compared it with {before}, and the champion is {after} now"
    if route is not None and route.kind == "canary":
        return f"its turn comes if route {route.number} stops {name}@{route.arms[-1].version.number} as worse"
    if route is not None:
        text = f"route {route.number} ({route.kind}) is live, and no canary starts beside it; when it has ended: "
        return text + f"`memgen route canary {name} {version.number}`"
    return f"no canary of it was started: `memgen route canary {name} {version.number}`"


def _canaries(session: Session, versions: Collection[Version]) -> dict[uuid.UUID, _Canary]:
    """The newest canary of each version."""
    query = (
        select(RouteArm.version_id, Route, RouteChange)
        .join(Route, Route.id == RouteArm.route_id)
        .join(RouteChange, RouteChange.route_id == Route.id)
        .where(RouteArm.version_id.in_([version.id for version in versions]), RouteArm.place > 0)
        .where(Route.kind == "canary")
        .order_by(Route.number, RouteChange.seq)
    )
    return {row.version_id: _Canary(row.Route, row.RouteChange) for row in session.execute(query)}


def _moves(session: Session, versions: Collection[Version]) -> dict[uuid.UUID, AliasMove]:
    """The newest move of `champion` to each version, or the newest rollback from it if that came later."""
    ids = [version.id for version in versions]
    left = and_(AliasMove.from_version_id.in_(ids), AliasMove.kind == "rollback")
    query = (
        select(AliasMove)
        .where(AliasMove.alias == CHAMPION, or_(AliasMove.to_version_id.in_(ids), left))
        .order_by(AliasMove.seq)
    )
    found: dict[uuid.UUID, AliasMove] = {}
    for move in session.scalars(query):
        found[move.to_version_id] = move
        if move.kind == "rollback" and move.from_version_id is not None:
            found[move.from_version_id] = move
    return found
