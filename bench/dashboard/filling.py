"""A large project, by plain SQL: trajectories with their words, and what is behind them (`bench.dashboard.history`).
And a small project beside it, whose rows are older.

Ids follow from numbers, so that any row can refer to any other. Rows are drawn by the server, references are not
checked, and indexes are made when the rows are there: a million trajectories take minutes.
"""

import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session, sessionmaker

from bench.dashboard.history import DELETIONS, JUDGEMENTS, LOOPS, OTHER_ADAPTERS, TRAFFIC, VERSIONS
from registry.adapters import create_adapter
from registry.database import transaction
from registry.keys import create_key
from registry.models import Project
from registry.tasks import create_task

ADAPTER, TASKS, RARE = "bot", ("a", "b", "c", "d"), "rare"
REPLAYED = 50
"""Number of the trajectory that every version learned."""
_SMALL_TRAJECTORIES, _ITEMS, _EVENTS, _ROUTES, _DELETIONS, _OTHER_ADAPTERS = 100, 40, 6000, 200, 60, 50
_RARE_EVERY = 10_000
"""One trajectory of so many is of the rare task."""
_SENTENCES, _WORDS_OF_ONE = 20_000, 12
_FILLED = ("trajectories", "trajectory_words", "trajectory_rewards", "dataset_items", "exposures", "feedback", "runs")
"""Tables of so many rows that their indexes are made at the end."""

_SPOKEN = """
create temporary table sentences on commit drop as
select place, text, to_tsvector('simple'::regconfig, text) as words
from (
    -- Few words are frequent, most are rare.
    select place, (
        select string_agg('w' || floor(20000 * power(random(), 3))::int, ' ')
        from generate_series(1, :words_of_one) where place >= 0
    ) as text
    from generate_series(0, :sentences - 1) place
) drawn
"""
_DRAWN = """
create temporary table drawn on commit drop as
select n, floor(:sentences * random())::int as first, floor(:sentences * random())::int as second,
    floor(:sentences * random())::int as third, floor(:sentences * random())::int as last
from generate_series(1, :count) n
"""
_TRAJECTORIES = """
insert into trajectories (
    id, project_id, task_id, trajectory_id, session_id, content_hash, beginning_hash, held_out, messages, reward,
    reward_source, adapter_version, details, tokens, created_at
)
select md5(cast(:project as text) || ' trajectory ' || n)::uuid, :project_id,
    case when n % :rare_every = 0 then :rare else (:tasks)[1 + n % 4] end,
    't' || n, 'session-' || n / 10, md5('content ' || n), md5('beginning ' || n), n % 7 = 0,
    json_build_array(
        json_build_object('role', 'user', 'content', 'Where is my order? ' || first.text),
        json_build_object('role', 'assistant', 'content', second.text),
        json_build_object('role', 'user', 'content', third.text),
        json_build_object('role', 'assistant', 'content', 'Order number' || n || ' is on its way. ' || last.text)
    ),
    case when n % 3 = 0 then (n % 100) / 100.0 end, case when n % 3 = 0 then 'user' end,
    case when n % 2 = 0 then 'bot@' || 1 + n % :versions end, jsonb_build_object('user', 'user-' || n / 50), 160,
    now() - (:count - n) * interval '1 second'
from drawn
join sentences first on first.place = drawn.first join sentences second on second.place = drawn.second
join sentences third on third.place = drawn.third join sentences last on last.place = drawn.last
order by drawn.n
"""
_WORDS = """
insert into trajectory_words (seq, project_id, words)
select seq, :project_id, to_tsvector('simple'::regconfig, 'Where is my order') || first.words || second.words
    || third.words || to_tsvector('simple'::regconfig, 'Order number' || drawn.n || ' is on its way') || last.words
from drawn
join trajectories t on t.id = md5(cast(:project as text) || ' trajectory ' || drawn.n)::uuid
join sentences first on first.place = drawn.first join sentences second on second.place = drawn.second
join sentences third on third.place = drawn.third join sentences last on last.place = drawn.last
"""
_REWARDS = """
insert into trajectory_rewards (trajectory_id, source, reward, comment, actor, at)
select id, reward_source, reward, '', 'bench', created_at from trajectories where project_id = :project_id
and reward is not null
"""
_OF_TRAJECTORIES = (_DRAWN, _TRAJECTORIES, _WORDS, "drop table drawn", _REWARDS)


