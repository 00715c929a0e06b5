"""`Idempotency-Key` on creation: the same request sent again gets the first reply again, and creates nothing.

The reply is stored in the transaction that creates, so either both are there or neither; a second request with the
same key waits for the first.
"""

import hashlib
import uuid
from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import Header
from pydantic import BaseModel
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from registry.clock import utc_now
from registry.errors import IdempotencyMismatch
from registry.models import IdempotentReply

IdempotencyKey = Annotated[
    str | None,
    Header(max_length=200, description="Any unique text; sending it again returns the first reply again"),
]
Reply = TypeVar("Reply", bound=BaseModel)


def once(
    session: Session,
    project_id: uuid.UUID,
    key: str | None,
    request: BaseModel,
    reply_type: type[Reply],
    create: Callable[[], Reply],
) -> Reply:
    """The reply of `create`, or of the request that used this key before.

    Raises:
        IdempotencyMismatch: the key was used with another request.
    """
    if key is None:
        return create()
    endpoint = reply_type.__name__
    request_hash = hashlib.sha256(request.model_dump_json().encode()).hexdigest()
    created = session.scalar(
        insert(IdempotentReply)
        .values(
            project_id=project_id,
            endpoint=endpoint,
            key=key,
            request_hash=request_hash,
            reply={},
            created_at=utc_now(),
        )
        .on_conflict_do_nothing()
        .returning(IdempotentReply.key)
    )
    row = session.get_one(IdempotentReply, (project_id, endpoint, key))
    if created is not None:
        reply = create()
        row.reply = reply.model_dump(mode="json")
        return reply
    if row.request_hash != request_hash:
        raise IdempotencyMismatch(
            f"the Idempotency-Key {key!r} was used before with a different request; use a new key for a new request"
        )
    return reply_type.model_validate(row.reply, strict=False)
