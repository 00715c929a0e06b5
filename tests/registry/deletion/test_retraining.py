"""Chains of retrainings: what keeps them going, what ends them, and that they say so."""

import hashlib
import uuid
from typing import Any

import pytest
import sqlalchemy as sa

from registry import jobs
from registry.adapters import get_adapter
from registry.clock import utc_now
from registry.database import transaction
from registry.datasets import snapshots
from registry.deletion import deletions
from registry.deletion.deletions import Deleted
from registry.deletion.erasure import blank_missing_answers
from registry.deletion.retraining import list_retrainings, step_state, why_stopped
from registry.gates.gate import GateTerms, compare
from registry.job_requests import TrainTrigger, TrainWeaver
from registry.models import Job, Retraining, Schedule, Trajectory, Version
from registry.promotion import retry_of
from registry.schedules.cron import Cron
from registry.schedules.schedules import TrainingRequest, create_schedule
from registry.tasks import get_task
from registry.versions.lineage import version_lineage
from registry.versions.records import register_version
from registry.versions.state import locked_state, states_of
from tests.registry.conftest import Rows
from tests.registry.deleting import advance, delete, promote_version, queue_training, with_secrets
from tests.registry.stored_versions import make_stored_version, trajectories

Steps = list[tuple[int, uuid.UUID | None, str, str | None]]


@pytest.fixture
def chain(rows: Rows) -> tuple[Trajectory, Trajectory]:
    """Versions 1 and 2 of `bot`, 2 the champion, both on two trajectories: these."""
    with_secrets(rows)
    first = make_stored_version(rows, "a")
    promote_version(rows, make_stored_version(rows, "a", parent=first))
    found = trajectories(rows, held_out=False)
    return next(row for row in found if row.session_id), next(row for row in found if row.session_id is None)


def _steps(rows: Rows, deletion_id: uuid.UUID) -> Steps:
    with transaction(rows.services.sessions) as session:
        found = list_retrainings(session, [deletion_id])[deletion_id]
        return [(step.replaces.number, step.job_id, step_state(step), why_stopped(step)) for step in found]


def _begin(rows: Rows, job_id: uuid.UUID) -> None:
    """As a worker does it, up to the job's dataset."""
    with transaction(rows.services.sessions) as session:
        assert jobs.claim(session, job_id, "w", 60) == 1
        snapshot = rows.snapshot(session, "a")
        jobs.set_dataset(session, job_id, 1, snapshots.record_dataset(session, snapshot).id)


def _begun_retraining(rows: Rows, trajectory: Trajectory) -> tuple[Deleted, uuid.UUID]:
    """A deletion with policy `retrain`, and its one job, which a worker has begun."""
    deleted = delete(rows, "trajectory", str(trajectory.id), "retrain")
    [job_id] = deleted.started
    _begin(rows, job_id)
    return deleted, job_id


def _work(rows: Rows, job_id: uuid.UUID) -> Version:
    """As a worker does it, to its end."""
    _begin(rows, job_id)
    version = _register(rows, job_id)
    with transaction(rows.services.sessions) as session:
        assert jobs.finish(session, job_id, 1, "succeeded", result={})
    return version


def _work_and_forget(rows: Rows, job_id: uuid.UUID) -> tuple[Version, uuid.UUID]:
    """As a worker does it: the version fails its gate because it forgot, and a job trains once more, with more replay.

    Returns:
        The version, and that job.
    """
    _begin(rows, job_id)
    version = _register(rows, job_id)
    forgotten = compare("b", new=False, baseline=[1.0], candidate=[0.0], terms=GateTerms(0.05))
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, "bot", lock=True)
        adapter.retry_replay_share = 0.6
        job = session.get_one(Job, job_id)
        retry = retry_of(session, adapter, session.get_one(Version, version.id), job, [forgotten])
        assert retry is not None
    with transaction(rows.services.sessions) as session:
        assert jobs.finish(session, job_id, 1, "succeeded", result={})
    return version, retry.id


def _register(rows: Rows, job_id: uuid.UUID) -> Version:
    with transaction(rows.services.sessions) as session:
        return register_version(
            session,
            session.get_one(Job, job_id),
            get_adapter(session, rows.project_id, "bot", lock=True),
            parent_id=None,
            artifact_key=f"artifacts/{job_id}",
            artifact_hash=hashlib.sha256(job_id.bytes).hexdigest(),
            code_version="test",
            report={"flags": []},
        )


