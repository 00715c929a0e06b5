"""Calls become turns of runs. Knows no spool, no HTTP, no tokenizer.

A call continues the unfinished run of its scope, task and tools whose last answer its messages go on from; the longest
such conversation, if there are several. Whatever else it holds is its own run: a branch, a retry, a second choice, an
edited history, a new conversation. The assistant turns that it brings along are context there, `copied` where they are
known from another run and `foreign` otherwise.

Calls may come late, from a slower process or from one that was killed. A late call whose answer stands in a run as a
foreign turn takes that place. One that is told to a run after its end still joins it, if it was answered before.

Every call is recorded once, whatever is told how often: its id and choice are a row's key.
"""

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from registry.clock import utc_now
from registry.database import one_of
from registry.models import Run, RunCall, RunTurn
from registry.recordings.call import RecordedCall, size_of
from registry.recordings.erased import is_erased
from registry.recordings.open_points import RunKind, lock_run_to_go_on
from registry.tasks import find_tasks
from registry.trajectories.continuation import TurnEnd, tools_hash, turn_points, with_ids_of

RECORDED = "recorded"
TOO_LARGE = "too_large"
TASK_UNKNOWN = "task_unknown"
DELETED = "deleted"
_CLOCKS_DIFFER = timedelta(seconds=2)
"""By how much the clocks of two replicas may."""


@dataclass(frozen=True)
class Joined:
    """What became of one call."""

    outcome: str
    """`recorded`, `again` for one that was recorded before, or why it was not."""
    run_id: uuid.UUID | None = None


def record_calls(session: Session, calls: Sequence[RecordedCall], *, most_bytes: int) -> list[Joined]:
    """Record calls of one project and scope, in this order.

    Args:
        most_bytes: of a run's messages as JSON; one that reaches it is closed, and a longer call is not recorded.
    """
    project_id, scope = calls[0].project_id, calls[0].scope
    lock_recording(session, project_id, shared=True)
    turn = func.hashtextextended(f"runs of {project_id} in {scope}", 0)
    session.execute(select(func.pg_advisory_xact_lock(turn)))
    tasks = find_tasks(session, project_id, {call.task for call in calls})
    known = _known(session, calls)
    results = []
    for call in calls:
        key = (call.completion_id, call.choice)
        if key in known:
            results.append(Joined("again", known[key]))
        elif call.task not in tasks:
            results.append(Joined(TASK_UNKNOWN))
        elif is_erased(session, call):
            results.append(Joined(DELETED))
        else:
            joined = _record(session, call, tasks[call.task].id, most_bytes)
            known[key] = joined.run_id
            results.append(joined)
    return results


def lock_recording(session: Session, project_id: uuid.UUID, *, shared: bool) -> None:
    """Until the transaction ends: whoever records shares it, a deletion has it alone, and no call slips past it."""
    lock = func.pg_advisory_xact_lock_shared if shared else func.pg_advisory_xact_lock
    session.execute(select(lock(func.hashtextextended(f"recording of {project_id}", 0))))


def _known(session: Session, calls: Sequence[RecordedCall]) -> dict[tuple[str, int], uuid.UUID | None]:
    ids = [call.completion_id for call in calls]
    rows = session.scalars(select(RunCall).where(RunCall.completion_id.in_(ids)))
    return {(row.completion_id, row.choice): row.run_id for row in rows}


def _record(session: Session, call: RecordedCall, task_id: uuid.UUID, most_bytes: int) -> Joined:
    messages = [*call.messages, _answer(call)]
    points = turn_points(messages)
    size = size_of(messages)
    if size > most_bytes:
        return Joined(TOO_LARGE)
    kind = kind_of(call)
    adopted = _adopt(session, call, points[-1], kind)
    if adopted is not None:
        return adopted
    run, known = _continued(session, call, kind, [point.hash for point in points[:-1]])
    if run is None:
        run = _opened(session, call, points, task_id)
    else:
        _take_ids(session, run, call.messages, points[known - 1])
    place = _add_turns(session, run, call, messages, points, known)
    run.tip, run.size, run.turns = points[-1].hash, size, place + 1
    run.calls += 1
    run.last_at = max(run.last_at, call.answered_at)
    run.tools, run.tools_hash = run.tools or call.tools or None, run.tools_hash or tools_hash(call.tools)
    if call.ends_run or size >= most_bytes:
        _end(run, "header" if call.ends_run else "limit", call)
    session.flush()
    _note(session, call, run.id, place)
    return Joined(RECORDED, run.id)


def _answer(call: RecordedCall) -> dict[str, Any]:
    return {"role": "assistant", **{key: value for key, value in call.answer.items() if key != "role"}}


def kind_of(call: RecordedCall) -> RunKind:
    """The kind of the run that it would open."""
    return RunKind(call.project_id, call.scope, call.task, tools_hash(call.tools))


def _adopt(session: Session, call: RecordedCall, point: TurnEnd, kind: RunKind) -> Joined | None:
    """Put a late call where a run that began, or went on, before it came holds its answer as a foreign turn."""
    was_before = RunTurn.at < call.answered_at - _CLOCKS_DIFFER
    found = session.execute(
        select(RunTurn, Run)
        .join(Run, Run.id == RunTurn.run_id)
        .where(
            RunTurn.hash == point.hash,
            RunTurn.kind == "foreign",
            *(() if call.in_any_order else (~was_before,)),
            Run.state != "closed",
            *kind.runs,
        )
        .order_by(Run.seq)
        .limit(1)
        .with_for_update()
    ).one_or_none()
    if found is None:
        return None
    turn, run = found
    turn.kind, turn.at, turn.model = "own", call.answered_at, call.model
    turn.finish_reason, turn.sampled = call.finish_reason, _sampled(call)
    # As it was given: a client may have spelled it anew. What stands in front of it in the row stays.
    before = [each for each in turn.messages if each["role"] != "assistant"]
    echo = [each for each in turn.messages if each["role"] == "assistant"]
    turn.messages = [*before, *with_ids_of([_answer(call)], echo)]
    run.calls += 1
    if call.ends_run:
        _end(run, "header", call)
    session.flush()
    _note(session, call, run.id, turn.place)
    return Joined(RECORDED, run.id)


