"""The recording policy that a loop sets, and what a deletion of the loop takes back."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from registry.models import Loop


@dataclass(frozen=True)
class RecordingWish:
    """How the loop's adapter is to be recorded. None leaves what is there, or takes the default for what is not."""

    mode: str | None = None
    share: float | None = None


def restore_recording(session: Session, loop: Loop, *, actor: str) -> list[str]:
    """Take back the policy that the loop set, if it still stands. Returns what stays, for people."""
    return []
