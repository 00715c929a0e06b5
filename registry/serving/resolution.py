"""Resolution of an OpenAI `model` name to a version or the bare base, through aliases and the live route."""

import uuid
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.adapters import get_adapter
from registry.errors import AliasNotFound, VersionNotFound
from registry.models import Adapter, Loop, Route, Version
from registry.names import BASE, CHAMPION
from registry.serving.aliases import get_alias
from registry.serving.assignment import choose_version, is_sampled
from registry.serving.routes import live_route, weights_of
from registry.versions.records import get_version
from registry.versions.state import check_servable

_NUMBER_DIGITS = 9
"""Longest number of a version. What is longer is no alias either."""


@dataclass(frozen=True)
class ServingRequest:
    """The ids by which a route assigns a request to a version."""

    completion_id: str
    session_id: str | None = None


@dataclass(frozen=True)
class Resolution:
    adapter: Adapter | None = None
    version: Version | None = None
    """None is the bare base."""
    alias: str | None = None
    route: Route | None = None
    """The live route of the adapter, where the request left the choice to it."""
    shadow: Version | None = None
    """Version that answers the same request out of band, for comparison."""

    @property
    def label(self) -> str:
        """The exact version: `support-bot@7`, or `base`."""
        if self.adapter is None or self.version is None:
            return BASE
        return f"{self.adapter.name}@{self.version.number}"


def resolve(session: Session, project_id: uuid.UUID, model: str, request: ServingRequest | None = None) -> Resolution:
    """Resolve `base`, `adapter` (its live route, else its champion), `adapter@alias` or `adapter@7`.

    An adapter with a loop and without a champion yet is the bare base.

    Args:
        request: None only looks up what exists; routes are not used then.

    Raises:
        AdapterNotFound, AliasNotFound, VersionNotFound: with what exists.
        VersionNotServable: it is archived or withdrawn, or its bytes are gone.
    """
    resolution = _resolve(session, project_id, model, request)
    if resolution.version is not None:
        check_servable(session, resolution.version)
    return resolution


def _resolve(session: Session, project_id: uuid.UUID, model: str, request: ServingRequest | None) -> Resolution:
    if model == BASE:
        return Resolution()
    name, _, pointer = model.partition("@")
    adapter = get_adapter(session, project_id, name)
    if pointer.isdecimal() and len(pointer) <= _NUMBER_DIGITS:
        return Resolution(adapter, get_version(session, adapter, int(pointer)))
    if "@" in model and not pointer:
        raise VersionNotFound(f"model {model!r} names no version behind '@'; expected an alias or a number")
    if not pointer and request is not None:
        route = live_route(session, adapter)
        if route is not None:
            return _assigned(adapter, route, request)
    alias = pointer or CHAMPION
    try:
        return Resolution(adapter, get_alias(session, adapter, alias).version, alias)
    except AliasNotFound:
        if not pointer and _is_looped(session, adapter):
            return Resolution(adapter, None, alias)
        raise


def _is_looped(session: Session, adapter: Adapter) -> bool:
    """Whether the adapter has a loop: its agent is there before its first version, and the bare base answers it."""
    query = select(Loop.id).where(Loop.adapter_id == adapter.id, Loop.deleted_at.is_(None))
    return session.scalar(query) is not None


def _assigned(adapter: Adapter, route: Route, request: ServingRequest) -> Resolution:
    versions = {arm.version.number: arm.version for arm in route.arms}
    if route.kind == "shadow":
        main, shadow = (arm.version for arm in route.arms)
        shadowed = is_sampled(route.salt, request.completion_id, route.shadow_share or 0.0)
        return Resolution(adapter, main, CHAMPION, route, shadow if shadowed else None)
    number = choose_version(route.salt, request.session_id or request.completion_id, weights_of(route))
    return Resolution(adapter, versions[number], None, route)
