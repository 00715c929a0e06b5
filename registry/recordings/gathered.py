"""What the database knows of the runs that a batch of calls may touch, and what the batch makes of them.

Each kind of question is asked once for all calls, and all is written at the end: on a busy machine every question costs
a wait for the database's turn, however small it is.

Whoever gathers has the scopes of the calls alone, so nobody else goes on with their runs meanwhile. What ends runs (a
closing, a reward) waits for the rows, which are locked in the order of their `seq`.
"""

import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import TableValuedAlias, Text, column, func, insert, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from registry.database import one_of
from registry.models import Run, RunCall, RunTurn
from registry.recordings.call import RecordedCall
from registry.recordings.open_points import RunKind
from registry.trajectories.continuation import TurnEnd


@dataclass(frozen=True)
class ReadCall:
    """A call with what is computed of it once."""

    call: RecordedCall
    task_id: uuid.UUID
    kind: RunKind
    """The kind of the runs that it may stand in."""
    messages: list[Any]
    """The request's with the answer."""
    points: list[TurnEnd]
    """The answer's is the last."""

    @property
    def asked(self) -> list[str]:
        """The hashes of the points that the request brought along."""
        return [point.hash for point in self.points[:-1]]


class GatheredRuns:
    """Runs of one project. What is asked of it is as the database would answer if all before were written."""

    def __init__(self, session: Session, project_id: uuid.UUID, calls: Sequence[ReadCall]) -> None:
        self._session, self._project_id = session, project_id
        self._tasks = {each.task_id: each.call.task for each in calls}
        self._places: dict[uuid.UUID, int] = {}
        """The order of runs: those of the database by `seq`, then new ones as they came."""
        self._runs: dict[uuid.UUID, Run] = {}
        self._by_tip: dict[tuple[str, str], list[Run]] = {}
        """Unfinished runs by (scope, tip)."""
        self._foreign: dict[str, list[tuple[RunTurn, Run]]] = {}
        """Foreign turns of unfinished runs by hash."""
        self._own: dict[str, list[Any]] = {}
        """By hash: runs, or columns of such, that have answered it. Of hashes that were looked up."""
        self._turns: dict[tuple[uuid.UUID, int], RunTurn] = {}
        self._new: list[Run | RunTurn] = []
        self._calls: list[dict[str, object]] = []
        self._read_runs(calls)
        self._read_last_turns(calls)
        self._read_own(_unmatched(calls, self._by_tip))
        named = [each.call.run_id for each in calls]
        self._taken = set(session.scalars(select(Run.id).where(one_of(Run.id, named))))

    def find_tip(self, call: ReadCall) -> tuple[list[Run], int]:
        """(runs that take the call and end at the last possible one of its turns, how many turns that are)."""
        asked = call.asked
        for length in range(len(asked), 0, -1):
            ends = self._by_tip.get((call.call.scope, asked[length - 1]), ())
            fit = [run for run in ends if self._fits(call, run) and _is_open(run, call.call.answered_at)]
            if fit:
                return self._in_order(fit), length
        return [], 0

    def find_foreign(self, call: ReadCall) -> list[tuple[RunTurn, Run]]:
        """Foreign turns of unfinished runs that are the call's answer."""
        found = [each for each in self._foreign.get(call.points[-1].hash, ()) if self._fits(call, each[1])]
        return sorted(found, key=lambda each: self._places[each[1].id])

    def is_known(self, call: ReadCall, hashes: Sequence[str]) -> bool:
        """Whether an unfinished run that the call may stand in has answered one of these points."""
        self._read_own(hashes)
        runs = (run for point in hashes for run in self._own[point])
        return any(run.state != "closed" and self._fits(call, run) for run in runs)

    def find_elsewhere(self, hashes: Sequence[str]) -> dict[str, uuid.UUID]:
        """The newest run that has answered each of these points, where there is one."""
        self._read_own(hashes)
        return {point: max(runs, key=self._place_of).id for point in hashes if (runs := self._own[point])}

    def is_taken(self, run_id: uuid.UUID) -> bool:
        return run_id in self._taken

    def last_turn(self, run: Run) -> RunTurn | None:
        key = run.id, run.turns - 1
        if key not in self._turns and (found := self._session.get(RunTurn, key)) is not None:
            self._turns[key] = found
        return self._turns.get(key)

    def add_run(self, run: Run) -> None:
        self._taken.add(run.id)
        self._know_run(run)
        self._new.append(run)

    def add_turn(self, run: Run, turn: RunTurn) -> None:
        self._turns[turn.run_id, turn.place] = turn
        self._new.append(turn)
        if turn.kind == "foreign":
            self._foreign.setdefault(turn.hash, []).append((turn, run))
        elif turn.kind == "own":
            self._add_own(turn.hash, run)

    def make_own(self, run: Run, turn: RunTurn) -> None:
        """Its answer has come."""
        turn.kind = "own"
        self._foreign[turn.hash].remove((turn, run))
        self._add_own(turn.hash, run)

    def move_tip(self, run: Run, tip: str) -> None:
        before = self._by_tip.get((run.scope, run.tip), [])
        if run in before:
            before.remove(run)
        run.tip = tip
        self._by_tip.setdefault((run.scope, tip), []).append(run)

    def add_call(self, row: dict[str, object]) -> None:
        """Columns of a `RunCall`."""
        self._calls.append(row)

    def write(self) -> None:
        self._session.add_all(self._new)
        self._session.flush()
        if self._calls:
            # With its nulls: rows of other columns would be other statements.
            self._session.execute(insert(RunCall), self._calls, execution_options={"render_nulls": True})

    def _read_runs(self, calls: Sequence[ReadCall]) -> None:
        """Read and lock the unfinished runs that end where a call goes on, or have an answer as a foreign turn."""
        wanted = {(each.call.scope, point) for each in calls for point in each.asked}
        answers = {each.points[-1].hash for each in calls}
        mine = Run.project_id == self._project_id, Run.state != "closed"
        ends = _pairs(wanted)
        there = (ends.c.scope == Run.scope) & (ends.c.tip == Run.tip)
        ids = list(self._session.scalars(select(Run.id).join(ends, there).where(*mine))) if wanted else []
        foreign = RunTurn.kind == "foreign", one_of(RunTurn.hash, answers)
        rows = self._session.execute(
            select(RunTurn.run_id, RunTurn.place)
            .join(Run, Run.id == RunTurn.run_id)
            .where(*mine, *foreign, one_of(Run.scope, {each.call.scope for each in calls}))
        )
        turns = [(run_id, place) for run_id, place in rows]
        ids += [run_id for run_id, _ in turns]
        if not ids:
            return
        locked = select(Run).where(one_of(Run.id, ids), Run.state != "closed").order_by(Run.seq).with_for_update()
        for run in self._session.scalars(locked):
            self._know_run(run)
        for key in turns:
            holder = self._runs.get(key[0])
            turn = self._session.get(RunTurn, key) if holder is not None else None
            if holder is not None and turn is not None:
                self._turns[key] = turn
                self._foreign.setdefault(turn.hash, []).append((turn, holder))

    def _read_last_turns(self, calls: Sequence[ReadCall]) -> None:
        """Read the last turns of runs whose ids of calls a request may have replaced."""
        runs = {
            run.id: run
            for each in calls
            for point in each.points[:-1]
            if any(message.get("tool_calls") for message in each.messages[point.start : point.end])
            for run in self._by_tip.get((each.call.scope, point.hash), ())
        }
        if runs:
            last = select(RunTurn).join(Run, Run.id == RunTurn.run_id).where(RunTurn.place == Run.turns - 1)
            for turn in self._session.scalars(last.where(one_of(Run.id, list(runs)))):
                self._turns[turn.run_id, turn.place] = turn

    def _read_own(self, hashes: Iterable[str]) -> None:
        """Look up which runs of the project have answered these points."""
        unknown = list({point for point in hashes if point not in self._own})
        if not unknown:
            return
        self._own |= {point: [] for point in unknown}
        columns = RunTurn.hash, Run.id, Run.seq, Run.state, Run.scope, Run.task_id, Run.tools_hash
        rows = self._session.execute(
            select(*columns)
            .join(Run, Run.id == RunTurn.run_id)
            .where(Run.project_id == self._project_id, RunTurn.kind == "own", one_of(RunTurn.hash, unknown))
            .order_by(Run.seq)
        )
        for row in rows:
            self._own[row.hash].append(self._runs.get(row.id, row))
        for turn in self._new:  # what is not written yet
            if isinstance(turn, RunTurn) and turn.kind == "own" and turn.hash in unknown:
                self._own[turn.hash].append(self._runs[turn.run_id])

    def _fits(self, call: ReadCall, run: Any) -> bool:
        """Whether a call may stand in a run, of which the columns are enough."""
        task = self._tasks.get(run.task_id)
        return task is not None and call.kind.goes_on_in(RunKind(self._project_id, run.scope, task, run.tools_hash))

    def _add_own(self, point: str, run: Run) -> None:
        if point in self._own:
            self._own[point].append(run)

    def _know_run(self, run: Run) -> None:
        self._runs[run.id] = run
        self._places[run.id] = len(self._places)
        self._by_tip.setdefault((run.scope, run.tip), []).append(run)

    def _in_order(self, runs: Iterable[Run]) -> list[Run]:
        return sorted(runs, key=lambda run: self._places[run.id])

    def _place_of(self, run: Any) -> tuple[bool, int]:
        """New runs have no `seq` yet, and are the last."""
        return run.seq is None, self._places[run.id] if run.seq is None else run.seq


def _unmatched(calls: Sequence[ReadCall], by_tip: dict[tuple[str, str], list[Run]]) -> set[str]:
    """The points of each request behind the last one at which a run ends."""
    found: set[str] = set()
    for each in calls:
        for point in reversed(each.asked):
            if by_tip.get((each.call.scope, point)):
                break
            found.add(point)
    return found


def _is_open(run: Run, answered_at: datetime) -> bool:
    ends_later = run.state == "closing" and run.closing_at is not None and run.closing_at >= answered_at
    return run.state == "open" or ends_later


def _pairs(wanted: Collection[tuple[str, str]]) -> TableValuedAlias:
    """A table of (scope, tip): each is looked up in the index of both."""
    scopes, tips = ([pair[place] for pair in wanted] for place in (0, 1))
    pairs = func.unnest(literal(scopes, ARRAY(Text)), literal(tips, ARRAY(Text)))
    return pairs.table_valued(column("scope", Text), column("tip", Text), name="ends").render_derived()
