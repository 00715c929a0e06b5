"""What a deletion forbids to record: answers of a session or a user that were given before it, and come in after."""

import hashlib
import uuid
from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from registry.database import one_of
from registry.models import Deletion
from registry.recordings.call import RecordedCall


def subject_digest(scope: str, identifier: str) -> str:
    """Hash that the record of a deletion keeps instead of the identifier. 64 hex digits."""
    return hashlib.sha256(f"{scope}\n{identifier}".encode()).hexdigest()


def erased_among(session: Session, project_id: uuid.UUID, calls: Sequence[RecordedCall]) -> set[tuple[str, int]]:
    """The calls, by id and choice, whose data was deleted since they were answered, while they waited in a spool."""
    digests = {digest for call in calls for digest in _digests(call)}
    if not digests:
        return set()
    mine = Deletion.project_id == project_id, one_of(Deletion.subject_hash, digests)
    last = select(Deletion.subject_hash, func.max(Deletion.created_at)).where(*mine).group_by(Deletion.subject_hash)
    deleted = dict(session.execute(last).all())
    return {
        (call.completion_id, call.choice)
        for call in calls
        if any(digest in deleted and deleted[digest] >= call.answered_at for digest in _digests(call))
    }


def _digests(call: RecordedCall) -> list[str]:
    subjects = (("session", call.session_id), ("user", call.user), ("user", call.session_id))
    return [subject_digest(scope, name) for scope, name in subjects if name is not None]
