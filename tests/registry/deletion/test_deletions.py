"""Deleting data: no byte of it is left in the database or the store, what learned it is dealt with, a record stays."""

import hashlib
import json
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from registry import jobs
from registry.adapters import get_adapter
from registry.database import transaction
from registry.datasets import snapshots
from registry.datasets.suites import freeze_suite
from registry.deletion.erasure import may_erase, unfinished_erasures
from registry.deletion.scope import DeletionSubject, find_affected
from registry.errors import DeletionChanged, Invalid, SnapshotOutdated, TrajectoryNotFound, VersionNotServable
from registry.gates.gate import GateTerms, judge
from registry.job_requests import Evaluate, TrainWeaver
from registry.models import (
    Adapter,
    AliasMove,
    Dataset,
    DatasetItem,
    Evaluation,
    Exposure,
    Feedback,
    Job,
    Retraining,
    Route,
    RouteArm,
    Suite,
    Trajectory,
    Version,
)
from registry.serving.aliases import get_alias
from registry.serving.resolution import resolve
from registry.tasks import get_task
from registry.trajectories.imports import import_batch, read_item
from registry.trajectories.records import get_trajectory
from registry.versions.lineage import trajectory_lineage, version_lineage
from registry.versions.state import states_of
from tests.registry.conftest import TOKENS, Rows, chats, refused_as_immutable
from tests.registry.deleting import SECRET, advance, delete, finish, promote_version, with_secrets
from tests.registry.routed import make_routed
from tests.registry.stored_versions import make_stored_version, stored_keys, trajectories, whole_database, whole_store


def test_every_byte_of_a_user_is_gone_and_hashes_and_counts_stay(rows: Rows) -> None:
    with_secrets(rows)
    version = make_stored_version(rows, "a")
    held_out = [row for row in trajectories(rows, held_out=True) if row.session_id == "s1"]
    assert held_out, "the sample must have held-out items of the user, or this tests too little"
    with transaction(rows.services.sessions) as session:
        session.add(
            Exposure(completion_id="c1", project_id=rows.project_id, version_id=version.id, session_id="anna-92")
        )
        session.flush()
        session.add(
            Feedback(
                completion_id="c1",
                project_id=rows.project_id,
                source="user",
                reward=1.0,
                comment=f"about {SECRET}",
                actor="test",
                version_id=version.id,
                counted=False,
            )
        )
        before = session.scalars(sa.select(Suite)).one(), session.scalars(sa.select(Dataset)).one()
    assert SECRET in whole_database(rows)
    assert SECRET in whole_store(rows)

    deleted = delete(rows, "user", "anna-92")
    assert finish(rows, deleted)

    for text in (SECRET, "anna-92"):
        assert text not in whole_database(rows)
        assert text not in whole_store(rows)
    assert len(deleted.deletion.trajectories) == 20
    with transaction(rows.services.sessions) as session:
        suite, dataset = session.scalars(sa.select(Suite)).one(), session.scalars(sa.select(Dataset)).one()
        assert (suite.items, suite.content_hash) == (before[0].items, before[0].content_hash)
        assert (dataset.content_hash, dataset.manifest) == (before[1].content_hash, before[1].manifest)
        evaluation = session.scalars(sa.select(Evaluation)).one()
        assert [item["score"] for item in evaluation.items] == [1.0] * suite.items
        assert sum(item.get("erased", False) for item in evaluation.items) == len(held_out)
        assert session.scalars(sa.select(Feedback.reward)).all() == [1.0]
        lines = rows.services.store.get(dataset.object_key).splitlines()
        assert len(lines) == session.scalar(sa.select(sa.func.count()).select_from(DatasetItem))
        assert len(lines) > 20
        found = version_lineage(session, session.get_one(Version, version.id))
        assert (found.learned_deleted, found.deleted) == (True, 20 - len(held_out))
        assert rows.services.store.get(f"{version.artifact_key}/memory.json") != b""
    assert f"jobs/{version.job_id}/checkpoint.safetensors" not in stored_keys(rows, "jobs/")


