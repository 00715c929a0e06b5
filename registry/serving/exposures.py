"""Exposures: which version gave which answer. Each answer has one row, which is there before the answer is sent.

It is written while the answer is made. A process that is killed meanwhile leaves the row of an answer that nobody got.
"""

import uuid

from sqlalchemy import delete
from sqlalchemy.orm import Session, joinedload

from registry.errors import CompletionNotFound, Invalid
from registry.json_text import is_storable, show
from registry.models import Exposure
from registry.names import MAX_SESSION_CHARACTERS
from registry.serving.resolution import Resolution


def record_exposure(
    session: Session, project_id: uuid.UUID, completion_id: str, resolution: Resolution, session_id: str | None
) -> None:
    """Stamp an answer with the version and the route as they were when it was begun."""
    session.add(
        Exposure(
            completion_id=completion_id,
            project_id=project_id,
            version_id=resolution.version.id if resolution.version else None,
            route_id=resolution.route.id if resolution.route else None,
            session_id=session_id,
        )
    )


def forget_exposure(session: Session, completion_id: str) -> None:
    """Take the stamp of an answer back that was begun and never given."""
    session.execute(delete(Exposure).where(Exposure.completion_id == completion_id))


def record_upstream_exposure(
    session: Session, project_id: uuid.UUID, completion_id: str, model: str, session_id: str | None
) -> None:
    """Stamp an answer with the upstream's model that gives it, as `strong/gpt-5`. It has no version and no route."""
    session.add(Exposure(completion_id=completion_id, project_id=project_id, upstream=model, session_id=session_id))


def get_exposure(session: Session, project_id: uuid.UUID, completion_id: str) -> Exposure:
    """Raises CompletionNotFound."""
    options = [joinedload(Exposure.version)]
    found = session.get(Exposure, completion_id, options=options) if is_storable(completion_id) else None
    if found is None or found.project_id != project_id:
        raise CompletionNotFound(
            f"no answer with the id {show(completion_id)} in this project; send the `id` of a chat completion"
        )
    return found


def check_session_id(session_id: str) -> str:
    """Raises Invalid."""
    if not 0 < len(session_id) <= MAX_SESSION_CHARACTERS or not is_storable(session_id):
        raise Invalid(
            f"session id {show(session_id)}; expected 1 to {MAX_SESSION_CHARACTERS} characters, none of them NUL"
        )
    return session_id
