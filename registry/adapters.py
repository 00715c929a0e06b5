"""Adapters: named memory lineages, each bound to one revision of one base model, and the settings of their gates."""

import uuid
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from registry.clock import utc_now
from registry.errors import AdapterNotFound, Invalid, InvalidName, NameTaken
from registry.json_text import show
from registry.models import CANARY_PROMOTIONS, GATE_POLICIES, GATE_RULES, STRATEGIES, Adapter, AdapterChange
from registry.names import BASE, check_name, is_valid_name

LARGEST_CANARY = 0.5
"""Largest share of the sessions that a canary may get."""


def _setting(default: Any, meaning: str, *, later: bool = False) -> Any:
    """`later` if releases were published without it: the hash of a creation leaves it out where it has its default."""
    return field(default=default, metadata={"meaning": meaning, "later": later})


@dataclass(frozen=True)
class AdapterSettings:
    """Settings of an adapter that may be changed; they hold from the next training and the next gate on.

    The one list of these settings. The API's bodies are made from these fields; the columns of
    `registry.models.Adapter` have the same names, and no defaults of their own.
    """

    replay_share: float = _setting(0.25, "Share of earlier tasks' items in each training; for strategy replay only")
    gate_margin: float = _setting(0.05, "Largest drop of an old task's score, 0.05 is 5 points")
    gate_rule: str = _setting("point", f"How the margin is applied to a finite suite: {', '.join(GATE_RULES)}")
    gate_level: float = _setting(
        0.05, "Significance level of the gate's tests; its intervals have confidence 1 - gate_level"
    )
    gate_settled: bool = _setting(
        False,
        "Whether a version may not drop either on the items that the champion was judged by, which what came since "
        "can't outvote",
        later=True,
    )
    gate_gain: bool = _setting(
        True,
        "Whether a version must gain also on a task that the champion has learned; if not, it may not drop there",
        later=True,
    )
    gate_policy: str = _setting("automatic", f"What follows from a pass: {', '.join(GATE_POLICIES)}")
    canary_share: float = _setting(0.05, "Share of the sessions that a canary gets, for policy canary")
    canary_promotion: str = _setting(
        "non_inferior", f"What makes such a canary the champion: {', '.join(CANARY_PROMOTIONS)}"
    )
    canary_margin: float = _setting(0.05, "How much worse is too much for non_inferior, 0.05 is 5 points of reward")
    retry_replay_share: float | None = _setting(
        None, "Replay share with which a version that forgot is trained once more; null turns retries off"
    )

    @classmethod
    def of(cls, adapter: Adapter) -> Self:
        return cls(**{each.name: getattr(adapter, each.name) for each in fields(cls)})

    def check(self) -> None:
        """Raises Invalid."""
        if not 0.0 <= self.replay_share < 1.0 or not 0.0 <= self.gate_margin <= 1.0:
            raise Invalid(
                f"replay_share is {self.replay_share} and gate_margin {self.gate_margin}; expected [0, 1) and [0, 1]"
            )
        if self.gate_rule not in GATE_RULES or not 0.0 < self.gate_level < 1.0:
            raise Invalid(
                f"gate_rule is {self.gate_rule!r} and gate_level {self.gate_level}; expected one of "
                f"{list(GATE_RULES)} and more than 0 and less than 1"
            )
        if self.gate_policy not in GATE_POLICIES:
            raise Invalid(f"gate_policy is {self.gate_policy!r}; expected one of {list(GATE_POLICIES)}")
        if not 0.0 < self.canary_share <= LARGEST_CANARY:
            raise Invalid(f"canary_share is {self.canary_share}; expected more than 0 and at most {LARGEST_CANARY}")
        if self.canary_promotion not in CANARY_PROMOTIONS or not 0.0 < self.canary_margin < 1.0:
            raise Invalid(
                f"canary_promotion is {self.canary_promotion!r} and canary_margin {self.canary_margin}; expected one "
                f"of {list(CANARY_PROMOTIONS)} and more than 0 and less than 1"
            )
        if self.retry_replay_share is not None and not self.replay_share < self.retry_replay_share < 1.0:
            raise Invalid(
                f"retry_replay_share is {self.retry_replay_share}; expected more than the replay_share "
                f"{self.replay_share} and less than 1, or null for no retry"
            )


def create_adapter(
    session: Session,
    project_id: uuid.UUID,
    *,
    name: str,
    base_model: str,
    base_revision: str,
    description: str = "",
    strategy: str = "replay",
    memory: dict[str, Any] | None = None,
    **settings: Any,
) -> Adapter:
    """`settings` are fields of AdapterSettings. Raises InvalidName, Invalid, or NameTaken."""
    check_name("adapter", name)
    if name == BASE:
        raise InvalidName(f"adapter name {name!r} is reserved for the bare model; choose another")
    if strategy not in STRATEGIES:
        raise Invalid(f"strategy {strategy!r} is not known; expected one of {list(STRATEGIES)}")
    chosen = AdapterSettings(**settings)
    chosen.check()
    values = asdict(chosen)
    if strategy != "replay":
        values |= {"replay_share": 0.0, "retry_replay_share": None}
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
            memory=memory or {},
            created_at=utc_now(),
            **values,
        )
        .on_conflict_do_nothing()
        .returning(Adapter)
    ).one_or_none()
    if created is None:
        raise NameTaken(f"an adapter named {name!r} exists already; choose another name or train a new version of it")
    return created


def change_adapter(
    session: Session, adapter: Adapter, changes: dict[str, Any], *, actor: str, reason: str
) -> AdapterChange | None:
    """Set fields of AdapterSettings; None if they have these values already. The caller holds the adapter's lock.

    Gates that were recorded keep the terms that they were judged by.

    Raises:
        Invalid: a value out of range, or replay for a strategy that has none.
    """
    before = asdict(AdapterSettings.of(adapter))
    after = AdapterSettings(**{**before, **changes})
    after.check()
    if adapter.strategy != "replay" and (after.replay_share or after.retry_replay_share):
        raise Invalid(f"adapter {adapter.name!r} has strategy {adapter.strategy!r}, which replays nothing")
    moved = {name: {"from": before[name], "to": value} for name, value in changes.items() if before[name] != value}
    if not moved:
        return None
    for name, move in moved.items():
        setattr(adapter, name, move["to"])
    change = AdapterChange(adapter_id=adapter.id, changes=moved, actor=actor, reason=reason)
    session.add(change)
    session.flush()
    return change


def adapter_changes(session: Session, adapter: Adapter) -> list[AdapterChange]:
    """Oldest first."""
    query = select(AdapterChange).where(AdapterChange.adapter_id == adapter.id)
    return list(session.scalars(query.order_by(AdapterChange.seq)))


def get_adapter(session: Session, project_id: uuid.UUID, name: str, *, lock: bool = False) -> Adapter:
    """Raises AdapterNotFound. `lock` serialises changes to the adapter's versions and aliases."""
    query = select(Adapter).where(Adapter.project_id == project_id, Adapter.name == name)
    # A name that no adapter can have is not worth a query, nor safe in one (NUL).
    found = session.scalars(query.with_for_update() if lock else query).one_or_none() if is_valid_name(name) else None
    if found is None:
        raise AdapterNotFound(f"no adapter named {show(name)} in this project; `GET /v1/adapters` lists them")
    return found


def list_adapters(session: Session, project_id: uuid.UUID) -> list[Adapter]:
    return list(session.scalars(select(Adapter).where(Adapter.project_id == project_id).order_by(Adapter.name)))
