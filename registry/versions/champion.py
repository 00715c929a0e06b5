"""The champion: the version that answers for the bare adapter name, as the alias of that name says.

Only reads it. Moving an alias is `registry.serving.aliases`; whether the champion may still serve, and so whether a new
version is compared with it, is `registry.gates.baseline`.
"""

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.models import Adapter, Alias, Version
from registry.names import CHAMPION


def champion(session: Session, adapter: Adapter) -> Version | None:
    """None before the first promotion."""
    return session.scalars(
        select(Version)
        .join(Alias, Alias.version_id == Version.id)
        .where(Alias.adapter_id == adapter.id, Alias.name == CHAMPION)
    ).one_or_none()