def _continued(session: Session, call: RecordedCall, kind: RunKind, hashes: list[str]) -> tuple[Run | None, int]:
    """(the run that the call goes on from, how many of its turns it has). Choices behind the first are branches, in
    whichever order they come."""
    if not hashes or call.choice:
        return None, 0
    return lock_run_to_go_on(session, kind, hashes, announced=call.run_id, answered_at=call.answered_at)


def _opened(session: Session, call: RecordedCall, points: Sequence[TurnEnd], task_id: uuid.UUID) -> Run:
    taken = session.get(Run, call.run_id) is not None
    run = Run(
        id=uuid.uuid4() if taken else call.run_id,
        project_id=call.project_id,
        task_id=task_id,
        scope=call.scope,
        session_id=call.session_id,
        user=call.user,
        state="open",
        opened_at=call.requested_at,
        last_at=call.answered_at,
        idle_seconds=call.idle_seconds,
        tip=points[-1].hash,
        size=0,
        turns=0,
        calls=0,
        tools=call.tools or None,
        tools_hash=tools_hash(call.tools),
        details=call.metadata,
        branch_of=None,
    )
    session.add(run)
    return run


def _add_turns(
    session: Session,
    run: Run,
    call: RecordedCall,
    messages: list[Any],
    points: Sequence[TurnEnd],
    known: int,
) -> int:
    """Add the turns behind the first `known`, the answer last. Returns the answer's place."""
    new = points[known:-1]
    elsewhere = _elsewhere(session, call, [point.hash for point in new])
    if not known and new:
        run.branch_of = next((elsewhere[point.hash] for point in reversed(new) if point.hash in elsewhere), None)
    start = points[known - 1].end if known else 0
    place = run.turns
    for point in new:
        kind = "copied" if point.hash in elsewhere else "foreign"
        row = RunTurn(run_id=run.id, place=place, hash=point.hash, kind=kind, at=call.requested_at)
        row.messages = messages[start : point.end]
        session.add(row)
        start, place = point.end, place + 1
    own = RunTurn(run_id=run.id, place=place, hash=points[-1].hash, kind="own", at=call.answered_at)
    own.messages, own.model = messages[start:], call.model
    own.finish_reason, own.sampled = call.finish_reason, _sampled(call)
    session.add(own)
    return place


def _elsewhere(session: Session, call: RecordedCall, hashes: list[str]) -> dict[str, uuid.UUID]:
    """Runs of the same project that know these points, by hash."""
    if not hashes:
        return {}
    rows = session.execute(
        select(RunTurn.hash, RunTurn.run_id)
        .join(Run, Run.id == RunTurn.run_id)
        .where(Run.project_id == call.project_id, one_of(RunTurn.hash, hashes), RunTurn.kind == "own")
        .order_by(Run.seq)
    )
    return {row.hash: row.run_id for row in rows}


def _take_ids(session: Session, run: Run, messages: list[Any], point: TurnEnd) -> None:
    """Let the run's last turn have the ids of calls that the client's results name."""
    turn = session.get(RunTurn, (run.id, run.turns - 1))
    if turn is None:
        return
    before = [each for each in turn.messages if each["role"] != "assistant"]
    own = [each for each in turn.messages if each["role"] == "assistant"]
    renamed = with_ids_of(own, messages[point.start : point.end])
    if renamed is not own:
        turn.messages = [*before, *renamed]


def _sampled(call: RecordedCall) -> dict[str, Any] | None:
    return asdict(call.sampled) if call.sampled is not None else None


def _end(run: Run, reason: str, call: RecordedCall) -> None:
    if run.state == "open":
        run.state, run.close_reason, run.closing_at = "closing", reason, call.answered_at


def _note(session: Session, call: RecordedCall, run_id: uuid.UUID, place: int) -> None:
    session.execute(
        insert(RunCall).values(
            completion_id=call.completion_id,
            choice=call.choice,
            project_id=call.project_id,
            run_id=run_id,
            place=place,
            announced_run_id=call.run_id if call.run_id != run_id else None,
            version_id=call.version_id,
            at=call.answered_at,
        )
    )


def request_close(
    session: Session,
    project_id: uuid.UUID,
    *,
    run_id: uuid.UUID | None = None,
    session_id: str | None = None,
    reason: str = "reward",
) -> list[uuid.UUID]:
    """Close the open runs of a session, or one run. They become trajectories moments later, when what was answered
    before has come in from every process. Returns the ids of all unfinished ones."""
    which = Run.id == run_id if run_id is not None else Run.session_id == session_id
    mine = Run.project_id == project_id, which
    session.execute(
        update(Run)
        .where(*mine, Run.state == "open")
        .values(state="closing", close_reason=reason, closing_at=utc_now())
        .execution_options(synchronize_session="fetch")
    )
    return list(session.scalars(select(Run.id).where(*mine, Run.state != "closed").order_by(Run.seq)))
