"""Adapters, their versions, aliases and scores; promotion and rollback."""

from dataclasses import fields
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from api.endpoints.bases import served_base
from api.endpoints.scores import ScoresOut, scores_of
from api.http.deps import Promoter, Reader, ServicesDep, Trainer
from api.http.idempotency import IdempotencyDep, once
from api.http.pagination import Cursor, Page, PageLimit, decode_cursor, make_page
from api.http.schemas import AdapterOut, AliasMoveOut, Strict, VersionOut, with_optional_settings, with_settings
from api.http.values import Moment, Number
from memgen.config import MemoryConfig
from memgen.errors import ConfigError
from registry.adapters import (
    AdapterSettings,
    adapter_changes,
    change_adapter,
    create_adapter,
    get_adapter,
    list_adapters,
)
from registry.clock import utc_now
from registry.database import transaction
from registry.gates.verdict import gate_of, gates_of
from registry.models import AdapterChange
from registry.serving.aliases import (
    AliasSnapshot,
    alias_snapshot,
    aliases_by_adapter,
    history,
    list_aliases,
    promote,
    roll_back,
)
from registry.serving.routes import weights_of
from registry.versions.records import get_version, list_versions

router = APIRouter(prefix="/v1/adapters", tags=["adapters"])


@with_settings
class _NewAdapter(Strict):
    """What stands in front of the settings: the hash that knows a repeated request by its body has this order."""

    name: str
    description: Annotated[str, Field(max_length=2000)] = ""
    strategy: str = "replay"


class AdapterIn(_NewAdapter):
    memory: Annotated[dict[str, Any], Field(default_factory=dict, description="Fields of MemoryConfig: latents, ...")]


@with_optional_settings
class AdapterChangeIn(Strict):
    """Settings that are left out stay as they are."""

    reason: Annotated[str, Field(max_length=2000)] = ""

    def changes(self) -> dict[str, Any]:
        changed = self.model_dump(exclude_unset=True, exclude={"reason"})
        return {name: value for name, value in changed.items() if value is not None or name == "retry_replay_share"}


class AdapterChangeOut(BaseModel):
    changes: dict[str, Any]
    """Old and new value, `from` and `to`, by setting."""
    actor: str
    reason: str
    at: datetime

    @classmethod
    def of(cls, row: AdapterChange) -> "AdapterChangeOut":
        return cls(changes=row.changes, actor=row.actor, reason=row.reason, at=row.at)


class AdapterChangeList(BaseModel):
    data: list[AdapterChangeOut]


class AdapterList(BaseModel):
    data: list[AdapterOut]


class AliasAt(BaseModel):
    alias: str
    at: datetime
    version: int
    since: AliasMoveOut
    """The move that made it so."""
    until: datetime | None
    """When the alias was moved on; null if it has not been."""
    route: dict[str, Any] | None
    """Number, kind and weights of the route that shared requests for the bare adapter name; for `champion` only."""

    @classmethod
    def of(cls, snapshot: AliasSnapshot) -> "AliasAt":
        route = snapshot.route
        return cls(
            alias=snapshot.move.alias,
            at=snapshot.at,
            version=snapshot.move.to_version.number,
            since=AliasMoveOut.of(snapshot.move),
            until=snapshot.until,
            route={"number": route.number, "kind": route.kind, "weights": weights_of(route)} if route else None,
        )


class PromoteIn(Strict):
    version: Number
    expected_version: Annotated[
        Number | None, Field(description="What you believe is current, 0 for none; 409 if it is not")
    ] = None
    reason: Annotated[str, Field(max_length=2000)] = ""


class RollbackIn(Strict):
    to_version: Annotated[Number | None, Field(description="Default: the last that served before and still may")] = None
    to_time: Annotated[
        Moment | None, Field(strict=False, description="Or: where the alias stood then, with its zone")
    ] = None
    expected_version: Number | None = None
    reason: Annotated[str, Field(max_length=2000)] = ""


@router.post("", status_code=201)
def create(
    body: AdapterIn, request: Request, services: ServicesDep, caller: Trainer, idempotency: IdempotencyDep
) -> AdapterOut:
    """The adapter is bound to the base model that this service runs."""
    settings = services.settings
    memory = MemoryConfig.from_mapping(body.memory)
    check_trainable(memory)
    base = served_base(request, services)

    with transaction(services.sessions) as session:

        def created() -> AdapterOut:
            adapter = create_adapter(
                session,
                caller.project_id,
                name=body.name,
                base_model=settings.base_model,
                base_revision=base.revision,
                description=body.description,
                strategy=body.strategy,
                memory=memory.to_mapping(),
                **{field.name: getattr(body, field.name) for field in fields(AdapterSettings)},
            )
            adapter.base_identity = dict(base.identity)
            return AdapterOut.of(adapter, [])

        return once(session, caller.project_id, idempotency, body, AdapterOut, created)