def _replaced(rows: Rows, version: Version) -> int | None:
    """Number of the version that the lineage of this one names as replaced."""
    with transaction(rows.services.sessions) as session:
        replaces = version_lineage(session, session.get_one(Version, version.id)).replaces
        return replaces.number if replaces else None


def test_the_next_step_waits_for_a_retry_and_goes_on_from_its_version(
    rows: Rows, chain: tuple[Trajectory, Trajectory]
) -> None:
    deleted = delete(rows, "trajectory", str(chain[0].id), "retrain")
    forgetful, retry = _work_and_forget(rows, deleted.started[0])
    assert advance(rows) == [], "not from the version that forgot"
    assert _steps(rows, deleted.deletion.id) == [(1, retry, "queued", None), (2, None, "waiting", None)]

    made = _work(rows, retry)
    [following] = advance(rows)
    assert _steps(rows, deleted.deletion.id) == [(1, retry, "succeeded", None), (2, following, "queued", None)]
    with transaction(rows.services.sessions) as session:
        params = session.get_one(Job, following).params
        assert (params["parent"], params["replaces"]) == (made.number, 2)
        assert "retry_of" not in params
    assert (_replaced(rows, made), _replaced(rows, forgetful)) == (1, 1)


def test_the_only_step_is_done_by_its_retry(rows: Rows) -> None:
    with_secrets(rows)
    promote_version(rows, make_stored_version(rows, "a"))
    deleted = delete(rows, "session", "s1", "retrain")
    forgetful, retry = _work_and_forget(rows, deleted.started[0])
    assert _steps(rows, deleted.deletion.id) == [(1, retry, "queued", None)]
    with transaction(rows.services.sessions) as session:
        assert session.get_one(Job, retry).params["replaces"] == 1
    made = _work(rows, retry)
    assert advance(rows) == []
    assert _steps(rows, deleted.deletion.id) == [(1, retry, "succeeded", None)]
    assert (_replaced(rows, made), _replaced(rows, forgetful)) == (1, 1)


def test_a_retry_that_fails_ends_its_chain(rows: Rows, chain: tuple[Trajectory, Trajectory]) -> None:
    deleted = delete(rows, "trajectory", str(chain[0].id), "retrain")
    _, retry = _work_and_forget(rows, deleted.started[0])
    _begin(rows, retry)
    with transaction(rows.services.sessions) as session:
        assert jobs.finish(session, retry, 1, "failed", error="no memory left")
    assert advance(rows) == []
    why = f"job {retry} failed: no memory left"
    assert _steps(rows, deleted.deletion.id) == [(1, retry, "failed", why), (2, None, "stopped", why)]


@pytest.mark.parametrize("how", ["retry", "restart"])
def test_whatever_waits_for_a_job_waits_for_the_one_that_replaces_it(
    rows: Rows, chain: tuple[Trajectory, Trajectory], how: str
) -> None:
    """A schedule and a step of a retraining at once."""
    deleted = delete(rows, "trajectory", str(chain[0].id), "retrain")
    [job_id] = deleted.started
    with transaction(rows.services.sessions) as session:
        adapter, task = get_adapter(session, rows.project_id, "bot"), get_task(session, rows.project_id, "a")
        schedule = create_schedule(
            session,
            rows.project_id,
            "nightly",
            adapter=adapter,
            task=task,
            when=Cron("0 3 * * *"),
            request=TrainingRequest({}),
            actor="test",
        )
        schedule.last_job_id = job_id
    if how == "retry":
        _, following = _work_and_forget(rows, job_id)
    else:
        _begin(rows, job_id)
        [following] = delete(rows, "trajectory", str(chain[1].id)).started
    with transaction(rows.services.sessions) as session:
        assert session.get_one(Schedule, schedule.id).last_job_id == following
    assert _steps(rows, deleted.deletion.id)[0] == (1, following, "queued", None)


def test_a_second_deletion_moves_the_step_to_the_job_that_begins_anew(
    rows: Rows, chain: tuple[Trajectory, Trajectory]
) -> None:
    first, job_id = _begun_retraining(rows, chain[0])
    second = delete(rows, "trajectory", str(chain[1].id))
    [anew] = second.started
    assert second.deletion.affected["restarted"] == {str(job_id): str(anew)}
    with transaction(rows.services.sessions) as session:
        assert jobs.finish(session, job_id, 1, "cancelled")
    assert advance(rows) == []
    assert _steps(rows, first.deletion.id) == [(1, anew, "queued", None), (2, None, "waiting", None)]

    made = _work(rows, anew)
    [following] = advance(rows)
    assert _steps(rows, first.deletion.id) == [(1, anew, "succeeded", None), (2, following, "queued", None)]
    with transaction(rows.services.sessions) as session:
        assert session.get_one(Job, following).params["parent"] == made.number
        replaced = version_lineage(session, session.get_one(Version, made.id)).replaces
        assert replaced is not None
        assert replaced.number == 1


