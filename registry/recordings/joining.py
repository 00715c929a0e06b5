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
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Text, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from registry.database import one_of
from registry.models import Run, RunCall, RunTurn
from registry.recordings.call import RecordedCall, size_of
from registry.recordings.erased import erased_among
from registry.recordings.gathered import GatheredRuns, ReadCall
from registry.recordings.open_points import RunKind
from registry.tasks import find_tasks
from registry.trajectories.continuation import TurnEnd, tools_hash, turn_points, with_ids_of

RECORDED = "recorded"
AGAIN = "again"
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
    """Record calls of one project, in this order.

    Args:
        most_bytes: of a run's messages as JSON; one that reaches it is closed, and a longer call is not recorded.
    """
    project_id = calls[0].project_id
    lock_recording(session, project_id, shared=True)
    _lock_scopes(session, project_id, {call.scope for call in calls})
    tasks = find_tasks(session, project_id, {call.task for call in calls})
    known, erased = _known(session, calls), erased_among(session, project_id, calls)
    read = {id(call): _read(call, tasks[call.task].id) for call in calls if call.task in tasks}
    gathered = GatheredRuns(session, project_id, list(read.values()))
    results = []
    for call in calls:
        key = (call.completion_id, call.choice)
        if key in known:
            results.append(Joined(AGAIN, known[key]))
        elif call.task not in tasks:
            results.append(Joined(TASK_UNKNOWN))
        elif key in erased:
            results.append(Joined(DELETED))
        else:
            joined = _record(gathered, read[id(call)], most_bytes)
            known[key] = joined.run_id
            results.append(joined)
    gathered.write()
    return results


def lock_recording(session: Session, project_id: uuid.UUID, *, shared: bool) -> None:
    """Until the transaction ends: whoever records shares it, a deletion has it alone, and no call slips past it."""
    lock = func.pg_advisory_xact_lock_shared if shared else func.pg_advisory_xact_lock
    session.execute(select(lock(func.hashtextextended(f"recording of {project_id}", 0))))


def _lock_scopes(session: Session, project_id: uuid.UUID, scopes: Collection[str]) -> None:
    """Until the transaction ends: what is said in one scope is recorded by one after the other. All take their scopes'
    locks in one order."""
    names = [f"runs of {project_id} in {scope}" for scope in scopes]
    name = func.unnest(literal(names, ARRAY(Text))).column_valued("name")
    keys = select(func.hashtextextended(name, 0).label("key")).distinct().order_by("key").subquery()
    session.execute(select(func.pg_advisory_xact_lock(keys.c.key)))


def _known(session: Session, calls: Sequence[RecordedCall]) -> dict[tuple[str, int], uuid.UUID | None]:
    ids = [call.completion_id for call in calls]
    rows = session.scalars(select(RunCall).where(one_of(RunCall.completion_id, ids)))
    return {(row.completion_id, row.choice): row.run_id for row in rows}


def _read(call: RecordedCall, task_id: uuid.UUID) -> ReadCall:
    messages = [*call.messages, _answer(call)]
    return ReadCall(call, task_id, kind_of(call), messages, turn_points(messages))


def _record(gathered: GatheredRuns, read: ReadCall, most_bytes: int) -> Joined:
    call, points = read.call, read.points
    size = size_of(read.messages)
    if size > most_bytes:
        return Joined(TOO_LARGE)
    adopted = _adopt(gathered, read)
    if adopted is not None:
        return adopted
    run, known = _continued(gathered, read)
    if run is None:
        run = _opened(gathered, read)
    else:
        _take_ids(gathered, run, call.messages, points[known - 1])
    place = _add_turns(gathered, run, read, known)
    gathered.move_tip(run, points[-1].hash)
    run.size, run.turns = size, place + 1
    run.calls += 1
    run.last_at = max(run.last_at, call.answered_at)
    run.tools, run.tools_hash = run.tools or call.tools or None, run.tools_hash or read.kind.tools_hash
    if call.ends_run or size >= most_bytes:
        _end(run, "header" if call.ends_run else "limit", call)
    _note(gathered, call, run.id, place)
    return Joined(RECORDED, run.id)


def _answer(call: RecordedCall) -> dict[str, Any]:
    return {"role": "assistant", **{key: value for key, value in call.answer.items() if key != "role"}}


def kind_of(call: RecordedCall) -> RunKind:
    """The kind of the run that it would open."""
    return RunKind(call.project_id, call.scope, call.task, tools_hash(call.tools))