@dataclass(frozen=True)
class FilledProject:
    id: uuid.UUID
    key: str
    """Of an administrator."""


def fill(
    engine: Engine, sessions: sessionmaker[Session], *, versions: int, trajectories: int
) -> tuple[FilledProject, FilledProject]:
    """The large project and the small one."""
    small, _, its_tasks, its_rare = _project(sessions, "small")
    large, adapter, tasks, rare = _project(sessions, "large")
    shared = {"versions": versions, "rare_every": _RARE_EVERY, "sentences": _SENTENCES}
    of_large = shared | _of(large, tasks, rare, trajectories)
    of_large |= {"adapter": adapter, "names": list(TASKS), "items": _ITEMS, "others": _OTHER_ADAPTERS}
    of_large |= {"even": _answers(0), "odd": _answers(1), "events": _EVENTS, "routes": _ROUTES}
    of_large |= {"answers": trajectories // 2, "deletions": _DELETIONS, "replayed": REPLAYED}
    with engine.begin() as connection:
        for setting in ("maintenance_work_mem = '1GB'", "work_mem = '256MB'", "session_replication_role = replica"):
            connection.execute(sa.text(f"set local {setting}"))
        connection.execute(sa.text("select setseed(0)"))
        with _indexed_afterwards(connection, _FILLED):
            _run(connection, [_SPOKEN], {"sentences": _SENTENCES, "words_of_one": _WORDS_OF_ONE})
            _run(connection, _OF_TRAJECTORIES, shared | _of(small, its_tasks, its_rare, _SMALL_TRAJECTORIES))
            _run(connection, _OF_TRAJECTORIES, of_large)
            for statements in (VERSIONS, TRAFFIC, OTHER_ADAPTERS, LOOPS, JUDGEMENTS, DELETIONS):
                _run(connection, statements, of_large)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("vacuum analyze"))
    return large, small


def _of(project: FilledProject, tasks: Sequence[uuid.UUID], rare: uuid.UUID, count: int) -> dict[str, Any]:
    return {"project": str(project.id), "project_id": project.id, "tasks": tasks, "rare": rare, "count": count}


def _run(connection: Connection, statements: Sequence[str], values: dict[str, Any]) -> None:
    for statement in statements:
        connection.execute(sa.text(statement), values)


@contextmanager
def _indexed_afterwards(connection: Connection, tables: Sequence[str]) -> Iterator[None]:
    """Without the indexes that hold no constraint; the same are made at the end."""
    found = connection.execute(
        sa.text(
            "select i.indexrelid::regclass::text as name, pg_get_indexdef(i.indexrelid) as made_by from pg_index i "
            "where i.indrelid = any(cast(cast(:tables as text[]) as regclass[])) and not i.indisprimary "
            "and not exists (select from pg_constraint c where c.conindid = i.indexrelid)"
        ),
        {"tables": list(tables)},
    ).all()
    for index in found:
        connection.execute(sa.text(f"drop index {index.name}"))
    yield
    for index in found:
        connection.exec_driver_sql(index.made_by)


def _project(sessions: sessionmaker[Session], name: str) -> tuple[FilledProject, uuid.UUID, list[uuid.UUID], uuid.UUID]:
    """A project with an administrator's key, an adapter, the ids of its tasks, and that of the rare one."""
    with transaction(sessions) as session:
        project = Project(name=name)
        session.add(project)
        session.flush()
        _, key = create_key(session, project.id, "bench", ["admin"])
        adapter = create_adapter(session, project.id, name=ADAPTER, base_model="tiny", base_revision="1")
        tasks = [
            create_task(session, project.id, task, grader={"kind": "exact"}, holdout_share=0.1)[0].id
            for task in (*TASKS, RARE)
        ]
        return FilledProject(project.id, key), adapter.id, tasks[:-1], tasks[-1]


def _answers(parity: int) -> str:
    """The items of an evaluation: every other one is right."""
    return json.dumps([{"score": float(n % 2 == parity), "answer": f"Order {n}."} for n in range(_ITEMS)])