def test_the_dry_run_lists_all_and_changes_nothing(rows: Rows) -> None:
    with_secrets(rows)
    first = make_stored_version(rows, "a")
    child = make_stored_version(rows, "a", parent=first)
    promote_version(rows, child)
    state = whole_database(rows), stored_keys(rows)
    with transaction(rows.services.sessions) as session:
        described = find_affected(session, rows.project_id, DeletionSubject("session", "s1")).describe(session)
    assert described["trajectories"] == 20
    assert [(v["number"], v["aliases"]) for v in described["versions"]] == [(1, []), (2, ["champion"])]
    assert [(s["task"], s["number"]) for s in described["suites"]] == [("a", 1)]
    assert [d["task"] for d in described["datasets"]] == ["a"]
    assert SECRET not in json.dumps(described)
    assert (whole_database(rows), stored_keys(rows)) == state


def test_lineage_of_a_trajectory_leads_to_what_serves_it(rows: Rows) -> None:
    rows.task("a")
    first = make_stored_version(rows, "a")
    child = make_stored_version(rows, "a", parent=first)
    promote_version(rows, child)
    with transaction(rows.services.sessions) as session:
        session.add(Exposure(completion_id="c1", project_id=rows.project_id, version_id=child.id))
    trained, held_out = trajectories(rows, held_out=False)[0], trajectories(rows, held_out=True)[0]
    with transaction(rows.services.sessions) as session:
        found = trajectory_lineage(session, get_trajectory(session, rows.project_id, trained.id))
        assert [v.number for v in found.versions] == [1, 2]
        assert found.jobs == (first.job_id, child.job_id)
        assert found.serving[child.id].aliases == ("champion",)
        assert (found.serving[child.id].exposures, found.serving[first.id].exposures) == (1, 0)
        other = trajectory_lineage(session, get_trajectory(session, rows.project_id, held_out.id))
        assert ([s.number for s in other.suites], other.versions, other.datasets) == ([1], (), ())
        backwards = version_lineage(session, session.get_one(Version, child.id))
        assert (backwards.ancestors, backwards.children) == ((1,), ())
        assert backwards.trajectories == len(trajectories(rows, held_out=False))


def test_withdrawing_moves_aliases_to_the_newest_good_version_and_refuses_the_rest(rows: Rows) -> None:
    rows.task("a", chats(40))
    clean = make_stored_version(rows, "a")
    bad = make_stored_version(rows, "a", passed=False)
    rows.task("b", chats(40, word=SECRET, session_id="s1"))
    learned = make_stored_version(rows, "b", parent=clean)
    child = make_stored_version(rows, "a", parent=learned)
    for version in (clean, child):
        promote_version(rows, version)
    promote_version(rows, learned, "candidate")
    with transaction(rows.services.sessions) as session:
        adapter = session.scalars(sa.select(Adapter)).one()
        route = Route(adapter_id=adapter.id, number=1, kind="ab", salt="s", level=0.05, smallest_effect=0.05)
        route.arms = [
            RouteArm(place=0, version_id=child.id, weight=0.5),
            RouteArm(place=1, version_id=clean.id, weight=0.5),
        ]
        session.add(route)
    deleted = delete(rows, "session", "s1", "withdraw")
    changed = deleted.deletion.affected
    assert {move["alias"]: (move["from"], move["to"]) for move in changed["moved"]} == {
        "bot@champion": (4, 1),
        "bot@candidate": (3, 1),
    }
    assert (changed["stranded"], changed["ended_routes"]) == ([], ["bot: route 1"])
    with transaction(rows.services.sessions) as session:
        states = states_of(session, [clean.id, bad.id, learned.id, child.id])
        assert {id_ for id_, state in states.items() if state.withdrawn_at} == {learned.id, child.id}
        assert resolve(session, rows.project_id, "bot").label == "bot@1"
        assert session.scalars(sa.select(Route.state)).all() == ["ended"]
        move = session.scalars(sa.select(AliasMove).order_by(AliasMove.seq.desc()).limit(1)).one()
        assert (move.actor, "asked for it" in move.reason) == ("key test", True)
        for number in (3, 4):
            with pytest.raises(VersionNotServable, match="was withdrawn"):
                resolve(session, rows.project_id, f"bot@{number}")
    with pytest.raises(VersionNotServable):
        promote_version(rows, child)


