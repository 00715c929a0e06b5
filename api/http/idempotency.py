"""`Idempotency-Key` on creation: the same request sent again gets the first reply again, and creates nothing.

The reply is stored in the transaction that creates, so either both are there or neither; a second request with the
same key waits for the first. Keys are kept apart by project and route, such as `POST /v1/jobs`.
"""

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends, Header, Request
from pydantic import BaseModel
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from registry.clock import utc_now
from registry.errors import IdempotencyMismatch
from registry.models import IdempotentReply

FORMER_NAMES = {
    "POST /v1/adapters": "AdapterOut",
    "POST /v1/adapters/{name}/routes": "RouteOut",
    "POST /v1/jobs": "JobOut",
    "POST /v1/schedules": "ScheduleOut",
}
"""What routes were called in stored replies by the release before. The next release drops this and `_former`."""

_Reply = TypeVar("_Reply", bound=BaseModel)


@dataclass(frozen=True)
class Idempotency:
    """What makes a creation repeatable: the caller's key, if there is one, and the route that it was sent to."""

    key: str | None
    route: str


def _idempotency(
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(max_length=200, description="Any unique text; sending it again returns the first reply again"),
    ] = None,
) -> Idempotency:
    return Idempotency(idempotency_key, f"{request.method} {request.scope['route'].path}")


IdempotencyDep = Annotated[Idempotency, Depends(_idempotency)]


def once(
    session: Session,
    project_id: uuid.UUID,
    idempotency: Idempotency,
    request: BaseModel,
    reply_type: type[_Reply],
    create: Callable[[], _Reply],
) -> _Reply:
    """The reply of `create`, or of the request that used this key before.

    Raises:
        IdempotencyMismatch: the key was used with another request.
    """
    route, key = idempotency.route, idempotency.key
    if key is None:
        return create()
    request_hash = hashlib.sha256(request.model_dump_json().encode()).hexdigest()
    row = _former(session, project_id, route, key)
    if row is None:
        created = session.scalar(
            insert(IdempotentReply)
            .values(
                project_id=project_id,
                endpoint=route,
                key=key,
                request_hash=request_hash,
                reply={},
                created_at=utc_now(),
            )
            .on_conflict_do_nothing()
            .returning(IdempotentReply.key)
        )
        row = session.get_one(IdempotentReply, (project_id, route, key))
        if created is not None:
            reply = create()
            row.reply = reply.model_dump(mode="json")
            return reply
    if row.request_hash != request_hash:
        raise IdempotencyMismatch(
            f"the Idempotency-Key {key!r} was used before with a different request; use a new key for a new request"
        )
    return reply_type.model_validate(row.reply, strict=False)


def _former(session: Session, project_id: uuid.UUID, route: str, key: str) -> IdempotentReply | None:
    """The reply that the release before stored: a request may have been sent to it, and be sent again to this one.

    While processes of both releases serve at once, one key sent to both at the same moment can create twice.
    """
    name = FORMER_NAMES.get(route)
    return None if name is None else session.get(IdempotentReply, (project_id, name, key))
