"""The job `train_weaver` on real servers with a tiny base."""

import json
import threading
import time
import uuid
from typing import Any

import pytest
import sqlalchemy as sa

from registry import jobs
from registry.adapters import get_adapter
from registry.database import transaction
from registry.errors import ObjectNotFound, StoreUnavailable
from registry.gates.verdict import gate_of
from registry.models import Adapter, Evaluation, Gate, Job
from registry.versions.ancestry import learned_tasks
from registry.versions.state import withdraw
from registry.wiring import Services
from tests.workers.conftest import TRAINING, Workshop, answers
from workers import registration, scoring
from workers.jobs import train_weaver
from workers.model import Model
from workers.runner import Running


def test_two_tasks_are_learned_one_after_the_other(workshop: Workshop) -> None:
    workshop.add_task("yes")
    workshop.add_task("nope")

    first = workshop.work(workshop.queue("yes"))
    assert (first.state, first.error) == ("succeeded", None)
    assert first.result == {
        "version": 1,
        "gate": "passed",
        "scores": {"base": {"yes": 0.0}, "v1": {"yes": 1.0}},
    }
    assert workshop.champion() == 1

    second = workshop.work(workshop.queue("nope", parent=1, training={"steps": 40}))
    assert second.state == "succeeded", second.error
    assert second.result is not None
    assert second.result["scores"]["v2"]["nope"] == 1.0
    assert set(second.result["scores"]["v1"]) == {"yes", "nope"}

    v1, v2 = workshop.versions()
    with transaction(workshop.services.sessions) as session:
        v2 = session.merge(v2, load=True)
        assert [t.name for t in learned_tasks(session, v2)] == ["yes", "nope"]
        gate = gate_of(session, v2)
        assert gate is not None
        assert gate.champion_id == v1.id
        assert {c["task"]: c["new"] for c in gate.comparisons} == {"yes": False, "nope": True}
        lines = workshop.services.store.get(v2.dataset.object_key).decode().splitlines()
    assert v2.parent_id == v1.id
    replayed = [json.loads(line)["task"] for line in lines if json.loads(line)["replayed"]]
    assert set(replayed) == {"yes"}
    assert workshop.champion() == (2 if gate.passed else 1)


def test_a_task_that_is_mostly_on_one_side_is_warned_of(workshop: Workshop) -> None:
    opening = [{"role": "user", "content": "Begin."}, {"role": "assistant", "content": "Yes?"}]
    alike = [{"messages": [*opening, *item["messages"]]} for item in answers("yes", 40)]
    workshop.add_task("yes", [*alike, *answers("yes")])
    job_id = workshop.queue("yes", training={"steps": 1})
    assert workshop.work(job_id).state == "succeeded"
    [told] = [event for event in workshop.events(job_id) if "begin alike" in event.message]
    assert (told.level, told.data) == ("warning", {"task": "yes", "alike": 40, "of": 64})


def test_progress_is_reported(workshop: Workshop) -> None:
    workshop.add_task("yes")
    job_id = workshop.queue("yes")
    workshop.work(job_id)
    events = workshop.events(job_id)
    trained = [e.data for e in events if (e.level, e.message) == ("progress", "train")]
    assert trained[-1]["step"] == trained[-1]["steps"] == TRAINING["steps"]
    assert set(trained[-1]) == {"step", "steps", "loss", "tokens_per_second", "seconds_left"}
    assert trained[-1]["tokens_per_second"] > 0
    messages = [e.message for e in events if e.level == "info"]
    assert messages[:2] == ["queued", "started"]
    assert "registered bot@1" in messages
    assert "evaluate v1 on yes: 100.0%" in messages
    assert messages[-2:] == ["gate passed", "succeeded"]


