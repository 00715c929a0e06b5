"""Deletions in a row while trainings run, in any order: one live job a chain, and what is cancelled stays cancelled."""

import random
import uuid
from dataclasses import dataclass, field

import pytest
import sqlalchemy as sa

from registry import jobs
from registry.adapters import get_adapter
from registry.database import transaction
from registry.datasets import snapshots
from registry.deletion.retraining import list_retrainings
from registry.errors import EmptyDataset, RegistryError
from registry.gates.gate import GateTerms, compare, record_gate
from registry.gates.verdict import gate_of
from registry.job_requests import TrainWeaver
from registry.models import Deletion, DeletionDataset, Job, Retraining, Version
from registry.promotion import follow_up, retry_of
from registry.versions.records import get_version, register_version, version_of_job
from registry.versions.state import states_of
from tests.registry.conftest import Rows, chats
from tests.registry.deleting import advance, delete, promote_version, queue_training
from tests.registry.stored_versions import make_stored_version, trajectories


def live_jobs(rows: Rows) -> list[uuid.UUID]:
    """Those that go on; a job that is to stop is live until its worker notices."""
    with transaction(rows.services.sessions) as session:
        query = sa.select(Job.id).where(Job.state.in_(jobs.LIVE), Job.cancel_requested.is_(False))
        return list(session.scalars(query.order_by(Job.seq)))


def trained_on(rows: Rows) -> list[str]:
    return [str(row.id) for row in trajectories(rows, held_out=False)]


@dataclass
class Workers:
    """What workers do to jobs, a step at a time."""

    rows: Rows
    attempts: dict[uuid.UUID, int] = field(default_factory=dict)

    def claim(self, job_id: uuid.UUID) -> None:
        with transaction(self.rows.services.sessions) as session:
            attempt = jobs.claim(session, job_id, "w", 60)
        if attempt is not None:
            self.attempts[job_id] = attempt

    def freeze(self, job_id: uuid.UUID) -> None:
        with transaction(self.rows.services.sessions) as session:
            if session.get_one(Job, job_id).dataset_id is None:
                try:
                    dataset = snapshots.record_dataset(session, self.rows.snapshot(session, "a"))
                except EmptyDataset:
                    return
                jobs.set_dataset(session, job_id, self.attempts[job_id], dataset.id)

    def register(self, job_id: uuid.UUID) -> Version | None:
        with transaction(self.rows.services.sessions) as session:
            adapter = get_adapter(session, self.rows.project_id, "bot", lock=True)
            job = session.get_one(Job, job_id)
            if job.cancel_requested or job.state != "running" or job.dataset_id is None:
                return None
            parent = jobs.request_as(job, TrainWeaver).parent
            return register_version(
                session,
                job,
                adapter,
                parent_id=get_version(session, adapter, parent).id if parent else None,
                artifact_key=f"artifacts/{job_id}",
                artifact_hash=job_id.hex * 2,
                code_version="test",
                report={"flags": []},
            )

    def judge(self, job_id: uuid.UUID, *, forgot: bool = False) -> None:
        with transaction(self.rows.services.sessions) as session:
            adapter = get_adapter(session, self.rows.project_id, "bot", lock=True)
            job = session.get_one(Job, job_id)
            version = version_of_job(session, job_id)
            if version is None or job.cancel_requested or gate_of(session, version) is not None:
                return
            terms, after = GateTerms(0.05), [0.0 if forgot else 1.0]
            comparison = compare("b", new=False, baseline=[1.0], candidate=after, terms=terms)
            gate = record_gate(
                session, version, baseline=None, comparisons=[comparison], terms=terms, policy="automatic"
            )
            try:
                follow_up(session, adapter, version, gate, job)
            except RegistryError:  # a withdrawn version moves no alias
                return
            retry_of(session, adapter, version, job, [comparison])

    def go_on(self, job_id: uuid.UUID, *, forgot: bool) -> None:
        """The job's next step."""
        with transaction(self.rows.services.sessions) as session:
            job, version = session.get_one(Job, job_id), version_of_job(session, job_id)
            judged = version is not None and gate_of(session, version) is not None
        if job.state == "queued":
            self.claim(job_id)
        elif job.cancel_requested or judged:
            self.end(job_id)
        elif job.dataset_id is None:
            self.freeze(job_id)
        elif version is None:
            self.register(job_id)
        else:
            self.judge(job_id, forgot=forgot)

    def end(self, job_id: uuid.UUID, state: str = "succeeded") -> None:
        with transaction(self.rows.services.sessions) as session:
            wanted = "cancelled" if session.get_one(Job, job_id).cancel_requested else state
            jobs.finish(session, job_id, self.attempts.get(job_id, 0), wanted, result={})

    def die(self, job_id: uuid.UUID) -> None:
        with transaction(self.rows.services.sessions) as session:
            late = sa.func.now() - sa.text("interval '1 hour'")
            session.execute(sa.update(Job).where(Job.id == job_id, Job.state == "running").values(lease_until=late))
            jobs.reap(session, max_attempts=3, lease_seconds=60, redeliver_after_seconds=1.0)


