"""Points that a conversation goes on from: ends of unfinished runs. Knows no spool, no HTTP, no tokenizer.

The last point of a conversation that is known counts. Where it is a run's end, the run goes on; where runs have gone on
from it already, the conversation is a branch of theirs, and no other run's next turn.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from registry.database import one_of
from registry.models import Run, RunTurn, Task


@dataclass(frozen=True)
class RunKind:
    """What all requests of one run have in common."""

    project_id: uuid.UUID
    scope: str
    task: str
    """The task's name."""
    tools_hash: str | None

    def goes_on_in(self, run: "RunKind") -> bool:
        """Whether such a request may go on in such a run. Without tools is no other set of them: an agent that wants a
        text and no call leaves them out."""
        same = (self.project_id, self.scope, self.task) == (run.project_id, run.scope, run.task)
        return same and (self.tools_hash is None or run.tools_hash in (None, self.tools_hash))

    @property
    def runs(self) -> list[ColumnElement[bool]]:
        """The same of rows."""
        task = select(Task.id).where(Task.project_id == self.project_id, Task.name == self.task).scalar_subquery()
        mine = [Run.project_id == self.project_id, Run.scope == self.scope, Run.task_id == task]
        if self.tools_hash is not None:
            mine.append(or_(Run.tools_hash.is_(None), Run.tools_hash == self.tools_hash))
        return mine


@dataclass(frozen=True)
class OpenPoint:
    """A point of a conversation, by its hash, and the runs that end there."""

    hash: str
    run_ids: tuple[uuid.UUID, ...]


def find_open_point(session: Session, kind: RunKind, hashes: Sequence[str]) -> OpenPoint | None:
    """Where a conversation with these points would go on now; nothing is locked."""
    ends = one_of(Run.tip, hashes), Run.state == "open"
    rows = session.execute(select(Run.tip, Run.id).where(*kind.runs, *ends).order_by(Run.seq)).all()
    found = {row.tip for row in rows}
    last = next((place for place in reversed(range(len(hashes))) if hashes[place] in found), None)
    if last is None or _is_known(session, kind, hashes[last + 1 :]):
        return None
    return OpenPoint(hashes[last], tuple(row.id for row in rows if row.tip == hashes[last]))


def _is_known(session: Session, kind: RunKind, hashes: Sequence[str]) -> bool:
    """Whether an unfinished run of the kind has answered one of these points."""
    if not hashes:
        return False
    turns = select(RunTurn.hash).join(Run, Run.id == RunTurn.run_id)
    mine = one_of(RunTurn.hash, hashes), RunTurn.kind == "own", Run.state != "closed"
    return session.scalar(turns.where(*kind.runs, *mine).limit(1)) is not None