def check_trainable(memory: MemoryConfig) -> None:
    """Refuse at once what this service's workers could not train, instead of in a job an hour later."""
    if memory.trigger == "never" and memory.form != "lora":
        raise ConfigError(
            "trigger is 'never', so no memory would be woven and none could be learned from reward. Use 'always', or "
            "'lora' or 'head', which a train_trigger job trains; until then they weave at every decision point."
        )
    if memory.weaver_base:
        raise ConfigError(
            f"weaver_base is {memory.weaver_base!r}; the service's workers hold one base. Leave it empty, or use "
            "memgen as a library."
        )


@router.get("")
def index(services: ServicesDep, caller: Reader) -> AdapterList:
    with transaction(services.sessions) as session:
        rows = list_adapters(session, caller.project_id)
        aliases = aliases_by_adapter(session, rows)
        return AdapterList(data=[AdapterOut.of(row, aliases[row.id]) for row in rows])


@router.get("/{name}")
def show(name: str, services: ServicesDep, caller: Reader) -> AdapterOut:
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, caller.project_id, name)
        return AdapterOut.of(adapter, list_aliases(session, adapter))


@router.patch("/{name}")
def change(name: str, body: AdapterChangeIn, services: ServicesDep, caller: Promoter) -> AdapterOut:
    """Change settings of replay and gates. Gates that have run keep the terms that they were judged by."""
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, caller.project_id, name, lock=True)
        change_adapter(session, adapter, body.changes(), actor=caller.actor, reason=body.reason)
        return AdapterOut.of(adapter, list_aliases(session, adapter))


@router.get("/{name}/changes")
def changes(name: str, services: ServicesDep, caller: Reader) -> AdapterChangeList:
    """Who changed which settings, and why; oldest first."""
    with transaction(services.sessions) as session:
        rows = adapter_changes(session, get_adapter(session, caller.project_id, name))
        return AdapterChangeList(data=[AdapterChangeOut.of(row) for row in rows])


@router.get("/{name}/versions")
def versions(
    name: str, services: ServicesDep, caller: Reader, cursor: Cursor = None, limit: PageLimit = 50
) -> Page[VersionOut]:
    """Oldest first."""
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, caller.project_id, name)
        rows = list_versions(session, adapter, after=decode_cursor(cursor), limit=limit + 1)
        gates = gates_of(session, rows)
        return make_page(
            rows, limit, seq=lambda row: row.number, render=lambda row: VersionOut.of(row, gates.get(row.id))
        )


@router.get("/{name}/versions/{number}")
def version(name: str, number: Number, services: ServicesDep, caller: Reader) -> VersionOut:
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, caller.project_id, name)
        row = get_version(session, adapter, number)
        return VersionOut.of(row, gate_of(session, row))


@router.get("/{name}/scores")
def scores(name: str, services: ServicesDep, caller: Reader) -> ScoresOut:
    """R of the adapter's versions and tasks, with ACC, BWT, FWT and forgetting."""
    with transaction(services.sessions) as session:
        return scores_of(session, get_adapter(session, caller.project_id, name))


@router.get("/{name}/aliases/{alias}")
def alias_at(
    name: str,
    alias: str,
    services: ServicesDep,
    caller: Reader,
    at: Annotated[Moment | None, Query(description="A time with its zone; default: now")] = None,
) -> AliasAt:
    """Which version an alias named at a time, and which route shared its traffic then."""
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, caller.project_id, name)
        return AliasAt.of(alias_snapshot(session, adapter, alias, at or utc_now()))


@router.get("/{name}/aliases/{alias}/history")
def alias_history(
    name: str, alias: str, services: ServicesDep, caller: Reader, cursor: Cursor = None, limit: PageLimit = 50
) -> Page[AliasMoveOut]:
    """Every move, oldest first."""
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, caller.project_id, name)
        rows = history(session, adapter, alias, after=decode_cursor(cursor), limit=limit + 1)
        return make_page(rows, limit, seq=lambda row: row.seq, render=AliasMoveOut.of)


@router.post("/{name}/aliases/{alias}/promote")
def promote_alias(name: str, alias: str, body: PromoteIn, services: ServicesDep, caller: Promoter) -> AliasMoveOut:
    """Move an alias to a version that passed its gate."""
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, caller.project_id, name, lock=True)
        move = promote(
            session,
            adapter,
            alias,
            get_version(session, adapter, body.version),
            actor=caller.actor,
            reason=body.reason,
            expected=body.expected_version,
        )
        return AliasMoveOut.of(move)


@router.post("/{name}/aliases/{alias}/rollback")
def roll_back_alias(name: str, alias: str, body: RollbackIn, services: ServicesDep, caller: Promoter) -> AliasMoveOut:
    """Move an alias back; the next answer comes from the earlier version.

    `evidence.skipped` names versions that were passed over because they may not serve any more, and why.
    """
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, caller.project_id, name, lock=True)
        move = roll_back(
            session,
            adapter,
            alias,
            actor=caller.actor,
            reason=body.reason,
            to_number=body.to_version,
            to_time=body.to_time,
            expected=body.expected_version,
        )
        return AliasMoveOut.of(move)
