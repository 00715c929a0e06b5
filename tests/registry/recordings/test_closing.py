"""What it costs to look for runs that are due: every process does it every second."""

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from registry.clock import utc_now
from registry.database import transaction
from registry.models import Run
from registry.recordings.closing import bring_back, due_projects
from registry.wiring import Services
from tests.registry.recordings.test_joining import Agent, agent, user

__all__ = ["agent"]

Look = Callable[[Session], object]


def open_many(services: Services, like: uuid.UUID, count: int) -> None:
    """Runs that were answered just now, in which nothing is due."""
    with transaction(services.sessions) as session:
        run = session.get_one(Run, like)
        unlike = {"id", "seq", "opened_at", "last_at"}
        same = {each.key: getattr(run, each.key) for each in sa.inspect(Run).column_attrs if each.key not in unlike}
        rows = [{"id": uuid.uuid4(), "opened_at": utc_now(), "last_at": utc_now(), **same} for _ in range(count)]
        session.execute(sa.insert(Run), rows, execution_options={"render_nulls": True})
        session.execute(sa.text("analyze runs"))


def plan_of(services: Services, look: Look) -> str:
    """How PostgreSQL goes about the last statement of a look."""
    engine: sa.Engine = services.sessions.kw["bind"]
    sent: list[tuple[str, Any]] = []

    def note(connection: object, cursor: object, statement: str, parameters: Any, *_: object) -> None:
        sent.append((statement, parameters))

    sa.event.listen(engine, "before_cursor_execute", note)
    with transaction(services.sessions) as session:
        look(session)
        session.flush()
    sa.event.remove(engine, "before_cursor_execute", note)
    statement, parameters = sent[-1]
    with engine.connect() as connection:
        return "\n".join(line for (line,) in connection.exec_driver_sql(f"explain {statement}", parameters))


@pytest.mark.parametrize(
    ("look", "indexes"),
    [
        (lambda session: due_projects(session), {"ix_runs_idle_at", "ix_runs_closing_at"}),
        (lambda session: bring_back(session, utc_now()), {"ix_runs_unfinished", "ix_runs_closing_at"}),
    ],
    ids=["due", "set back"],
)
def test_what_is_due_is_looked_up_however_many_runs_are_open(
    agent: Agent, services: Services, look: Look, indexes: set[str]
) -> None:
    open_many(services, agent.send([user("a")], "1"), 2000)
    plan = plan_of(services, look)
    assert "Seq Scan" not in plan, plan
    assert all(index in plan for index in indexes), plan


def test_a_run_is_due_at_the_second_that_ends_its_silence(agent: Agent, services: Services) -> None:
    run = agent.run(agent.send([user("a")], "1", idle_seconds=0.5))
    end = run.last_at + timedelta(seconds=0.5)
    for zone in ("UTC", "Pacific/Apia"):
        with transaction(services.sessions) as session:
            session.execute(sa.text(f"set local time zone '{zone}'"))
            assert due_projects(session, end - timedelta(microseconds=1)) == []
            assert due_projects(session, end) == [run.project_id]
