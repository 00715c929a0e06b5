"""Aliases: movable pointers to versions, with a full history. Rollback is one call and moves one row."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from registry.clock import utc_now
from registry.errors import AliasNotFound, GateNotPassed, NothingToRollBackTo, StaleAlias
from registry.models import Adapter, Alias, AliasMove, Version
from registry.names import check_name
from registry.versions import gate_of, get_version, verdict

CHAMPION = "champion"


def get_alias(session: Session, adapter: Adapter, name: str) -> Alias:
    """Raises AliasNotFound."""
    found = session.get(Alias, (adapter.id, name), options=[joinedload(Alias.version)])
    if found is None:
        raise AliasNotFound(
            f"adapter {adapter.name!r} has no alias {name!r} yet; promote a version, or ask for one by number "
            f"(`{adapter.name}@1`)"
        )
    return found


def list_aliases(session: Session, adapter: Adapter) -> list[Alias]:
    query = select(Alias).where(Alias.adapter_id == adapter.id).options(joinedload(Alias.version))
    return list(session.scalars(query.order_by(Alias.name)))


def promote(
    session: Session,
    adapter: Adapter,
    alias: str,
    version: Version,
    *,
    actor: str,
    reason: str,
    expected: int | None = None,
) -> AliasMove:
    """Move an alias forward to a version that passed its gate.

    Args:
        adapter: locked by the caller.
        expected: number of the version that the caller believes is current; None does not ask.

    Raises:
        GateNotPassed: the version was rejected or not checked yet.
        StaleAlias: the alias points at another version than `expected`.
    """
    check_name("alias", alias)
    gate = gate_of(session, version)
    if gate is None or not gate.passed:
        raise GateNotPassed(
            f"{adapter.name}@{version.number} is {verdict(gate)}; only a version that passed its gate may be "
            f"promoted. Reasons: {'; '.join(gate.reasons) if gate else 'it was not evaluated yet'}"
        )
    return _move(
        session,
        adapter,
        alias,
        version,
        kind="promotion",
        actor=actor,
        reason=reason,
        evidence={"gate": str(gate.id)},
        expected=expected,
    )


def roll_back(
    session: Session,
    adapter: Adapter,
    alias: str,
    *,
    actor: str,
    reason: str,
    to_number: int | None = None,
    expected: int | None = None,
) -> AliasMove:
    """Move an alias back to where its history says it was: the version before, or `to_number`.

    Raises:
        NothingToRollBackTo: the alias was never at another version, or never at `to_number`.
        StaleAlias: as `promote`.
    """
    moves = history(session, adapter, alias)
    current = get_alias(session, adapter, alias)
    _check_expected(adapter, alias, current, expected)
    if to_number is None:
        served = serving_stack(moves)
        if len(served) < 2:
            raise NothingToRollBackTo(
                f"{adapter.name}@{alias} is at version {current.version.number} and has served no earlier one"
            )
        target = served[-2]
    else:
        target = get_version(session, adapter, to_number)
        if target.id == current.version_id or all(move.to_version_id != target.id for move in moves):
            raise NothingToRollBackTo(
                f"{adapter.name}@{alias} is at version {current.version.number} and its history does not lead back to "
                f"{to_number}; to serve a version for the first time, promote it"
            )
    evidence = {"undoes": moves[-1].seq}
    return _move(
        session,
        adapter,
        alias,
        target,
        kind="rollback",
        actor=actor,
        reason=reason,
        evidence=evidence,
        expected=expected,
    )


def history(session: Session, adapter: Adapter, alias: str) -> list[AliasMove]:
    """Every move of an alias, oldest first."""
    return list(
        session.scalars(
            select(AliasMove)
            .where(AliasMove.adapter_id == adapter.id, AliasMove.alias == alias)
            .options(joinedload(AliasMove.from_version), joinedload(AliasMove.to_version))
            .order_by(AliasMove.seq)
        )
    )


def serving_stack(moves: Sequence[AliasMove]) -> list[Version]:
    """Versions that a rollback can return to, the current one last.

    A promotion pushes, a rollback pops to its target: after 1, 2, back to 1, 3 the stack is [1, 3].
    """
    stack: list[Version] = []
    for move in moves:
        if move.kind == "promotion":
            stack.append(move.to_version)
            continue
        while stack and stack[-1].id != move.to_version_id:
            stack.pop()
        if not stack:
            stack.append(move.to_version)
    return stack


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
    expected: int | None,
) -> AliasMove:
    current = session.get(Alias, (adapter.id, alias), with_for_update=True)
    _check_expected(adapter, alias, current, expected)
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
    return move


def _check_expected(adapter: Adapter, alias: str, current: Alias | None, expected: int | None) -> None:
    actual = current.version.number if current else 0
    if expected is not None and expected != actual:
        raise StaleAlias(
            f"{adapter.name}@{alias} is at version {actual or 'none'}, not {expected or 'none'} as expected; read it "
            "again and decide anew"
        )
