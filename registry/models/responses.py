"""Rows of stored responses: replies that a request asked to be recorded, so that a later one may continue them."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, CheckConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column

from registry.models.declarative import Base, created_at_column, owning_project_id


class StoredResponse(Base):
    """One reply with the input that it answered. Only its expiry is ever written again."""

    __tablename__ = "stored_responses"
    __table_args__ = (
        CheckConstraint("size >= 0", name="size"),
        Index("ix_stored_responses_project_id_session_id", "project_id", "session_id"),
        Index("ix_stored_responses_project_id_user", "project_id", "user"),
    )
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[uuid.UUID] = owning_project_id()
    previous_id: Mapped[str | None] = mapped_column(index=True)
    """The response that this one continues; it may be gone, and then nothing continues this one."""
    session_id: Mapped[str | None]
    user: Mapped[str | None]
    """Whose data it is, where the request says so: its `user`, else `metadata.user`."""
    items: Mapped[list[Any]] = mapped_column(JSON)
    """What this request added to the conversation, as it was sent; JSON that keeps the order of keys."""
    reply: Mapped[dict[str, Any]] = mapped_column(JSON)
    size: Mapped[int]
    """Length of both in bytes of JSON."""
    created_at: Mapped[datetime] = created_at_column()
    expires_at: Mapped[datetime] = mapped_column(index=True)
