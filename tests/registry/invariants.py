"""What must hold of an adapter whatever was done to it, read from the rows and not by the rules that wrote them."""

import uuid
from datetime import timedelta
from itertools import pairwise

import sqlalchemy as sa
from sqlalchemy.orm import Session

from registry.clock import utc_now
from registry.models import (
    Adapter,
    Alias,
    AliasMove,
    Deletion,
    Gate,
    Route,
    Version,
    VersionState,
)
from registry.serving.aliases import alias_snapshot, history

_OF_ADAPTERS = "adapter_id in (select id from adapters where project_id = :project)"
_OF_TASKS = "task_id in (select id from tasks where project_id = :project)"

FROZEN = {
    "versions": _OF_ADAPTERS,
    "alias_moves": _OF_ADAPTERS,
    "gates": f"version_id in (select id from versions where {_OF_ADAPTERS})",
    "route_arms": f"route_id in (select id from routes where {_OF_ADAPTERS})",
    "datasets": _OF_TASKS,
    "suites": _OF_TASKS,
}
"""Tables whose rows never change, with how to find those of a project."""

LISTS = {
    "dataset_items": ("dataset_id", f"select id from datasets where {_OF_TASKS}"),
    "suite_items": ("suite_id", f"select id from suites where {_OF_TASKS}"),
}
"""Lists that are written once and only ever lose what was deleted: their owner, and how to find the owners."""


def check_adapter(session: Session, adapter: Adapter) -> None:
    check_aliases(session, adapter)
    check_history(session, adapter)
    check_live_route(session, adapter)


def check_aliases(session: Session, adapter: Adapter) -> None:
    """Every alias points at a version of its adapter that passed, and that is neither archived nor purged.

    A withdrawn one only where the deletion that withdrew it found no other to go to, and said so.
    """
    for alias in session.scalars(sa.select(Alias).where(Alias.adapter_id == adapter.id)):
        version = session.get_one(Version, alias.version_id)
        assert version.adapter_id == adapter.id
        assert has_passed(session, version)
        state = session.get(VersionState, version.id)
        if state is None:
            continue
        assert (state.archived_at, state.purged_at) == (None, None)
        if state.withdrawn_at is not None:
            assert f"{adapter.name}@{alias.name}" in stranded(session, adapter.project_id)
            assert history(session, adapter, alias.name)[-1].at <= state.withdrawn_at


def check_history(session: Session, adapter: Adapter) -> None:
    """Each alias's moves lead one into the next, from nothing to where it stands; a rollback goes to where it was."""
    replayed: dict[str, Version] = {}
    been: dict[str, set[uuid.UUID]] = {}
    moves = list(
        session.scalars(sa.select(AliasMove).where(AliasMove.adapter_id == adapter.id).order_by(AliasMove.seq))
    )
    for move in moves:
        before = replayed.get(move.alias)
        assert move.from_version_id == (before.id if before else None)
        assert has_passed(session, move.to_version)
        if move.kind == "rollback":
            assert move.to_version_id in been[move.alias]
            assert move.to_version_id != move.from_version_id
        replayed[move.alias] = move.to_version
        been.setdefault(move.alias, set()).add(move.to_version_id)
    aliases = session.scalars(sa.select(Alias).where(Alias.adapter_id == adapter.id))
    assert {alias.name: alias.version_id for alias in aliases} == {name: v.id for name, v in replayed.items()}
    for name, version in replayed.items():
        now = alias_snapshot(session, adapter, name, utc_now())
        assert (now.move.to_version_id, now.until) == (version.id, None)
        of_alias = [move for move in moves if move.alias == name]
        assert [move.at for move in of_alias] == sorted(move.at for move in of_alias)
        for move, following in pairwise(of_alias):
            just_before = following.at - timedelta(microseconds=1)
            if just_before >= move.at:
                assert alias_snapshot(session, adapter, name, just_before).move.seq == move.seq