def test_without_a_good_version_an_alias_stays_and_its_answers_are_refused(rows: Rows) -> None:
    with_secrets(rows)
    promote_version(rows, make_stored_version(rows, "a"))
    deleted = delete(rows, "session", "s1", "withdraw")
    assert deleted.deletion.affected["stranded"] == ["bot@champion"]
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, "bot")
        assert get_alias(session, adapter, "champion").version.number == 1
        with pytest.raises(VersionNotServable):
            resolve(session, rows.project_id, "bot")


def test_retraining_redoes_the_chain_of_what_serves_one_job_after_the_other(rows: Rows) -> None:
    rows.task("a", chats(40))
    clean = make_stored_version(rows, "a")
    rows.task("b", chats(60, word=SECRET, session_id="s1") + chats(40, word="fine"))
    learned = make_stored_version(rows, "b", parent=clean)
    child = make_stored_version(rows, "a", parent=learned)
    make_stored_version(rows, "b", parent=clean, passed=False)
    promote_version(rows, child)
    deleted = delete(rows, "session", "s1", "retrain")
    [first] = deleted.started
    with transaction(rows.services.sessions) as session:
        job = session.get_one(Job, first)
        params = {key: job.params[key] for key in ("task", "parent", "promote", "replaces", "training")}
        assert params == {"task": "b", "parent": 1, "promote": False, "replaces": 2, "training": {"steps": 5}}
        assert resolve(session, rows.project_id, "bot").label == "bot@3"
    assert advance(rows) == []

    new = make_stored_version(rows, "b", parent=clean)
    with transaction(rows.services.sessions) as session:
        # The job that ran is the one that registered the version.
        session.get_one(Job, new.job_id).params = session.get_one(Job, first).params
        session.execute(sa.update(Retraining).where(Retraining.step == 0).values(job_id=new.job_id))
    [second] = advance(rows)
    assert advance(rows) == []
    with transaction(rows.services.sessions) as session:
        params = session.get_one(Job, second).params
        assert {k: params[k] for k in ("task", "parent", "promote", "replaces")} == {
            "task": "a",
            "parent": new.number,
            "promote": True,
            "replaces": 3,
        }
        found = version_lineage(session, session.get_one(Version, new.id))
        assert found.replaces is not None
        assert (found.replaces.number, found.learned_deleted) == (2, False)


def test_a_version_trained_anew_need_not_gain(rows: Rows) -> None:
    rows.task("a", chats(40))
    old, new = make_stored_version(rows, "a"), make_stored_version(rows, "a")
    with transaction(rows.services.sessions) as session:
        suite = session.scalars(sa.select(Suite)).one()
        judged = []
        for replaces in (None, 1):
            job = session.get_one(Job, new.job_id)
            job.params = {"task": "a"} | ({"replaces": replaces} if replaces else {})
            session.flush()
            champion, version = session.get_one(Version, old.id), session.get_one(Version, new.id)
            terms, suites = GateTerms(margin=0.05), {suite.task_id: suite.id}
            [comparison] = judge(session, version, baseline=champion, terms=terms, suites=suites)
            judged.append((comparison.change, comparison.passed))
    assert judged == [(0.0, False), (0.0, True)]