@pytest.fixture
def champion(rows: Rows) -> Version:
    """Version 1 of `bot`, trained on 60 conversations of task `a`, the champion."""
    rows.task("a", chats(80))
    version = make_stored_version(rows, "a")
    promote_version(rows, version)
    return version


@pytest.mark.parametrize("policy", ["keep", "retrain", "withdraw"])
def test_25_deletions_begin_a_running_training_anew_once(rows: Rows, champion: Version, policy: str) -> None:
    workers, job_id = Workers(rows), queue_training(rows, TrainWeaver("a"))
    workers.claim(job_id)
    workers.freeze(job_id)
    for victim in trained_on(rows)[:25]:
        delete(rows, "trajectory", victim, policy)  # type: ignore[arg-type]  # one of the three
    with transaction(rows.services.sessions) as session:
        trainings = session.scalars(sa.select(Job.id).where(Job.id.not_in([job_id, champion.job_id]))).all()
    # The serving version is trained anew once, too, where that is the policy.
    assert len(trainings) == (2 if policy == "retrain" else 1)
    assert sorted(live_jobs(rows)) == sorted(trainings)
    for each in trainings:
        workers.claim(each)
        workers.freeze(each)
    if policy == "retrain":
        with transaction(rows.services.sessions) as session:
            first, *later = session.scalars(sa.select(Deletion).order_by(Deletion.seq)).all()
            assert [deletion.affected["retrained_by"] for deletion in later] == [[str(first.id)]] * 24
            steps = list_retrainings(session, [deletion.id for deletion in (first, *later)])
            assert [len(each) for each in steps.values()] == [1] + [0] * 24


def test_a_running_replacement_begins_anew_only_if_it_has_chosen_its_data(rows: Rows, champion: Version) -> None:
    workers, job_id = Workers(rows), queue_training(rows, TrainWeaver("a"))
    victims = trained_on(rows)
    workers.claim(job_id)
    assert delete(rows, "trajectory", victims[0]).started == ()
    workers.freeze(job_id)
    [second] = delete(rows, "trajectory", victims[1]).started
    workers.claim(second)
    assert delete(rows, "trajectory", victims[2]).started == ()
    workers.freeze(second)
    [third] = delete(rows, "trajectory", victims[3]).started
    assert live_jobs(rows) == [third]


@pytest.mark.parametrize("claimed", [True, False])
def test_what_a_person_cancelled_stays_cancelled(rows: Rows, champion: Version, claimed: bool) -> None:
    workers, job_id = Workers(rows), queue_training(rows, TrainWeaver("a"))
    workers.claim(job_id)
    workers.freeze(job_id)
    with transaction(rows.services.sessions) as session:
        if not claimed:
            jobs.release(session, job_id, 1, "a server was away")
        jobs.request_cancel(session, rows.project_id, job_id)
    deleted = delete(rows, "trajectory", trained_on(rows)[0])
    assert (deleted.started, deleted.deletion.affected["jobs"]) == ((), [])
    assert live_jobs(rows) == []
    workers.die(job_id)
    workers.claim(job_id)
    with transaction(rows.services.sessions) as session:
        assert session.get_one(Job, job_id).state == "cancelled"


