"""A batch of calls makes the runs that its calls make one by one: what is asked once is as if asked each time."""

import random
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from registry.clock import utc_now
from registry.database import transaction
from registry.models import Run, RunTurn
from registry.recordings.call import RecordedCall
from registry.wiring import Services
from tests.query_counts import record_queries
from tests.registry.recordings.test_joining import TOOLS, Agent, agent, said, user

__all__ = ["agent"]

Make = Callable[[str], RecordedCall]


def draw(drawing: random.Random, agent: Agent, count: int) -> list[Make]:
    """Calls of conversations with few words, so that they meet: runs that go on, retries, branches, edits, choices,
    ends, and late ones. Each is made for a world of its own, named by what its conversations begin with."""
    begun, made = utc_now() - timedelta(hours=1), []
    ends: list[list[tuple[str, str]]] = [[]]
    for number in range(count):
        turns = list(drawing.choice(ends[-8:]))
        if turns and drawing.random() < 0.15:
            turns[drawing.randrange(len(turns))] = ("edited", drawing.choice("12"))
        asked, answer, options = drawing.choice("ab"), drawing.choice("12"), drawing.randrange(1000)
        ends.append([*turns, (asked, answer)])
        at = begun + timedelta(seconds=number)

        def make(
            world: str,
            number: int = number,
            turns: list[tuple[str, str]] = turns,
            last: tuple[str, str] = (asked, answer),
            options: int = options,
            at: Any = at,
        ) -> RecordedCall:
            messages = [user(world), *(each for ask, say in turns for each in (user(ask), said(say))), user(last[0])]
            call = agent.call(messages, last[1], session_id=f"{world} {options % 2}" if options % 7 else None)
            named = number - options % 3 if options % 5 == 0 else number
            return replace(
                call,
                completion_id=f"{world} {number}",
                choice=int(options % 11 == 0),
                tools=TOOLS if options % 3 == 0 else None,
                ends_run=options % 13 == 0,
                in_any_order=options % 17 == 0,
                requested_at=at,
                answered_at=at + timedelta(seconds=0.5),
                run_id=uuid.uuid5(uuid.NAMESPACE_OID, f"{world} {named}"),
            )

        made.append(make)
    for place in range(0, count - 3, 3):  # some come late
        if drawing.random() < 0.5:
            made[place], made[place + 2] = made[place + 2], made[place]
    return made


def stand(services: Services, world: str, results: list[uuid.UUID | None]) -> Any:
    """Where each call stands, and what the runs are, by the number of their first call."""
    names: dict[uuid.UUID | None, int] = {None: -1}
    for run_id in results:
        names.setdefault(run_id, len(names))
    with transaction(services.sessions) as session:
        runs = [run for run in session.scalars(select(Run).order_by(Run.seq)) if run.id in names]
        facts = [
            (names[run.id], run.state, run.close_reason, run.calls, run.turns, run.size, bool(run.tools_hash))
            for run in runs
        ]
        branches = [names[run.branch_of] for run in runs]
        turns = session.scalars(select(RunTurn).order_by(RunTurn.place)).all()
        told = sorted(
            (names[turn.run_id], turn.place, turn.kind, str(turn.messages).replace(world, ""))
            for turn in turns
            if turn.run_id in names
        )
    return [names[run_id] for run_id in results], sorted(facts), branches, told


@pytest.mark.parametrize("seed", range(6))
def test_a_batch_makes_the_runs_that_its_calls_one_by_one_make(agent: Agent, services: Services, seed: int) -> None:
    made = draw(random.Random(seed), agent, 45)
    single = [each.run_id for make in made for each in agent.record(make("one"))]
    alone = stand(services, "one", single)
    assert {kind for _, _, kind, _ in alone[3]} == {"own", "copied", "foreign"}
    together = [each.run_id for each in agent.record(*(make("all") for make in made))]
    assert stand(services, "all", together) == alone
    parts = [make("few") for make in made]
    split = [each.run_id for start in range(0, 45, 7) for each in agent.record(*parts[start : start + 7])]
    assert stand(services, "few", split) == alone


def test_a_batch_asks_as_much_as_a_few_calls_do(agent: Agent, services: Services) -> None:
    sent = []
    for count in (5, 60):
        calls = [agent.call([user(f"{count} {n}")], "1", session_id=f"{count} {n}") for n in range(count)]
        more = [agent.call([*c.messages, said("1"), user("b")], "2", session_id=c.session_id) for c in calls]
        with record_queries(services.sessions.kw["bind"]) as queries:
            agent.record(*calls, *more)
        sent.append(len(queries))
    assert sent[1] <= sent[0] + 3 < 20, sent
