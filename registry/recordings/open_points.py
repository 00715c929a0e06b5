"""Points that a conversation goes on from: ends of unfinished runs. Knows no spool, no HTTP, no tokenizer.

The last point of a conversation that is known counts. Where it is a run's end, the run goes on; where runs have gone on
from it already, the conversation is a branch of theirs, and no other run's next turn.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, select
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

    def goes_on_with(self, tools_hash: str | None) -> bool:
        """Whether such a request may go on in a run that differs from such ones in nothing but its tools."""
        return self.goes_on_in(replace(self, tools_hash=tools_hash))

    @property
    def runs_but_for_tools(self) -> list[ColumnElement[bool]]:
        """Rows of runs that differ from such ones in nothing but their tools."""
        task = select(Task.id).where(Task.project_id == self.project_id, Task.name == self.task).scalar_subquery()
        return [Run.project_id == self.project_id, Run.scope == self.scope, Run.task_id == task]


@dataclass(frozen=True)
class OpenPoint:
    """A point of a conversation, by its hash, and the runs that end there."""

    hash: str
    run_ids: tuple[uuid.UUID, ...]


def find_open_point(session: Session, kind: RunKind, hashes: Sequence[str]) -> OpenPoint | None:
    """Where a conversation with these points would go on now; nothing is locked."""
    ends = one_of(Run.tip, hashes), Run.state == "open"
    columns = Run.tip, Run.id, Run.tools_hash
    alike = session.execute(select(*columns).where(*kind.runs_but_for_tools, *ends).order_by(Run.seq))
    rows = [row for row in alike if kind.goes_on_with(row.tools_hash)]
    found = {row.tip for row in rows}
    last = next((place for place in reversed(range(len(hashes))) if hashes[place] in found), None)
    if last is None or _is_known(session, kind, hashes[last + 1 :]):
        return None
    return OpenPoint(hashes[last], tuple(row.id for row in rows if row.tip == hashes[last]))


def _is_known(session: Session, kind: RunKind, hashes: Sequence[str]) -> bool:
    """Whether an unfinished run of the kind has answered one of these points."""
    if not hashes:
        return False
    tools = select(Run.tools_hash).join(RunTurn, Run.id == RunTurn.run_id).distinct()
    known = one_of(RunTurn.hash, hashes), RunTurn.kind == "own", Run.state != "closed"
    return any(kind.goes_on_with(each) for each in session.scalars(tools.where(*kind.runs_but_for_tools, *known)))
