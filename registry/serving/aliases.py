"""Aliases: movable pointers to versions, with a full history. Rollback is one call and moves one row."""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from registry.clock import utc_now
from registry.database import one_of
from registry.errors import AliasNotFound, GateNotPassed, Invalid, NothingToRollBackTo, StaleAlias
from registry.gates.verdict import gate_of, verdict
from registry.json_text import show
from registry.models import Adapter, Alias, AliasMove, Gate, Route, Version
from registry.names import CHAMPION, check_name, is_valid_name
from registry.serving.events import emit_move
from registry.serving.rollback import RollbackTarget, rollback_target
from registry.serving.routes import end_live_route, route_at
from registry.versions.records import get_version
from registry.versions.state import check_servable, why_not_servable


def get_alias(session: Session, adapter: Adapter, name: str) -> Alias:
    """Raises AliasNotFound."""
    options = [joinedload(Alias.version)]
    found = session.get(Alias, (adapter.id, name), options=options) if is_valid_name(name) else None
    if found is None:
        raise AliasNotFound(
            f"adapter {adapter.name!r} has no alias {show(name)} yet; promote a version, or ask for one by number "
            f"(`{adapter.name}@1`)"
        )
    return found


def list_aliases(session: Session, adapter: Adapter) -> list[Alias]:
    query = select(Alias).where(Alias.adapter_id == adapter.id).options(joinedload(Alias.version))
    return list(session.scalars(query.order_by(Alias.name)))


def aliases_by_adapter(session: Session, adapters: Collection[Adapter]) -> dict[uuid.UUID, list[Alias]]:
    """`list_aliases` of each adapter, by its id, in one query. The versions come without their reports."""
    query = select(Alias).where(one_of(Alias.adapter_id, [adapter.id for adapter in adapters])).order_by(Alias.name)
    found: dict[uuid.UUID, list[Alias]] = {adapter.id: [] for adapter in adapters}
    for alias in session.scalars(query.options(joinedload(Alias.version).defer(Version.report))):
        found[alias.adapter_id].append(alias)
    return found


def promote(
    session: Session,
    adapter: Adapter,
    alias: str,
    version: Version,
    *,
    actor: str,
    reason: str,
    expected: int | None = None,
    evidence: Mapping[str, Any] | None = None,
) -> AliasMove:
    """Move an alias forward to a version that passed its gate.

    Args:
        adapter: locked by the caller.
        expected: number of the version that the caller believes is current; None skips the check.
        evidence: further evidence for the history, beside the gate.

    Raises:
        GateNotPassed: the version was rejected or not checked yet.
        StaleAlias: the alias points at another version than `expected`.
    """
    check_name("alias", alias)
    gate = gate_of(session, version)
    refusal = _why_not_passed(version, gate)
    if gate is None or refusal is not None:
        raise GateNotPassed(refusal)
    check_servable(session, version)
    _check_expected(session, adapter, alias, expected)
    full_evidence = {"gate": str(gate.id), **(evidence or {})}
    return _move(session, adapter, alias, version, kind="promotion", actor=actor, reason=reason, evidence=full_evidence)


def why_not_promotable(
    session: Session, adapter: Adapter, alias: str, version: Version, *, expected: int | None = None
) -> str | None:
    """Why `promote` would refuse, with the same arguments; None if it would not."""
    return (
        _why_not_passed(version, gate_of(session, version))
        or why_not_servable(session, version)
        or _why_not_expected(session, adapter, alias, expected)
    )


def roll_back(
    session: Session,
    adapter: Adapter,
    alias: str,
    *,
    actor: str,
    reason: str,
    to_number: int | None = None,
    to_time: datetime | None = None,
    expected: int | None = None,
) -> AliasMove:
    """Move an alias back along its history: to the last good version, to `to_number`, or to where it was at `to_time`.

    The evidence names the versions that are skipped before the last good one, and why.

    Raises:
        Invalid: both `to_number` and `to_time`.
        NothingToRollBackTo: the alias was never at another version that may still serve, or never at `to_number`, or
            it stands where it stood at `to_time`, or it did not exist then.
        VersionNotServable: `to_number`, or what served at `to_time`, may not serve any more.
        StaleAlias: as `promote`.
    """
    if to_number is not None and to_time is not None:
        raise Invalid(f"to_version is {to_number} and to_time {to_time.isoformat()}; expected one of them at most")
    moves = history(session, adapter, alias)
    current = get_alias(session, adapter, alias)
    _check_expected(session, adapter, alias, expected)
    evidence: dict[str, Any] = {"undoes": moves[-1].seq}
    if to_time is not None:
        earlier = last_move_before(moves, to_time)
        if earlier is None or earlier.to_version_id == current.version_id:
            as_now = f"stood at version {current.version.number}, as it does now,"
            state = "did not exist" if earlier is None else as_now
            raise NothingToRollBackTo(f"{adapter.name}@{alias} {state} at {to_time.isoformat()}; see its history")
        target = earlier.to_version
        evidence |= {"as_of": to_time.isoformat(), "restores": earlier.seq}
    elif to_number is None:
        back = rollback_target(session, moves)
        if back.target is None:
            raise NothingToRollBackTo(_no_rollback_target(f"{adapter.name}@{alias}", current.version.number, back))
        target = back.target
        if back.skipped:
            evidence["skipped"] = [{"version": version.number, "why": why} for version, why in back.skipped]
    else:
        target = get_version(session, adapter, to_number)
        if target.id == current.version_id or all(move.to_version_id != target.id for move in moves):
            raise NothingToRollBackTo(
                f"{adapter.name}@{alias} is at version {current.version.number} and its history does not lead back to "
                f"{to_number}; to serve a version for the first time, promote it"
            )
    check_servable(session, target)
    return _move(session, adapter, alias, target, kind="rollback", actor=actor, reason=reason, evidence=evidence)


