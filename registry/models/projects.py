"""Projects, their keys, and the replies kept for repeated requests."""

import uuid
from datetime import datetime

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from registry.models.declarative import Base, JsonObject, created_at_column, owning_project_id, primary_id

SCOPES = ("read", "write", "train", "promote", "admin")


class Project(Base):
    __tablename__ = "projects"
    id: Mapped[uuid.UUID] = primary_id()
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = created_at_column()


class ApiKey(Base):
    __tablename__ = "api_keys"
    id: Mapped[uuid.UUID] = primary_id()
    project_id: Mapped[uuid.UUID] = owning_project_id()
    name: Mapped[str]
    key_hash: Mapped[str] = mapped_column(unique=True)
    hint: Mapped[str]
    """First characters of the key, for people to tell keys apart."""
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime] = created_at_column()
    revoked_at: Mapped[datetime | None]


class SignIn(Base):
    """A browser that stands in for an API key: it holds a token of its own, and never the key."""

    __tablename__ = "sign_ins"
    token_hash: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = created_at_column()
    ends_at: Mapped[datetime] = mapped_column(index=True)


class IdempotentReply(Base):
    """The reply to a creation, kept so that the same request, sent again, gets the same reply."""

    __tablename__ = "idempotent_replies"
    project_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    endpoint: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_hash: Mapped[str]
    reply: Mapped[JsonObject]
    created_at: Mapped[datetime] = created_at_column()
