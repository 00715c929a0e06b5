"""What a deletion forbids to record: answers of a session or a user that were given before it, and come in after."""

import hashlib

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from registry.models import Deletion
from registry.recordings.call import RecordedCall


def subject_digest(scope: str, identifier: str) -> str:
    """Hash that the record of a deletion keeps instead of the identifier. 64 hex digits."""
    return hashlib.sha256(f"{scope}\n{identifier}".encode()).hexdigest()


def is_erased(session: Session, call: RecordedCall) -> bool:
    """Whether the data was deleted since it was answered: it waited in a spool meanwhile."""
    subjects = (("session", call.session_id), ("user", call.user), ("user", call.session_id))
    digests = [subject_digest(scope, name) for scope, name in subjects if name is not None]
    if not digests:
        return False
    later = exists().where(
        Deletion.project_id == call.project_id,
        Deletion.subject_hash.in_(digests),
        Deletion.created_at >= call.answered_at,
    )
    return bool(session.scalar(select(later)))
