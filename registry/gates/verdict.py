"""The verdict on a version: that of its gate and, where the policy asks a person, of that person."""

import uuid
from collections.abc import Collection
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from registry.models import Gate, Version

Verdict = Literal["unchecked", "waiting", "passed", "rejected"]
"""`waiting` for a person's yes, where the gate's policy asks for one."""


def gate_of(session: Session, version: Version) -> Gate | None:
    return session.scalars(select(Gate).where(Gate.version_id == version.id)).one_or_none()


def gates_of(session: Session, versions: Collection[Version]) -> dict[uuid.UUID, Gate]:
    """The gates of the versions, by version id, each with its champion loaded; versions not judged yet are left out."""
    query = select(Gate).where(Gate.version_id.in_([version.id for version in versions]))
    return {gate.version_id: gate for gate in session.scalars(query.options(joinedload(Gate.champion)))}


def verdict(gate: Gate | None) -> Verdict:
    """The gate's verdict or, under policy `manual`, the person's decision on it."""
    if gate is None:
        return "unchecked"
    if gate.decision is not None:
        return "passed" if gate.decision.approved else "rejected"
    if gate.passed and gate.policy == "manual":
        return "waiting"
    return "passed" if gate.passed else "rejected"
