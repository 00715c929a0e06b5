"""Which version answers: from an OpenAI `model` name to a version or the bare base."""

import uuid
from dataclasses import dataclass

from sqlalchemy.orm import Session

from registry.adapters import get_adapter
from registry.aliases import CHAMPION, get_alias
from registry.errors import VersionNotFound
from registry.models import Adapter, Version
from registry.versions import get_version

BASE = "base"


@dataclass(frozen=True)
class Served:
    adapter: Adapter | None = None
    version: Version | None = None
    """None is the bare base."""
    alias: str | None = None

    @property
    def label(self) -> str:
        """The exact version: `support-bot@7`, or `base`."""
        if self.adapter is None or self.version is None:
            return BASE
        return f"{self.adapter.name}@{self.version.number}"


def find_served(session: Session, project_id: uuid.UUID, model: str) -> Served:
    """Resolve `base`, `adapter` (its champion), `adapter@alias` or `adapter@7`.

    Raises:
        AdapterNotFound, AliasNotFound, VersionNotFound: with what exists.
    """
    if model == BASE:
        return Served()
    name, _, pointer = model.partition("@")
    adapter = get_adapter(session, project_id, name)
    if pointer.isdecimal():
        return Served(adapter, get_version(session, adapter, int(pointer)))
    if "@" in model and not pointer:
        raise VersionNotFound(f"model {model!r} names no version behind '@'; expected an alias or a number")
    alias = pointer or CHAMPION
    return Served(adapter, get_alias(session, adapter, alias).version, alias)
