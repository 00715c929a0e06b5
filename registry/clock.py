"""The time, always with its zone."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    return datetime.now(UTC)