def test_a_chain_whose_job_fails_stops_and_says_why(rows: Rows) -> None:
    with_secrets(rows)
    first = make_stored_version(rows, "a")
    promote_version(rows, make_stored_version(rows, "a", parent=first))
    [started] = delete(rows, "session", "s1", "retrain").started
    with transaction(rows.services.sessions) as session:
        session.execute(sa.update(Job).where(Job.id == started).values(state="failed", error="no data left"))
    assert advance(rows) == []
    with transaction(rows.services.sessions) as session:
        last = session.scalars(sa.select(Retraining).where(Retraining.step == 1)).one()
        assert last.stopped == f"job {started} failed: no data left"


def test_live_trainings_on_the_data_begin_anew_and_files_written_late_are_found(rows: Rows) -> None:
    with_secrets(rows)
    version = make_stored_version(rows, "a")
    store = rows.services.store
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, "bot")
        bound, unbound = (
            jobs.create_job(session, rows.project_id, TrainWeaver.from_json({"task": "a", "parent": 1}), adapter).id
            for _ in range(2)
        )
        session.execute(sa.update(Job).where(Job.id == bound).values(dataset_id=version.dataset_id))
    for job_id in (bound, unbound):
        with transaction(rows.services.sessions) as session:
            assert jobs.claim(session, job_id, "w", 60) == 1
    [victim] = [row for row in trajectories(rows, held_out=False) if row.session_id == "s1"][:1]

    deleted = delete(rows, "trajectory", str(victim.id), "withdraw")
    assert len(deleted.started) == 2, "the second goes on from a version that learned it"
    with transaction(rows.services.sessions) as session:
        assert session.get_one(Job, bound).cancel_requested
        assert session.get_one(Job, deleted.started[0]).params == {"task": "a", "parent": None}
    assert not finish(rows, deleted)

    late = f"projects/{rows.project_id}/datasets/late.jsonl"
    store.put(late, json.dumps({"id": str(victim.id), "messages": [SECRET]}).encode())
    store.put(f"jobs/{bound}/checkpoint.safetensors", b"late")
    other = f"projects/{rows.project_id}/datasets/other.jsonl"
    store.put(other, json.dumps({"id": str(uuid.uuid4()), "messages": []}).encode())
    with transaction(rows.services.sessions) as session:
        for job_id in (bound, unbound):
            assert jobs.finish(session, job_id, 1, "cancelled")
        assert unfinished_erasures(session) == [deleted.deletion.id]
    assert finish(rows, deleted)
    keys = stored_keys(rows)
    assert late not in keys
    assert other in keys
    assert f"jobs/{bound}/checkpoint.safetensors" not in stored_keys(rows, "jobs/")
    with transaction(rows.services.sessions) as session:
        assert unfinished_erasures(session) == []


def test_an_evaluation_recorded_late_loses_its_answers_too(rows: Rows) -> None:
    with_secrets(rows)
    version = make_stored_version(rows, "a")
    with transaction(rows.services.sessions) as session:
        running = jobs.create_job(session, rows.project_id, Evaluate(1)).id
    with transaction(rows.services.sessions) as session:
        jobs.claim(session, running, "w", 60)
        old = session.scalars(sa.select(Evaluation)).one()
    deleted = delete(rows, "session", "s1")
    assert not finish(rows, deleted)
    with transaction(rows.services.sessions) as session:
        late = {c.key: getattr(old, c.key) for c in sa.inspect(Evaluation).columns if c.key not in ("id", "version_id")}
        session.add(Evaluation(**late, version_id=None))
        jobs.finish(session, running, 1, "succeeded")
    assert SECRET in whole_database(rows)
    assert finish(rows, deleted)
    assert SECRET not in whole_database(rows)
    assert version.number == 1