def test_a_cancelled_job_that_goes_back_to_the_queue_is_not_begun(rows: Rows, champion: Version) -> None:
    job_id = queue_training(rows, TrainWeaver("a"))
    workers = Workers(rows)
    workers.claim(job_id)
    with transaction(rows.services.sessions) as session:
        jobs.request_cancel(session, rows.project_id, job_id)
        jobs.release(session, job_id, 1, "a server was away")
    with transaction(rows.services.sessions) as session:
        assert jobs.claim(session, job_id, "w", 60) is None
        assert session.get_one(Job, job_id).state == "cancelled"


@pytest.mark.parametrize("forgot", [True, False])
def test_a_job_whose_version_is_judged_is_done(rows: Rows, champion: Version, forgot: bool) -> None:
    """Between its gate and its end: what follows is its retry, or nothing."""
    with transaction(rows.services.sessions) as session:
        get_adapter(session, rows.project_id, "bot").retry_replay_share = 0.6
    workers, job_id = Workers(rows), queue_training(rows, TrainWeaver("a", promote=False))
    workers.claim(job_id)
    workers.freeze(job_id)
    assert workers.register(job_id) is not None
    workers.judge(job_id, forgot=forgot)
    assert delete(rows, "trajectory", trained_on(rows)[0]).started == ()
    workers.end(job_id)
    with transaction(rows.services.sessions) as session:
        assert session.get_one(Job, job_id).state == "succeeded"
    assert len(live_jobs(rows)) == int(forgot)


def test_a_version_that_nothing_has_judged_is_trained_anew_once(rows: Rows) -> None:
    """Before its gate, under the policy that trains versions anew too: by its own job alone."""
    rows.task("a", chats(80))
    workers, job_id = Workers(rows), queue_training(rows, TrainWeaver("a"))
    workers.claim(job_id)
    workers.freeze(job_id)
    assert workers.register(job_id) is not None
    [anew] = delete(rows, "trajectory", trained_on(rows)[0], "retrain").started
    assert live_jobs(rows) == [anew]
    workers.judge(job_id)
    with transaction(rows.services.sessions) as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Retraining)) == 0


def test_a_retraining_that_learned_what_goes_now_is_stopped_for_another(rows: Rows, champion: Version) -> None:
    promote_version(rows, make_stored_version(rows, "a", parent=champion))
    victims, workers = trained_on(rows), Workers(rows)
    first = delete(rows, "trajectory", victims[0], "retrain")
    [step] = first.started
    for act in (workers.claim, workers.freeze, workers.register, workers.judge, workers.end):
        act(step)
    [following] = advance(rows)
    second = delete(rows, "trajectory", victims[1], "retrain")
    [anew] = second.started
    assert live_jobs(rows) == [anew]
    with transaction(rows.services.sessions) as session:
        assert session.get_one(Job, following).state == "cancelled"
        stopped = list_retrainings(session, [first.deletion.id])[first.deletion.id][1].stopped
        assert f"deletion {second.deletion.id} trains the same versions anew" in (stopped or "")
    assert advance(rows) == []


