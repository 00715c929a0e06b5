"""What a project's webhooks get about its aliases and routes."""

from sqlalchemy.orm import Session

from registry.models import Adapter, AliasMove, Route, RouteChange
from registry.outbox import emit


def emit_move(session: Session, adapter: Adapter, move: AliasMove) -> None:
    data = {
        "adapter": adapter.name,
        "alias": move.alias,
        "kind": move.kind,
        "from_version": move.from_version.number if move.from_version else None,
        "to_version": move.to_version.number,
        "actor": move.actor,
        "reason": move.reason,
    }
    emit(session, adapter.project_id, "alias.moved", data)


def emit_end(session: Session, route: Route, change: RouteChange) -> None:
    data = {
        "adapter": route.adapter.name,
        "route": route.number,
        "kind": route.kind,
        "state": change.kind,
        "versions": [arm.version.number for arm in route.arms],
        "actor": change.actor,
        "reason": change.reason,
    }
    emit(session, route.adapter.project_id, "route.ended", data)
