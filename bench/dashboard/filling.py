"""A large project, by plain SQL: versions that go on from one another, with their jobs, datasets, gates, scores and
moves; trajectories with their words; a route with traffic. And a small project beside it, whose rows are older.

Ids follow from numbers, so that any row can refer to any other.
"""

import json
import uuid
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from registry.adapters import create_adapter
from registry.database import transaction
from registry.keys import create_key
from registry.models import Project
from registry.tasks import create_task

ADAPTER, TASKS, RARE = "bot", ("a", "b", "c", "d"), "rare"
_SMALL_TRAJECTORIES, _ITEMS, _EVENTS, _ROUTES = 100, 40, 2000, 200
_RARE_EVERY = 10_000
"""One trajectory of so many is of the rare task."""

_TRAJECTORIES = """
insert into trajectories (
    id, project_id, task_id, trajectory_id, session_id, content_hash, beginning_hash, held_out, messages, reward,
    reward_source, adapter_version, details, tokens, created_at
)
select md5(cast(:project as text) || ' trajectory ' || n)::uuid, :project_id,
    case when n % :rare_every = 0 then :rare else (:tasks)[1 + n % 4] end,
    't' || n, 'session-' || n / 10, md5('content ' || n), md5('beginning ' || n), n % 7 = 0,
    json_build_array(
        json_build_object('role', 'user', 'content', 'Where is my order? ' || words),
        json_build_object('role', 'assistant', 'content', 'Order number' || n || ' is on its way.')
    ),
    case when n % 3 = 0 then (n % 100) / 100.0 end, case when n % 3 = 0 then 'user' end,
    'bot@' || 1 + n % :versions, '{}', 40, now() - (:count - n) * interval '1 second'
from (
    select n, (
        -- Few words are frequent, most are rare.
        select string_agg('w' || floor(20000 * power(random(), 3))::int, ' ') from generate_series(1, 24) where n > 0
    ) as words
    from generate_series(1, :count) n
) drawn
order by n
"""
_WORDS = """
insert into trajectory_words (seq, project_id, words)
select seq, project_id, to_tsvector('simple'::regconfig,
    replace((messages -> 0 ->> 'content') || ' ' || (messages -> 1 ->> 'content'), '.', ' '))
from trajectories
"""
_VERSIONS = (
    """
    insert into suites (id, task_id, number, content_hash, items, created_at)
    select md5('suite ' || t)::uuid, (:tasks)[t], 1, md5('suite ' || t), :items, now()
    from generate_series(1, 4) t
    """,
    """
    insert into suite_items (suite_id, place, trajectory_id)
    select md5('suite ' || t)::uuid, place, md5(cast(:project as text) || ' trajectory ' || (4 * place + t + 3))::uuid
    from generate_series(1, 4) t, generate_series(0, :items - 1) place
    """,
    """
    insert into datasets (id, project_id, task_id, content_hash, manifest, object_key, created_at)
    select md5('dataset ' || n)::uuid, :project_id, (:tasks)[1 + n % 4],
        md5('dataset ' || n), '{"task": "a", "new": 20, "replayed": {}, "replay_share": 0.0, "seed": 0}',
        'datasets/' || n, now()
    from generate_series(1, :versions) n
    """,
    """
    insert into dataset_items (dataset_id, place, trajectory_id, replayed)
    select md5('dataset ' || n)::uuid, place,
        md5(cast(:project as text) || ' trajectory ' || 1 + (20 * n + place) % :count)::uuid, false
    from generate_series(1, :versions) n, generate_series(0, 19) place
    """,
    """
    insert into jobs (
        id, project_id, kind, state, params, adapter_id, dataset_id, attempt, cancel_requested, progress, result,
        error, created_at, started_at, finished_at
    )
    select md5('job ' || n)::uuid, :project_id, 'train_weaver',
        case when n % 50 = 0 then 'failed' else 'succeeded' end, '{"task": "a"}', :adapter,
        md5('dataset ' || n)::uuid, 1, false, '{"phase": "train", "step": 9, "steps": 9}',
        jsonb_build_object('version', n), case when n % 50 = 0 then 'its worker stopped' end,
        at, at, at
    from (
        select n, now() - (:versions - n) * interval '10 minutes' as at from generate_series(1, :versions) n
    ) numbered
    """,
    """
    insert into job_events (job_id, at, level, message, data)
    select md5('job ' || :versions)::uuid, now(), 'progress', 'train', jsonb_build_object('step', n, 'loss', 1.0 / n)
    from generate_series(1, :events) n
    """,
    """
    insert into versions (
        id, adapter_id, number, parent_id, dataset_id, job_id, base_model, base_revision, code_version, artifact_key,
        artifact_hash, report, created_at
    )
    select md5('version ' || n)::uuid, :adapter, n,
        case when n > 1 then md5('version ' || n - 1)::uuid end, md5('dataset ' || n)::uuid, md5('job ' || n)::uuid,
        'tiny', '1', 'bench', 'artifacts/' || n, md5('artifact ' || n),
        jsonb_build_object('flags', '[]'::jsonb, 'losses',
            (select jsonb_agg(1.0 / step) from generate_series(1, 150) step)),
        now() - (:versions - n) * interval '10 minutes'
    from generate_series(1, :versions) n
    """,
    """
    insert into evaluations (
        id, suite_id, version_id, base_model, base_revision, score, items, seconds, created_at
    )
    select gen_random_uuid(), md5('suite ' || t)::uuid, case when n > 0 then md5('version ' || n)::uuid end, 'tiny',
        '1', 0.5 + (n % 10) / 20.0,
        case when n % 2 = 0 then cast(:even as jsonb) else cast(:odd as jsonb) end, 1.0, now()
    from generate_series(0, :versions) n, generate_series(1, 4) t
    """,
    """
    insert into gates (
        id, version_id, champion_id, passed, margin, rule, level, policy, comparisons, reasons, created_at
    )
    select md5('gate ' || n)::uuid, md5('version ' || n)::uuid, case when n > 1 then md5('version ' || n - 1)::uuid end,
        n % 10 <> 3, 0.05, 'point', 0.05, 'automatic',
        (
            select jsonb_agg(jsonb_build_object(
                'task', (cast(:names as text[]))[t], 'new', t = 1 + n % 4, 'champion', 0.5, 'candidate', 0.55,
                'passed', true, 'reason', 'it gained', 'suite', md5('suite ' || t)::uuid, 'evidence', null,
                'learned', true, 'settled', false, 'change', 0.05
            )) from generate_series(1, 4) t
        ),
        '["it gained"]', now()
    from generate_series(1, :versions) n
    """,
    """
    insert into alias_moves (adapter_id, alias, kind, from_version_id, to_version_id, actor, reason, evidence, at)
    select :adapter, 'champion', 'promotion',
        case when n > 1 then md5('version ' || n - 1)::uuid end, md5('version ' || n)::uuid, 'bench', 'it gained', '{}',
        now() - (:versions - n) * interval '10 minutes'
    from generate_series(1, :versions) n
    """,
    """
    insert into aliases (adapter_id, name, version_id, moved_at)
    select :adapter, 'champion', md5('version ' || :versions)::uuid, now()
    """,
)
_TRAFFIC = (
    """
    insert into routes (
        id, adapter_id, number, kind, state, salt, level, smallest_effect, promotion, created_at, ended_at
    )
    select md5('route ' || n)::uuid, :adapter, n, 'ab',
        case when n = :routes then 'live' else 'ended' end, 'salt', 0.05, 0.05, 'never', now(),
        case when n < :routes then now() end
    from generate_series(1, :routes) n
    """,
    """
    insert into route_arms (route_id, place, version_id, weight)
    select md5('route ' || n)::uuid, place, md5('version ' || :versions - place)::uuid, 0.5
    from generate_series(1, :routes) n, generate_series(0, 1) place
    """,
    """
    insert into exposures (completion_id, project_id, version_id, route_id, session_id, at)
    select 'chatcmpl-' || n, :project_id, md5('version ' || :versions - n % 2)::uuid,
        md5('route ' || :routes)::uuid, 'user-' || n, now()
    from generate_series(1, :answers) n
    """,
    """
    insert into feedback (
        completion_id, project_id, source, reward, comment, actor, version_id, route_id, unit, counted, at
    )
    select 'chatcmpl-' || n, :project_id, 'user', n % 3 / 2.0, '', 'bench',
        md5('version ' || :versions - n % 2)::uuid, md5('route ' || :routes)::uuid, 'user-' || n, true, now()
    from generate_series(1, :answers, 10) n
    """,
)


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
    of_large = {
        "project": str(large.id),
        "project_id": large.id,
        "tasks": tasks,
        "rare": rare,
        "rare_every": _RARE_EVERY,
        "versions": versions,
    }
    of_large |= {"count": trajectories, "adapter": adapter, "names": list(TASKS), "items": _ITEMS}
    of_large |= {"even": _answers(0), "odd": _answers(1), "events": _EVENTS, "routes": _ROUTES}
    of_large |= {"answers": trajectories // 10}
    of_small = of_large | {
        "project": str(small.id),
        "project_id": small.id,
        "tasks": its_tasks,
        "rare": its_rare,
        "count": _SMALL_TRAJECTORIES,
    }
    with engine.begin() as connection:
        connection.execute(sa.text("set local maintenance_work_mem = '512MB'"))
        connection.execute(sa.text("select setseed(0)"))
        connection.execute(sa.text("drop index ix_trajectory_words_words"))
        for values in (of_small, of_large):
            connection.execute(sa.text(_TRAJECTORIES), values)
        connection.execute(sa.text(_WORDS))
        connection.execute(sa.text("create index ix_trajectory_words_words on trajectory_words using gin (words)"))
        for statement in (*_VERSIONS, *_TRAFFIC):
            connection.execute(sa.text(statement), of_large)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("vacuum analyze"))
    return large, small


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