def test_a_job_delivered_twice_makes_one_version(workshop: Workshop) -> None:
    workshop.add_task("yes")
    job_id = workshop.queue("yes")
    threads = [threading.Thread(target=workshop.work, args=(job_id,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    workshop.work(job_id)
    assert len(workshop.versions()) == 1
    assert workshop.job(job_id).attempt == 1


def test_a_worker_that_dies_is_followed_by_one_that_goes_on(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first worker vanishes in the middle of training, without a word; the second ends as if nothing was."""
    workshop.add_task("yes")
    job_id = workshop.queue("yes")

    class Killed(BaseException):
        pass

    def die(running: Running, step: object) -> None:
        if step.step == 12:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(train_weaver, "_on_step", die)
        with pytest.raises(Killed):
            workshop.work(job_id)
    assert workshop.job(job_id).state == "running"
    _expire(workshop.services, job_id)
    done = workshop.work(job_id)
    assert (done.state, done.attempt) == ("succeeded", 2)
    messages = [e.message for e in workshop.events(job_id)]
    assert "continuing from the checkpoint of an earlier attempt" in messages
    [version] = workshop.versions()
    assert len(version.report["losses"]) == TRAINING["steps"]
    with pytest.raises(ObjectNotFound):
        workshop.services.store.get(f"jobs/{job_id}/checkpoint.safetensors")

    unbroken = workshop.work(workshop.queue("yes"))
    assert unbroken.result is not None
    one, other = workshop.versions()
    assert one.report["losses"] == other.report["losses"]
    assert one.dataset_id == other.dataset_id


def test_a_worker_that_dies_after_registering_trains_no_second_version(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.add_task("yes")
    job_id = workshop.queue("yes")

    def fail(*_: object, **__: object) -> None:
        raise StoreUnavailable("the store went away")

    with monkeypatch.context() as patched:
        patched.setattr(registration, "score_and_judge", fail)
        interrupted = workshop.work(job_id)
    assert interrupted.state == "queued"
    assert workshop.events(job_id)[-1].message == "returned to the queue: the store went away"
    done = workshop.work(job_id)
    assert (done.state, done.attempt, len(workshop.versions())) == ("succeeded", 2, 1)


def test_a_version_that_forgets_is_rejected_and_serves_nobody(workshop: Workshop) -> None:
    """Without replay the second task wipes the first one out, as it would in earnest."""
    with transaction(workshop.services.sessions) as session:
        session.execute(sa.text("update adapters set strategy = 'sequential', replay_share = 0"))
    workshop.add_task("yes")
    # The same prompts as `yes`, other answers: the two tasks can't both be right.
    clash = [
        {"messages": [row["messages"][0], {"role": "assistant", "content": "no!"}], "session_id": str(n)}
        for n, row in enumerate(answers("yes", 40))
    ]
    workshop.add_task("clash", clash)
    workshop.work(workshop.queue("yes"))
    done = workshop.work(workshop.queue("clash", parent=1))
    assert done.result is not None
    assert done.result["gate"] == "rejected"
    assert workshop.champion() == 1
    with transaction(workshop.services.sessions) as session:
        gate = session.scalars(sa.select(Gate).order_by(Gate.created_at.desc()).limit(1)).one()
        assert not gate.passed
        assert any("yes: 100.0% to" in reason and "more than the allowed drop" in reason for reason in gate.reasons)


def test_a_champion_that_moves_meanwhile_is_compared_with(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the evaluation and the verdict another version becomes champion."""
    from registry.adapters import get_adapter
    from registry.serving.aliases import promote

    workshop.add_task("yes")
    first = workshop.queue("yes")
    with transaction(workshop.services.sessions) as session:
        session.execute(
            sa.text("update jobs set params = params || '{\"promote\": false}' where id = :id"), {"id": first}
        )
    workshop.work(first)
    judged = scoring._judge

    def move_first(*arguments: object) -> bool | None:
        if workshop.champion() is None:
            with transaction(workshop.services.sessions) as session:
                adapter = get_adapter(session, workshop.project_id, "bot", lock=True)
                promote(session, adapter, "champion", workshop.versions()[0], actor="somebody", reason="")
        return judged(*arguments)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(scoring, "_judge", move_first)
    done = workshop.work(workshop.queue("yes"))
    assert done.state == "succeeded", done.error
    v1, v2 = workshop.versions()
    with transaction(workshop.services.sessions) as session:
        gate = gate_of(session, session.merge(v2))
        assert gate is not None
        assert gate.champion_id == v1.id
        assert gate.comparisons[0]["champion"] == 1.0
        assert not gate.passed
    assert workshop.champion() == 1


def test_a_cancelled_job_stops_and_registers_nothing(workshop: Workshop) -> None:
    workshop.add_task("yes")
    job_id = workshop.queue("yes", training={"steps": 100_000})
    thread = threading.Thread(target=workshop.work, args=(job_id,))
    thread.start()
    while not workshop.job(job_id).progress:
        time.sleep(0.05)
    with transaction(workshop.services.sessions) as session:
        jobs.request_cancel(session, workshop.project_id, job_id)
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert workshop.job(job_id).state == "cancelled"
    assert workshop.versions() == []


def test_a_training_cancelled_by_a_deletion_registers_nothing(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which committed while the training waited for the adapter, before a heartbeat could tell."""
    workshop.add_task("yes")
    job_id = workshop.queue("yes", training={"steps": 2})
    saved = registration.save_artifact

    def cancel_then_save(*arguments: Any) -> str:
        with transaction(workshop.services.sessions) as session:
            jobs.request_cancel(session, workshop.project_id, job_id)
        return saved(*arguments)

    monkeypatch.setattr(registration, "save_artifact", cancel_then_save)
    assert workshop.work(job_id).state == "cancelled"
    assert workshop.versions() == []


def test_nothing_goes_on_from_a_version_withdrawn_meanwhile(workshop: Workshop) -> None:
    workshop.add_task("yes")
    workshop.work(workshop.queue("yes", training={"steps": 2}))
    queued = [
        workshop.queue("yes", parent=1, training={"steps": 2}),
        workshop.queue_job("train_trigger", {"parent": 1, "tasks": ["yes"]}),
    ]
    [version] = workshop.versions()
    with transaction(workshop.services.sessions) as session:
        withdraw(session, session.merge(version), actor="test", reason="", evidence={})
    for job_id in queued:
        done = workshop.work(job_id)
        assert (done.state, done.dataset_id) == ("failed", None)
        assert done.error is not None
        assert done.error.startswith("bot@1 was withdrawn at ")


def test_an_error_of_the_user_is_told(workshop: Workshop) -> None:
    workshop.add_task("none", [])
    done = workshop.work(workshop.queue("none"))
    assert done.state == "failed"
    assert done.error is not None
    assert done.error.startswith("task 'none' has no trajectory to train on")


def test_an_adapter_of_another_base_is_refused(workshop: Workshop) -> None:
    workshop.add_task("yes")
    with transaction(workshop.services.sessions) as session:
        session.execute(sa.text("update adapters set base_revision = 'sha256:other'"))
    done = workshop.work(workshop.queue("yes"))
    assert done.state == "failed"
    assert done.error is not None
    assert "adapter 'bot' is bound to" in done.error
    assert "at sha256:other; this worker has" in done.error


def test_an_adapter_of_another_template_is_refused_and_one_of_an_earlier_release_is_not(workshop: Workshop) -> None:
    workshop.add_task("yes")
    with transaction(workshop.services.sessions) as session:
        session.execute(sa.text("update adapters set base_identity = null"))
    with transaction(workshop.services.sessions) as session:
        model = Model(workshop.services)
        bound = get_adapter(session, workshop.project_id, "bot")
        assert bound.base_identity == model.host.backbone.identity.to_mapping()
        bound.base_identity = {**bound.base_identity, "chat_template": "another"}
    done = workshop.work(workshop.queue("yes"))
    assert done.state == "failed"
    assert done.error is not None
    assert "another chat template (chat_template.jinja" in done.error
    assert "than this worker has. A memory answers only to" in done.error


def test_a_weaver_that_reads_the_prompt_again_is_trained_and_gated(workshop: Workshop) -> None:
    workshop.add_task("yes")
    _let_read_again(workshop, 16)
    done = workshop.work(workshop.queue("yes"))
    assert (done.state, done.error) == ("succeeded", None)
    assert done.result == {"version": 1, "gate": "passed", "scores": {"base": {"yes": 0.0}, "v1": {"yes": 1.0}}}


def test_turns_too_long_beside_what_is_read_again_are_skipped(workshop: Workshop) -> None:
    """The tiny base takes 1024 tokens; 990 read again and 28 latents leave 6, and no turn is as short."""
    workshop.add_task("yes")
    _let_read_again(workshop, 990)
    done = workshop.work(workshop.queue("yes"))
    assert done.state == "failed"
    assert done.error is not None
    assert "turns are longer than 1024 tokens or than the model has room for" in done.error


def _let_read_again(workshop: Workshop, tokens: int) -> None:
    with transaction(workshop.services.sessions) as session:
        [adapter] = session.query(Adapter)
        adapter.memory = {**adapter.memory, "reread_tokens": tokens}


def test_the_base_is_evaluated_once_and_evaluations_keep_their_answers(workshop: Workshop) -> None:
    workshop.add_task("yes")
    workshop.work(workshop.queue("yes"))
    again = workshop.work(workshop.queue_evaluation(1))
    assert again.result == {"version": 1, "scores": {"base": {"yes": 0.0}, "v1": {"yes": 1.0}}}
    with transaction(workshop.services.sessions) as session:
        found = session.scalars(sa.select(Evaluation)).all()
        assert len(found) == 2
        of_v1 = next(e for e in found if e.version_id)
        assert {item["answer"] for item in of_v1.items} == {"yes"}
        assert len(of_v1.items) == of_v1.suite.items


def _expire(services: Services, job_id: uuid.UUID) -> None:
    with transaction(services.sessions) as session:
        past = sa.func.now() - sa.text("interval '1 second'")
        session.execute(sa.update(Job).where(Job.id == job_id).values(lease_until=past))


def test_a_version_of_another_base_is_not_scored_under_its_name(workshop: Workshop) -> None:
    workshop.add_task("yes")
    workshop.work(workshop.queue("yes"))
    workshop.add_task("more")
    with transaction(workshop.services.sessions) as session:
        before = session.scalar(sa.select(sa.func.count()).select_from(Evaluation))
        session.execute(sa.text('update adapters set base_identity = \'{"tokenizer": "another"}\''))
    done = workshop.work(workshop.queue_evaluation(1))
    assert done.state == "failed"
    assert done.error is not None
    assert "another tokenizer (tokenizer.json" in done.error
    with transaction(workshop.services.sessions) as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Evaluation)) == before