def _adopt(gathered: GatheredRuns, read: ReadCall) -> Joined | None:
    """Put a late call where a run that began, or went on, before it came holds its answer as a foreign turn."""
    call = read.call
    oldest = call.answered_at - _CLOCKS_DIFFER
    found = [each for each in gathered.find_foreign(read) if call.in_any_order or each[0].at >= oldest]
    if not found:
        return None
    turn, run = found[0]
    gathered.make_own(run, turn)
    turn.at, turn.model = call.answered_at, call.model
    turn.finish_reason, turn.sampled = call.finish_reason, _sampled(call)
    # As it was given: a client may have spelled it anew. What stands in front of it in the row stays.
    before = [each for each in turn.messages if each["role"] != "assistant"]
    echo = [each for each in turn.messages if each["role"] == "assistant"]
    turn.messages = [*before, *with_ids_of([_answer(call)], echo)]
    run.calls += 1
    if call.ends_run:
        _end(run, "header", call)
    _note(gathered, call, run.id, turn.place)
    return Joined(RECORDED, run.id)


def _continued(gathered: GatheredRuns, read: ReadCall) -> tuple[Run | None, int]:
    """(the run that the call goes on from, how many of its turns it has); of equal runs the one that its answer named.
    Choices behind the first are branches, in whichever order they come."""
    if read.call.choice:
        return None, 0
    runs, length = gathered.find_tip(read)
    if not runs or gathered.is_known(read, read.asked[length:]):
        return None, 0
    return max(runs, key=lambda run: run.id == read.call.run_id), length


def _opened(gathered: GatheredRuns, read: ReadCall) -> Run:
    call = read.call
    run = Run(
        id=uuid.uuid4() if gathered.is_taken(call.run_id) else call.run_id,
        project_id=call.project_id,
        task_id=read.task_id,
        scope=call.scope,
        session_id=call.session_id,
        user=call.user,
        state="open",
        opened_at=call.requested_at,
        last_at=call.answered_at,
        idle_seconds=call.idle_seconds,
        tip=read.points[-1].hash,
        size=0,
        turns=0,
        calls=0,
        tools=call.tools or None,
        tools_hash=read.kind.tools_hash,
        details=call.metadata,
        branch_of=None,
    )
    gathered.add_run(run)
    return run


def _add_turns(gathered: GatheredRuns, run: Run, read: ReadCall, known: int) -> int:
    """Add the turns behind the first `known`, the answer last. Returns the answer's place."""
    call, points, messages = read.call, read.points, read.messages
    new = points[known:-1]
    elsewhere = gathered.find_elsewhere([point.hash for point in new])
    if not known and new:
        run.branch_of = next((elsewhere[point.hash] for point in reversed(new) if point.hash in elsewhere), None)
    start = points[known - 1].end if known else 0
    place = run.turns
    for point in new:
        kind = "copied" if point.hash in elsewhere else "foreign"
        turn = RunTurn(run_id=run.id, place=place, hash=point.hash, kind=kind, at=call.requested_at)
        turn.messages = messages[start : point.end]
        gathered.add_turn(run, turn)
        start, place = point.end, place + 1
    own = RunTurn(run_id=run.id, place=place, hash=points[-1].hash, kind="own", at=call.answered_at)
    own.messages, own.model = messages[start:], call.model
    own.finish_reason, own.sampled = call.finish_reason, _sampled(call)
    gathered.add_turn(run, own)
    return place


def _take_ids(gathered: GatheredRuns, run: Run, messages: list[Any], point: TurnEnd) -> None:
    """Let the run's last turn have the ids of calls that the client's results name."""
    echo = messages[point.start : point.end]
    if not any(each.get("tool_calls") for each in echo):
        return
    turn = gathered.last_turn(run)
    if turn is None:
        return
    before = [each for each in turn.messages if each["role"] != "assistant"]
    own = [each for each in turn.messages if each["role"] == "assistant"]
    renamed = with_ids_of(own, echo)
    if renamed is not own:
        turn.messages = [*before, *renamed]


def _sampled(call: RecordedCall) -> dict[str, Any] | None:
    return asdict(call.sampled) if call.sampled is not None else None


def _end(run: Run, reason: str, call: RecordedCall) -> None:
    if run.state == "open":
        run.state, run.close_reason, run.closing_at = "closing", reason, call.answered_at


def _note(gathered: GatheredRuns, call: RecordedCall, run_id: uuid.UUID, place: int) -> None:
    gathered.add_call(
        {
            "completion_id": call.completion_id,
            "choice": call.choice,
            "project_id": call.project_id,
            "run_id": run_id,
            "place": place,
            "announced_run_id": call.run_id if call.run_id != run_id else None,
            "version_id": call.version_id,
            "at": call.answered_at,
        }
    )
