"""Stored responses: replies recorded because their request asked for it, for a later request to go on from.

Nothing is recorded otherwise. They expire, are deleted by their id, and go with the session or the user whose data they
are. One that continues another says which; a conversation whose beginning is gone can't be continued.
"""

import json
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import CTE, ColumnElement, delete, func, literal, or_, select, update
from sqlalchemy.orm import Session

from registry.clock import utc_now
from registry.database import one_of
from registry.errors import InvalidTrajectory, ResponseNotFound
from registry.json_text import is_storable, show
from registry.models import StoredResponse

_SWEPT_AT_ONCE = 1000


@dataclass(frozen=True)
class ResponseOwner:
    """Whose data a response is, by which a deletion finds it."""

    session_id: str | None = None
    user: str | None = None


def store_response(
    session: Session,
    project_id: uuid.UUID,
    reply: dict[str, Any],
    items: list[Any],
    owner: ResponseOwner,
    lifetime: timedelta,
) -> None:
    """Record a reply under its `id`, with the items that it answered. All that it continues lives as long as it."""
    expires_at = utc_now() + lifetime
    previous_id = reply["previous_response_id"]
    session.add(
        StoredResponse(
            id=reply["id"],
            project_id=project_id,
            previous_id=previous_id,
            session_id=owner.session_id,
            user=owner.user,
            items=items,
            reply=reply,
            size=len(json.dumps(items)) + len(json.dumps(reply)),
            expires_at=expires_at,
        )
    )
    if previous_id is not None:
        chain = _chain(project_id, previous_id, utc_now(), most_bytes=None)
        mine = StoredResponse.project_id == project_id, StoredResponse.id.in_(select(chain.c.id))
        session.execute(
            update(StoredResponse).where(*mine).values(expires_at=func.greatest(StoredResponse.expires_at, expires_at)),
            execution_options={"synchronize_session": False},
        )


def get_response(session: Session, project_id: uuid.UUID, response_id: str) -> StoredResponse:
    """Raises ResponseNotFound."""
    found = session.get(StoredResponse, response_id) if is_storable(response_id) else None
    if found is None or found.project_id != project_id or found.expires_at <= utc_now():
        raise ResponseNotFound(_nowhere(response_id))
    return found


def delete_response(session: Session, project_id: uuid.UUID, response_id: str) -> None:
    """Remove one. Those that continue it stay, and can't be continued any more. Raises ResponseNotFound."""
    session.delete(get_response(session, project_id, response_id))


def conversation_of(session: Session, project_id: uuid.UUID, response_id: str, most_bytes: int) -> list[StoredResponse]:
    """The responses from the conversation's first to this one, in one query.

    Args:
        most_bytes: length of a conversation up to which it is read.

    Raises:
        InvalidTrajectory: it was never recorded, or some of what it continues is gone, or it is too long.
    """
    if not is_storable(response_id):
        raise InvalidTrajectory("previous_response_not_found", f"previous_response_id: {_nowhere(response_id)}")
    chain = _chain(project_id, response_id, utc_now(), most_bytes=most_bytes)
    query = select(StoredResponse, chain.c.total).join(chain, chain.c.id == StoredResponse.id)
    rows = session.execute(query.order_by(chain.c.depth.desc())).all()
    if not rows:
        raise InvalidTrajectory("previous_response_not_found", f"previous_response_id: {_nowhere(response_id)}")
    if rows[0].total > most_bytes:
        raise InvalidTrajectory(
            "conversation_too_long",
            f"previous_response_id: the conversation up to {response_id} has more than {most_bytes} bytes "
            "(MEMGEN_MAX_CHAT_BYTES); send what matters of it as input instead",
        )
    found = [row[0] for row in rows]
    if (missing := found[0].previous_id) is not None:
        raise InvalidTrajectory(
            "previous_response_not_found",
            f"previous_response_id: {response_id} goes back to {missing}, which was deleted or has expired; send the "
            "conversation as input instead",
        )
    return found


def count_responses(session: Session, project_id: uuid.UUID, sessions: tuple[str, ...], user: str | None) -> int:
    """How many `forget_responses` would remove."""
    query = select(func.count()).where(StoredResponse.project_id == project_id, _owned(sessions, user))
    return session.scalars(query).one()


def forget_responses(session: Session, project_id: uuid.UUID, sessions: tuple[str, ...], user: str | None) -> None:
    """Remove the responses of these sessions, and of this user."""
    session.execute(delete(StoredResponse).where(StoredResponse.project_id == project_id, _owned(sessions, user)))


def sweep_responses(session: Session, now: datetime) -> int:
    """Remove some that have expired. Returns how many they were; 0 if there are none."""
    expired = select(StoredResponse.id).where(StoredResponse.expires_at <= now).limit(_SWEPT_AT_ONCE)
    gone = delete(StoredResponse).where(StoredResponse.id.in_(expired.with_for_update(skip_locked=True)))
    return len(session.scalars(gone.returning(StoredResponse.id)).all())


def _owned(sessions: tuple[str, ...], user: str | None) -> ColumnElement[bool]:
    of_session = one_of(StoredResponse.session_id, sessions)
    return of_session if user is None else or_(of_session, StoredResponse.user == user)


def _chain(project_id: uuid.UUID, response_id: str, now: datetime, *, most_bytes: int | None) -> CTE:
    """A response and what it continues, newest first, with the bytes up to each; it ends behind `most_bytes`."""
    alive = StoredResponse.project_id == project_id, StoredResponse.expires_at > now
    columns = StoredResponse.id, StoredResponse.previous_id
    first = select(*columns, StoredResponse.size.label("total"), literal(0).label("depth"))
    chain = first.where(StoredResponse.id == response_id, *alive).cte("chain", recursive=True)
    following = select(*columns, chain.c.total + StoredResponse.size, chain.c.depth + 1)
    following = following.join(chain, chain.c.previous_id == StoredResponse.id).where(*alive)
    if most_bytes is not None:
        following = following.where(chain.c.total <= most_bytes)
    return chain.union_all(following)


def _nowhere(response_id: str) -> str:
    return (
        f"no response {show(response_id)} is recorded in this project; only those requested with store: true are, "
        "until they expire or are deleted. Send the conversation as input instead"
    )