def test_a_chain_ends_where_the_step_before_was_withdrawn(rows: Rows, chain: tuple[Trajectory, Trajectory]) -> None:
    first = delete(rows, "trajectory", str(chain[0].id), "retrain")
    made = _work(rows, first.started[0])
    delete(rows, "trajectory", str(chain[1].id), "withdraw")
    with transaction(rows.services.sessions) as session:
        assert states_of(session, [made.id])[made.id].withdrawn_at is not None
    assert advance(rows) == []
    [done, stopped] = _steps(rows, first.deletion.id)
    assert done[2:] == ("succeeded", None)
    assert stopped[1:3] == (None, "stopped")
    assert "bot@3 was withdrawn" in (stopped[3] or "")


def test_a_chain_whose_first_ancestor_is_gone_begins_nothing(rows: Rows) -> None:
    rows.task("b")
    clean = make_stored_version(rows, "b")
    with_secrets(rows)
    learned = make_stored_version(rows, "a", parent=clean)
    promote_version(rows, make_stored_version(rows, "a", parent=learned))
    with transaction(rows.services.sessions) as session:
        locked_state(session, session.get_one(Version, clean.id)).purged_at = utc_now()
    deleted = delete(rows, "session", "s1", "retrain")
    assert deleted.started == ()
    assert advance(rows) == []
    for step in _steps(rows, deleted.deletion.id):
        assert step[1:3] == (None, "stopped")
        assert "the bytes of bot@1 were removed" in (step[3] or "")


def test_the_last_steps_failure_is_told(rows: Rows) -> None:
    with_secrets(rows)
    promote_version(rows, make_stored_version(rows, "a"))
    deleted = delete(rows, "session", "s1", "retrain")
    [job_id] = deleted.started
    with transaction(rows.services.sessions) as session:
        session.execute(sa.update(Job).values(state="failed", error="no memory left"))
    assert _steps(rows, deleted.deletion.id) == [(1, job_id, "failed", f"job {job_id} failed: no memory left")]


def test_a_training_that_may_not_go_on_from_its_parent_is_not_begun_anew(
    rows: Rows, chain: tuple[Trajectory, Trajectory]
) -> None:
    first, job_id = _begun_retraining(rows, chain[0])
    with transaction(rows.services.sessions) as session:
        job = session.get_one(Job, job_id)
        job.params = {**job.params, "parent": 1}
        locked_state(
            session, session.scalars(sa.select(Version).where(Version.number == 1)).one()
        ).purged_at = utc_now()
    second = delete(rows, "trajectory", str(chain[1].id))
    assert (second.started, second.deletion.affected["restarted"]) == ((), {})
    with transaction(rows.services.sessions) as session:
        assert session.get_one(Job, job_id).cancel_requested
        told = [event.message for event in jobs.list_events(session, job_id, after=0, limit=99)]
    assert any("does not begin anew: the bytes of bot@1 were removed" in message for message in told)
    assert advance(rows) == []
    assert [step[2] for step in _steps(rows, first.deletion.id)] == ["stopped", "stopped"]


def test_a_trigger_is_not_trained_without_a_version(rows: Rows, chain: tuple[Trajectory, Trajectory]) -> None:
    job_id = queue_training(rows, TrainTrigger(("a",), 2))
    assert delete(rows, "session", "s1", "withdraw").started == ()
    with transaction(rows.services.sessions) as session:
        assert session.get_one(Job, job_id).state == "cancelled"


def test_a_job_that_ends_while_its_data_goes_is_not_begun_anew(
    rows: Rows, chain: tuple[Trajectory, Trajectory], monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = queue_training(rows, TrainWeaver("a", 2))
    _begin(rows, job_id)

    def end(*arguments: Any) -> None:
        with transaction(rows.services.sessions) as session:
            assert jobs.finish(session, job_id, 1, "failed", error="x")
        blank_missing_answers(*arguments)

    monkeypatch.setattr(deletions, "blank_missing_answers", end)
    assert delete(rows, "session", "s1").started == ()
    with transaction(rows.services.sessions) as session:
        assert session.get_one(Job, job_id).state == "failed"
        assert session.scalar(sa.select(sa.func.count()).select_from(Retraining)) == 0
