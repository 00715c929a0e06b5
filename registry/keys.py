"""Projects and API keys. A key is shown once and stored as a hash; it has scopes and belongs to one project."""

import hashlib
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from registry.clock import utc_now
from registry.errors import Invalid, KeyNotFound, MissingScope, UnknownKey
from registry.models import SCOPES, ApiKey, Project

DEFAULT_PROJECT = "default"
_CALLER = select(ApiKey.project_id, ApiKey.id, ApiKey.name, ApiKey.scopes, ApiKey.revoked_at).where(
    ApiKey.key_hash == bindparam("key_hash")
)
"""Columns, and no object, in a statement that is made once: each request asks."""


@dataclass(frozen=True)
class Principal:
    """The caller: a key, its project and its scopes."""

    project_id: uuid.UUID
    key_id: uuid.UUID
    name: str
    scopes: frozenset[str]

    @property
    def actor(self) -> str:
        """The caller's name in histories: `key NAME`."""
        return f"key {self.name}"

    def check(self, scope: str) -> None:
        """Raise MissingScope unless the key has `scope` (`admin` has all)."""
        if scope not in self.scopes and "admin" not in self.scopes:
            raise MissingScope(
                f"key {self.name!r} lacks the scope {scope!r}; it has {sorted(self.scopes)}. "
                "Use another key, or make one with `memgen keys create --scope`."
            )


def ensure_bootstrap_key(session: Session, key: str) -> None:
    """Make sure the default project exists and `key` administers it. Harmless when repeated or raced."""
    session.execute(insert(Project).values(name=DEFAULT_PROJECT, id=uuid.uuid4()).on_conflict_do_nothing())
    project = session.scalars(select(Project).where(Project.name == DEFAULT_PROJECT)).one()
    session.execute(
        insert(ApiKey)
        .values(
            id=uuid.uuid4(),
            project_id=project.id,
            name="bootstrap",
            key_hash=_hash(key),
            hint=_hint(key),
            scopes=["admin"],
        )
        .on_conflict_do_nothing()
    )


def create_key(session: Session, project_id: uuid.UUID, name: str, scopes: Sequence[str]) -> tuple[ApiKey, str]:
    """A new key of a project; the second value is the key itself, which can't be read again."""
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise Invalid(f"scopes {unknown or 'none'}; expected one or more of {list(SCOPES)}")
    key = f"mg_{secrets.token_urlsafe(32)}"
    row = ApiKey(project_id=project_id, name=name, key_hash=_hash(key), hint=_hint(key), scopes=sorted(set(scopes)))
    session.add(row)
    session.flush()
    return row, key


def authenticate(session: Session, key: str) -> Principal:
    """The principal of a key.

    Raises:
        UnknownKey: no such key, or it was revoked.
    """
    row = session.execute(_CALLER, {"key_hash": _hash(key)}).one_or_none()
    if row is None or row.revoked_at is not None:
        raise UnknownKey("the API key is not known or was revoked; send `Authorization: Bearer <key>`")
    return Principal(row.project_id, row.id, row.name, frozenset(row.scopes))


def list_keys(session: Session, project_id: uuid.UUID) -> list[ApiKey]:
    return list(session.scalars(select(ApiKey).where(ApiKey.project_id == project_id).order_by(ApiKey.created_at)))


def revoke_key(session: Session, project_id: uuid.UUID, key_id: uuid.UUID) -> ApiKey:
    """Raises KeyNotFound if the project has no such key. Revoking twice is harmless."""
    row = session.get(ApiKey, key_id)
    if row is None or row.project_id != project_id:
        raise KeyNotFound(f"this project has no key {key_id}; `memgen keys list` shows them")
    row.revoked_at = row.revoked_at or utc_now()
    return row


def project_name(session: Session, project_id: uuid.UUID) -> str:
    return session.scalars(select(Project.name).where(Project.id == project_id)).one()


def _hash(key: str) -> str:
    # 256 random bits need no slow hash.
    return hashlib.sha256(key.encode()).hexdigest()


def _hint(key: str) -> str:
    return key[:7]
