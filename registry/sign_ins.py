"""Sign-ins: a browser's stand-in for an API key, so that no page and no cookie holds the key. It ends with its key."""

import hashlib
import secrets
from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from registry.clock import utc_now
from registry.errors import SignInEnded
from registry.keys import Principal, authenticate
from registry.models import ApiKey, SignIn


def sign_in(session: Session, key: str, *, hours: float) -> tuple[str, datetime]:
    """A token that stands for `key` from now on, and when it ends. It can't be read again.

    Raises:
        UnknownKey: no such key, or it was revoked.
    """
    now, token = utc_now(), secrets.token_urlsafe(32)
    session.execute(delete(SignIn).where(SignIn.ends_at < now))
    principal, ends_at = authenticate(session, key), now + timedelta(hours=hours)
    session.add(SignIn(token_hash=_hash(token), key_id=principal.key_id, ends_at=ends_at))
    return token, ends_at


def signed_in(session: Session, token: str) -> Principal:
    """Whose key the token stands for.

    Raises:
        SignInEnded: it has ended, was signed out, or its key was revoked.
    """
    columns = ApiKey.project_id, ApiKey.id, ApiKey.name, ApiKey.scopes
    row = session.execute(
        select(*columns)
        .join(SignIn, SignIn.key_id == ApiKey.id)
        .where(SignIn.token_hash == _hash(token), SignIn.ends_at > utc_now(), ApiKey.revoked_at.is_(None))
    ).one_or_none()
    if row is None:
        raise SignInEnded("you are not signed in, or no longer; sign in with an API key")
    return Principal(row.project_id, row.id, row.name, frozenset(row.scopes))


def sign_out(session: Session, token: str) -> None:
    """End the token. Harmless when repeated."""
    session.execute(delete(SignIn).where(SignIn.token_hash == _hash(token)))


def _hash(token: str) -> str:
    # 256 random bits need no slow hash.
    return hashlib.sha256(token.encode()).hexdigest()