def history(
    session: Session, adapter: Adapter, alias: str, *, after: int = 0, limit: int | None = None
) -> list[AliasMove]:
    """Every move of an alias whose `seq` is above `after`, oldest first."""
    return list(
        session.scalars(
            select(AliasMove)
            .where(AliasMove.adapter_id == adapter.id, AliasMove.alias == alias, AliasMove.seq > after)
            .options(joinedload(AliasMove.from_version), joinedload(AliasMove.to_version))
            .order_by(AliasMove.seq)
            .limit(limit)
        )
    )


def newest_moves(session: Session, adapter: Adapter, limit: int, *, before: int | None = None) -> list[AliasMove]:
    """The last moves of all aliases of an adapter, the newest first; of those before a `seq`, if there is one."""
    query = select(AliasMove).where(AliasMove.adapter_id == adapter.id)
    query = query if before is None else query.where(AliasMove.seq < before)
    versions = (joinedload(side).defer(Version.report) for side in (AliasMove.from_version, AliasMove.to_version))
    return list(session.scalars(query.options(*versions).order_by(AliasMove.seq.desc()).limit(limit)))


@dataclass(frozen=True)
class AliasSnapshot:
    """The version that an alias named at a time, and since and until when."""

    at: datetime
    move: AliasMove
    """The move that brought the alias there."""
    until: datetime | None
    """Time of the next move; None if there is none."""
    route: Route | None
    """The route that shared the traffic of the bare adapter name then; for `champion` only."""


def alias_snapshot(session: Session, adapter: Adapter, alias: str, at: datetime) -> AliasSnapshot:
    """The version that an alias named at a time, with the moves around it.

    Raises:
        AliasNotFound: the alias did not exist then.
    """
    moves = history(session, adapter, alias)
    move = last_move_before(moves, at)
    if move is None:
        first = f"it was first moved at {moves[0].at.isoformat()}" if moves else "it was never moved"
        raise AliasNotFound(f"{adapter.name}@{alias} named no version at {at.isoformat()}: {first}")
    following = next((later.at for later in moves if later.seq > move.seq), None)
    return AliasSnapshot(at, move, following, route_at(session, adapter, at) if alias == CHAMPION else None)


def last_move_before(moves: Sequence[AliasMove], at: datetime) -> AliasMove | None:
    """The newest move at or before a time; None before the first."""
    return next((move for move in reversed(moves) if move.at <= at), None)


def _no_rollback_target(name: str, number: int, back: RollbackTarget) -> str:
    advice = "Promote another version that passed, or name one of its history to go back to"
    if not back.skipped:
        return f"{name} is at version {number} and has served no earlier one. {advice}"
    looked_at = "; ".join(why for _, why in back.skipped)
    return f"{name} is at version {number} and nothing that served before it may serve now: {looked_at}. {advice}"


def _move(
    session: Session,
    adapter: Adapter,
    alias: str,
    version: Version,
    *,
    kind: str,
    actor: str,
    reason: str,
    evidence: dict[str, Any],
) -> AliasMove:
    current = session.get(Alias, (adapter.id, alias), with_for_update=True)
    move = AliasMove(
        adapter_id=adapter.id,
        alias=alias,
        kind=kind,
        from_version=current.version if current else None,
        to_version=version,
        actor=actor,
        reason=reason,
        evidence=evidence,
    )
    session.add(move)
    if current is None:
        session.add(Alias(adapter_id=adapter.id, name=alias, version=version))
    else:
        current.version, current.moved_at = version, utc_now()
    session.flush()
    emit_move(session, adapter, move)
    if alias == CHAMPION:
        # A live route would go on sharing the traffic among the versions of before; the new champion gets all of it.
        why = f"{adapter.name}@{alias} moved to version {version.number}"
        end_live_route(session, adapter, actor=actor, reason=why, evidence={"alias_move": move.seq})
    return move


def _why_not_passed(version: Version, gate: Gate | None) -> str | None:
    if (found := verdict(gate)) == "passed":
        return None
    if gate is None:
        why = "It was not evaluated yet."
    elif gate.decision is not None:
        why = f"{gate.decision.actor} rejected it: {gate.decision.reason}"
    else:
        why = "Approve it first." if gate.passed else f"Reasons: {'; '.join(gate.reasons)}"
    name = f"{version.adapter.name}@{version.number}"
    return f"{name} is {found}; only a version that passed its gate may be promoted. {why}"


def _why_not_expected(session: Session, adapter: Adapter, alias: str, expected: int | None) -> str | None:
    current = session.get(Alias, (adapter.id, alias), with_for_update=True)
    actual = current.version.number if current else 0
    if expected is None or expected == actual:
        return None
    return (
        f"{adapter.name}@{alias} is at version {actual or 'none'}, not {expected or 'none'} as expected; read it again "
        "and decide anew"
    )


def _check_expected(session: Session, adapter: Adapter, alias: str, expected: int | None) -> None:
    reason = _why_not_expected(session, adapter, alias, expected)
    if reason is not None:
        raise StaleAlias(reason)
