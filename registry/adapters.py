"""Adapters: named memory lineages, each bound to one revision of one base model."""

import uuid
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from registry.clock import utc_now
from registry.errors import AdapterNotFound, Invalid, InvalidName, NameTaken
from registry.models import STRATEGIES, Adapter
from registry.names import check_name

RESERVED_NAMES = ("base",)
"""`base` is the bare model in the OpenAI paths."""


def create_adapter(
    session: Session,
    project_id: uuid.UUID,
    *,
    name: str,
    base_model: str,
    base_revision: str,
    description: str = "",
    strategy: str = "replay",
    replay_share: float = 0.25,
    gate_margin: float = 0.05,
    memory: dict[str, Any] | None = None,
) -> Adapter:
    """Raises InvalidName, Invalid, or NameTaken."""
    check_name("adapter", name)
    if name in RESERVED_NAMES:
        raise InvalidName(f"adapter name {name!r} is reserved for the bare model; choose another")
    if strategy not in STRATEGIES:
        raise Invalid(f"strategy {strategy!r} is not known; expected one of {list(STRATEGIES)}")
    if not 0.0 <= replay_share < 1.0 or not 0.0 <= gate_margin <= 1.0:
        raise Invalid(f"replay_share is {replay_share} and gate_margin {gate_margin}; expected [0, 1) and [0, 1]")
    created = session.scalars(
        insert(Adapter)
        .values(
            id=uuid.uuid4(),
            project_id=project_id,
            name=name,
            description=description,
            base_model=base_model,
            base_revision=base_revision,
            strategy=strategy,
            replay_share=replay_share if strategy == "replay" else 0.0,
            gate_margin=gate_margin,
            memory=memory or {},
            created_at=utc_now(),
        )
        .on_conflict_do_nothing()
        .returning(Adapter)
    ).one_or_none()
    if created is None:
        raise NameTaken(f"an adapter named {name!r} exists already; choose another name or train a new version of it")
    return created


def get_adapter(session: Session, project_id: uuid.UUID, name: str, *, lock: bool = False) -> Adapter:
    """Raises AdapterNotFound. `lock` serialises changes to the adapter's versions and aliases."""
    query = select(Adapter).where(Adapter.project_id == project_id, Adapter.name == name)
    found = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if found is None:
        raise AdapterNotFound(f"no adapter named {name!r} in this project; `GET /v1/adapters` lists them")
    return found


def list_adapters(session: Session, project_id: uuid.UUID) -> list[Adapter]:
    return list(session.scalars(select(Adapter).where(Adapter.project_id == project_id).order_by(Adapter.name)))