def check_live_route(session: Session, adapter: Adapter) -> None:
    """One live route at most; its weights sum to one over servable versions of its adapter, which passed but for the
    one that only shadows. A canary and a shadow are compared with the champion."""
    live = session.scalars(sa.select(Route).where(Route.adapter_id == adapter.id, Route.state == "live")).all()
    assert len(live) <= 1
    for route in live:
        assert abs(sum(arm.weight for arm in route.arms) - 1) < 1e-9
        for arm in route.arms:
            assert arm.version.adapter_id == adapter.id
            assert is_servable(session, arm.version)
            only_shadows = route.kind == "shadow" and arm.place == 1
            assert arm.weight == 0 if only_shadows else arm.weight > 0 and has_passed(session, arm.version)
        if route.kind != "ab":
            assert route.arms[0].version_id == session.get_one(Alias, (adapter.id, "champion")).version_id


def check_held_out(session: Session, project_id: uuid.UUID) -> None:
    """No dataset has an item that begins with the message that a held-out one of its task begins with, however either
    goes on; suites have held-out items alone."""
    leaked = """
        select count(*) from dataset_items i
        join trajectories t on t.id = i.trajectory_id
        join trajectories h on h.task_id = t.task_id and (h.messages -> 0)::jsonb = (t.messages -> 0)::jsonb
        where t.project_id = :project and h.held_out
    """
    foreign = """
        select count(*) from suite_items i
        join suites s on s.id = i.suite_id
        join trajectories t on t.id = i.trajectory_id
        where t.project_id = :project and not (t.held_out and t.task_id = s.task_id)
    """
    assert [session.scalar(sa.text(query), {"project": project_id}) for query in (leaked, foreign)] == [0, 0]


class Ledger:
    """A copy of every row that was ever seen and may not change, as text."""

    def __init__(self) -> None:
        self.rows: dict[str, set[str]] = {table: set() for table in FROZEN}
        self.lists: dict[str, dict[str, set[tuple[int, str]]]] = {table: {} for table in LISTS}

    def check(self, session: Session, project_id: uuid.UUID) -> None:
        """Compare with what is there now, then take up what is new."""
        project = {"project": project_id}
        for table, where in FROZEN.items():
            found = set(session.scalars(sa.text(f"select to_jsonb(t)::text from {table} t where {where}"), project))
            assert self.rows[table] <= found, table
            self.rows[table] = found
        there = set(session.scalars(sa.text("select id::text from trajectories where project_id = :project"), project))
        for table, (owner, owners) in LISTS.items():
            known = self.lists[table]
            items = session.execute(
                sa.text(
                    f"select o.id::text, i.place, i.trajectory_id::text from ({owners}) o "
                    f"left join {table} i on i.{owner} = o.id"
                ),
                project,
            )
            lists: dict[str, set[tuple[int, str]]] = {}
            for owner_id, place, trajectory_id in items:
                listed = lists.setdefault(owner_id, set())
                if trajectory_id is not None:
                    listed.add((place, trajectory_id))
            for owner_id, before in known.items():
                assert lists[owner_id] == {item for item in before if item[1] in there}, table
            self.lists[table] = lists


def has_passed(session: Session, version: Version) -> bool:
    gate = session.scalars(sa.select(Gate).where(Gate.version_id == version.id)).one_or_none()
    if gate is None or not gate.passed:
        return False
    return gate.decision.approved if gate.decision else gate.policy != "manual"


def is_servable(session: Session, version: Version) -> bool:
    state = session.get(VersionState, version.id)
    return state is None or not (state.archived_at or state.withdrawn_at or state.purged_at)


def stranded(session: Session, project_id: uuid.UUID) -> set[str]:
    """Aliases that deletions left where they were, for want of a version that passed without the data."""
    deletions = session.scalars(sa.select(Deletion).where(Deletion.project_id == project_id))
    return {name for deletion in deletions for name in deletion.affected.get("stranded", ())}