class Chains:
    """Which jobs go on for which, told from what the registry says of its own: a job has one live successor at most."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def check(self, cancelled: set[uuid.UUID], deleted: dict[str, int]) -> None:
        """
        Args:
            cancelled: jobs that a person cancelled.
            deleted: number of the newest version when each trajectory was deleted, by the trajectory's id.
        """
        with transaction(self.rows.services.sessions) as session:
            found = {job.id: job for job in session.scalars(sa.select(Job))}
            live = {id_ for id_, job in found.items() if job.state in jobs.LIVE and not job.cancel_requested}
            root: dict[uuid.UUID, uuid.UUID] = {}
            for deletion in session.scalars(sa.select(Deletion).order_by(Deletion.seq)):
                for old, new in deletion.affected["restarted"].items():
                    assert uuid.UUID(old) not in cancelled
                    root[uuid.UUID(new)] = uuid.UUID(old)
            assert len(set(root.values())) == len(root), "a job was begun anew twice"
            ends = [job_id for job_id in live if job_id not in root.values()]
            assert sorted(ends) == sorted(live), "a job and what replaces it are both live"
            for job_id in cancelled:
                assert found[job_id].state in ("cancelled", "running")
                assert found[job_id].cancel_requested
            replaced = [
                step.replaces_id
                for step in session.scalars(sa.select(Retraining).where(Retraining.job_id.in_(live)))
                if step.stopped is None
            ]
            assert len(replaced) == len(set(replaced)), "two live jobs train one version anew"
            for version in session.scalars(sa.select(Version)):
                gone = session.scalars(
                    sa.select(Deletion.trajectories)
                    .join(DeletionDataset)
                    .where(DeletionDataset.dataset_id == version.dataset_id)
                )
                for row in (row for rows in gone for row in rows):
                    assert version.number <= deleted[row["id"]], "a version learned what was deleted before it was made"


@pytest.mark.parametrize("seed", range(8))
def test_any_order_of_claims_cancels_deletions_and_ends(rows: Rows, champion: Version, seed: int) -> None:
    plan, workers, chains = random.Random(seed), Workers(rows), Chains(rows)
    cancelled: set[uuid.UUID] = set()
    deleted: dict[str, int] = {}
    with transaction(rows.services.sessions) as session:
        get_adapter(session, rows.project_id, "bot").retry_replay_share = 0.6
    queue_training(rows, TrainWeaver("a"))
    restarts = 0
    for step in range(400):
        if step >= 80 and restarts and cancelled:
            break  # how soon a seed comes to both depends on the order of random ids
        with transaction(rows.services.sessions) as session:
            open_jobs = session.scalars(sa.select(Job.id).where(Job.state.in_(jobs.LIVE)).order_by(Job.seq)).all()
            newest = session.scalar(sa.select(sa.func.max(Version.number))) or 0
        act = plan.choice([*["delete"] * 6, *["work"] * 14, "cancel", "die", "fail", "queue"])
        if act == "delete":
            victims = trained_on(rows)
            if len(victims) < 5:
                continue
            victim = plan.choice(victims)
            deleted[victim] = newest
            policy = plan.choice(["keep", "keep", "retrain", "retrain", "withdraw"])
            restarts += len(delete(rows, "trajectory", victim, policy).deletion.affected["restarted"])
        elif act == "queue":
            if len(open_jobs) < 4:
                queue_training(rows, TrainWeaver("a", plan.choice([None, _usable(rows, champion)])))
            advance(rows)
        elif open_jobs:
            job_id = plan.choice(open_jobs)
            if act == "cancel":
                with transaction(rows.services.sessions) as session:
                    mine = not session.get_one(Job, job_id).cancel_requested
                    if mine:
                        jobs.request_cancel(session, rows.project_id, job_id)
                        cancelled.add(job_id)
            elif act == "work":
                workers.go_on(job_id, forgot=plan.random() < 0.3)
            elif act == "fail":
                workers.end(job_id, "failed")
            else:
                workers.die(job_id)
        chains.check(cancelled, deleted)
    assert (restarts > 0, len(cancelled) > 0) == (True, True), "the plan must begin jobs anew and cancel some"


def _usable(rows: Rows, version: Version) -> int | None:
    with transaction(rows.services.sessions) as session:
        state = states_of(session, [version.id]).get(version.id)
        return None if state is not None and state.withdrawn_at is not None else version.number