def test_a_suite_that_lost_an_item_is_never_used_again(rows: Rows) -> None:
    with_secrets(rows)
    make_stored_version(rows, "a")
    delete(rows, "session", "s1")
    items = chats(20, word=SECRET, session_id="s1", metadata={"user": "anna-92"})
    with transaction(rows.services.sessions) as session:
        smaller = freeze_suite(session, get_task(session, rows.project_id, "a"))
        assert smaller is not None
        assert smaller.number == 2
    with transaction(rows.services.sessions) as session:
        sent = [read_item(n, item) for n, item in enumerate(items)]
        import_batch(session, rows.project_id, sent, default_task="a", tokens=TOKENS)
    with transaction(rows.services.sessions) as session:
        task = get_task(session, rows.project_id, "a")
        again, still = freeze_suite(session, task), freeze_suite(session, task)
        assert again is not None
        assert (again.number, still) == (3, again)


def test_only_texts_and_only_in_such_a_transaction(rows: Rows) -> None:
    with_secrets(rows)
    make_stored_version(rows, "a")
    with (
        refused_as_immutable("evaluations"),
        transaction(rows.services.sessions) as session,
    ):
        session.execute(sa.update(Evaluation).values(items=[]))
    for table, change in {"evaluations": "score = 0", "versions": "code_version = ''"}.items():
        with refused_as_immutable(table), rows.services.sessions() as session, may_erase(session):
            session.execute(sa.text(f"update {table} set {change}"))


def test_what_is_not_there_or_has_changed_is_refused(rows: Rows) -> None:
    with_secrets(rows)
    with pytest.raises(TrajectoryNotFound, match="nothing of user 'ben'"):
        delete(rows, "user", "ben")
    with pytest.raises(TrajectoryNotFound):
        delete(rows, "trajectory", str(uuid.uuid4()))
    with pytest.raises(Invalid, match="a UUID"):
        delete(rows, "trajectory", "7")
    with pytest.raises(Invalid):
        delete(rows, "session", "\0")
    with pytest.raises(DeletionChanged, match="20 trajectories would be deleted, not 3"):
        delete(rows, "session", "s1", expected=3)
    other = Rows(rows.services, uuid.uuid4())
    with pytest.raises(TrajectoryNotFound):
        delete(other, "session", "s1")
    with transaction(rows.services.sessions) as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Trajectory)) == 60


def test_a_dataset_that_is_being_recorded_is_waited_for(rows: Rows) -> None:
    with_secrets(rows)
    with ThreadPoolExecutor(1) as pool:
        with transaction(rows.services.sessions) as session:
            snapshot = rows.snapshot(session, "a")
            content_hash = snapshots.record_dataset(session, snapshot).content_hash
            deleting = pool.submit(delete, rows, "session", "s1")
            with pytest.raises(TimeoutError):
                deleting.result(timeout=1.0)
        deleted = deleting.result(timeout=30)
    assert [dataset["hash"] for dataset in deleted.deletion.affected["datasets"]] == [content_hash]


def test_a_dataset_that_comes_too_late_is_refused(rows: Rows) -> None:
    with_secrets(rows)
    with transaction(rows.services.sessions) as session:
        snapshot = rows.snapshot(session, "a")
    delete(rows, "session", "s1")
    with (
        pytest.raises(SnapshotOutdated, match="of the .* trajectories were deleted"),
        transaction(rows.services.sessions) as session,
    ):
        snapshots.record_dataset(session, snapshot)


def test_one_who_comes_back_can_be_deleted_again(rows: Rows) -> None:
    routed = make_routed(rows)
    routed.start_canary(2)
    units = []
    for _ in range(2):
        assert routed.rate(routed.ask("visitor-7"), 1.0).feedback.counted
        delete(rows, "session", "visitor-7")
        with transaction(rows.services.sessions) as session:
            units.append(session.scalars(sa.select(Feedback.unit).order_by(Feedback.seq.desc()).limit(1)).one())
    assert len(set(units)) == 2
    assert hashlib.sha256(b"visitor-7").hexdigest() not in "".join(map(str, units)), "guesses could be tried"
    assert "visitor-7" not in whole_database(rows)
