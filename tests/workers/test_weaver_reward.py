"""The job `train_weaver` from reward, on real servers with a tiny base: played questions and recorded answers."""

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from memgen.errors import Cancelled
from memgen.tasks.environments import open_environment
from memgen.text.answers import Answer
from registry import jobs
from registry.database import transaction
from registry.datasets.manifest import JudgingTask, Manifest
from registry.job_requests import PlayedEnvironment
from registry.models import Dataset, Job, Trajectory
from registry.trajectories.holdout import beginning_hash, held_out
from tests.workers.conftest import Workshop, answers
from workers import weaver_reward
from workers.reward_items import items_of
from workers.runner import Running

LETTER_FIRST = {"kind": "regex", "pattern": "^[A-Za-z]"}
"""Rewards an answer that begins with a letter: one token in five, so that a random base earns it now and then."""
PLAYED = {
    "steps": 25,
    "items_per_step": 4,
    "group_size": 8,
    "batch_size": 32,
    "max_new_tokens": 1,
    "learning_rate": 0.02,
    "query_learning_rate": 0.02,
}
RECORDED = {"steps": 30, "items_per_step": 8, "batch_size": 16, "learning_rate": 0.02, "query_learning_rate": 0.02}


def recorded(count: int = 24) -> list[dict[str, Any]]:
    """Two answers to each prompt: `yes` earns the reward, `no` does not."""
    return [
        {
            "messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": word}],
            "reward": reward,
            "success": bool(reward),
        }
        for n in range(count)
        for word, reward in (("yes", 1.0), ("no", 0.0))
    ]


def play(workshop: Workshop, task: str, parent: int | None = None, **training: Any) -> Job:
    params = {"task": task, "parent": parent, "method": "grpo", "training": {**PLAYED, **training}}
    return workshop.work(workshop.queue_job("train_weaver", params))


def test_a_weaver_learns_from_the_graders_reward_alone(workshop: Workshop) -> None:
    workshop.add_task("letters", answers("letters"), LETTER_FIRST)
    job = play(workshop, "letters")
    assert (job.state, job.error) == ("succeeded", None)
    assert job.result is not None
    assert job.result["scores"]["v1"]["letters"] > job.result["scores"]["base"]["letters"]
    assert (job.result["gate"], workshop.champion()) == ("passed", 1)
    [version] = workshop.versions()
    assert version.report["rewards"][-1] > version.report["rewards"][0]
    assert version.report["trained"] == ["weaver"]
    events = workshop.events(job.id)
    told = [e.data for e in events if (e.level, e.message) == ("progress", "train")][-1]
    assert told["step"] == told["steps"] == PLAYED["steps"]
    assert {"reward", "groups_skipped", "invoked", "loss", "seconds_left"} <= set(told)
    assert told["invoked"] == 1.0
    [playing] = [e for e in events if e.message.startswith("playing")]
    with transaction(workshop.services.sessions) as session:
        dataset = session.get_one(Dataset, version.dataset_id)
        assert dataset.manifest["graders"] == {"letters": LETTER_FIRST}
        assert playing.data["items"] == {"letters": dataset.manifest["new"]}


def test_a_job_says_how_many_devices_it_wants(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes take seconds to start, so one method's job gets some; the refusal shows that the other asks as well."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    workshop.add_task("letters", recorded(), LETTER_FIRST)
    wanted = {"task": "letters", "parent": None}
    params = {**wanted, "method": "grpo", "training": {**PLAYED, "steps": 3, "devices": 2}}
    job = workshop.work(workshop.queue_job("train_weaver", params))
    assert (job.state, job.error) == ("succeeded", None)
    told = [e.data for e in workshop.events(job.id) if (e.level, e.message) == ("progress", "train")]
    assert [each["step"] for each in told][-1] == 3
    for method, training in (("grpo", PLAYED), ("grpo_recorded", RECORDED)):
        params = {**wanted, "method": method, "training": {**training, "devices": 3}}
        refused = workshop.work(workshop.queue_job("train_weaver", params))
        assert refused.state == "failed"
        assert "the job asks for 3 cpu devices, this machine has 2" in str(refused.error)


def test_a_killed_training_goes_on_as_if_nothing_was(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop.add_task("letters", answers("letters"), LETTER_FIRST)
    params = {"task": "letters", "parent": None, "method": "grpo", "training": {**PLAYED, "steps": 8}}
    job_id = workshop.queue_job("train_weaver", params)

    class Killed(BaseException):
        pass

    def die(running: Running, step: Any) -> None:
        if step.step == 4:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(weaver_reward, "on_step", die)
        with pytest.raises(Killed):
            workshop.work(job_id)
    with transaction(workshop.services.sessions) as session:
        past = sa.func.now() - sa.text("interval '1 second'")
        session.execute(sa.update(Job).where(Job.id == job_id).values(lease_until=past))
    done = workshop.work(job_id)
    assert (done.state, done.attempt) == ("succeeded", 2)
    assert "continuing from the checkpoint of an earlier attempt" in [e.message for e in workshop.events(job_id)]
    workshop.work(workshop.queue_job("train_weaver", params))
    resumed, unbroken = workshop.versions()
    assert len(resumed.report["rewards"]) == 8
    assert resumed.report["rewards"] == unbroken.report["rewards"]
    assert resumed.report["losses"] == unbroken.report["losses"]
    assert resumed.dataset_id == unbroken.dataset_id


def test_recorded_answers_teach_by_their_difference(workshop: Workshop) -> None:
    """Failures are in the dataset although they are below `min_reward`, and are what the better answers beat."""
    workshop.add_task("pick", recorded())
    params = {"task": "pick", "parent": None, "method": "grpo_recorded", "min_reward": 0.5, "training": RECORDED}
    job = workshop.work(workshop.queue_job("train_weaver", params))
    assert (job.state, job.error) == ("succeeded", None)
    [version] = workshop.versions()
    assert version.report["flags"] == []
    with transaction(workshop.services.sessions) as session:
        dataset = session.get_one(Dataset, version.dataset_id)
        lines = workshop.services.store.get(dataset.object_key).decode().splitlines()
    rewards = [json.loads(line)["reward"] for line in lines]
    assert rewards.count(0.0) == rewards.count(1.0) > 0
    [compared] = [e for e in workshop.events(job.id) if e.message.startswith("comparing")]
    assert compared.message == f"comparing the answers of {rewards.count(1.0)} groups"


def test_without_a_difference_there_is_nothing_to_learn(workshop: Workshop) -> None:
    workshop.add_task("same", [{**item, "reward": 1.0} for item in answers("same")])
    job = workshop.work(
        workshop.queue_job("train_weaver", {"task": "same", "method": "grpo_recorded", "training": RECORDED})
    )
    assert job.state == "failed"
    assert job.error is not None
    assert job.error.startswith("task 'same' has no prompt with several recorded answers of different rewards")


def test_rewards_that_never_differ_are_flagged_and_rejected(workshop: Workshop) -> None:
    workshop.add_task("hard", answers("hard"))
    job = play(workshop, "hard", steps=2)
    assert job.state == "succeeded", job.error
    [version] = workshop.versions()
    assert "no group had a spread of rewards: all advantages were zero" in version.report["flags"]
    assert job.result is not None
    assert (job.result["gate"], workshop.champion()) == ("rejected", None)


def test_earlier_tasks_are_replayed_with_their_own_graders(workshop: Workshop) -> None:
    workshop.add_task("yes")
    workshop.add_task("letters", answers("letters"), LETTER_FIRST)
    workshop.work(workshop.queue("yes"))
    job = play(workshop, "letters", parent=1, steps=2)
    assert job.state == "succeeded", job.error
    [playing] = [e for e in workshop.events(job.id) if e.message.startswith("playing")]
    assert playing.data["graders"] == {"letters": LETTER_FIRST, "yes": {"kind": "exact"}}
    assert playing.data["items"]["yes"] > 0


def test_items_may_come_from_an_environment_but_for_those_that_the_gate_asks(
    workshop: Workshop, tmp_path: Path
) -> None:
    """Its experts' conversations were uploaded: what is held out of them is not played."""
    options = {"options": {"max_word_len": 5}}
    environment = {"name": "reasoning-gym:spell_backward", "options": options, "items": 60}
    drawn = open_environment("reasoning-gym:spell_backward", options, folder=tmp_path).training_items(60)
    workshop.add_task("spell", [{"messages": list(item.expert or ())} for item in drawn])
    with transaction(workshop.services.sessions) as session:
        asked = session.query(Trajectory).where(Trajectory.held_out).count()
    training = {**PLAYED, "steps": 1, "items_per_step": 2, "group_size": 2}
    params = {"task": "spell", "method": "grpo", "environment": environment, "training": training}
    job = workshop.work(workshop.queue_job("train_weaver", params))
    assert job.state == "succeeded", job.error
    [playing] = [e for e in workshop.events(job.id) if e.message.startswith("playing")]
    assert 0 < asked < 60
    assert playing.data["items"] == {"reasoning-gym:spell_backward": 60 - asked}
    [version] = workshop.versions()
    with transaction(workshop.services.sessions) as session:
        assert session.get_one(Dataset, version.dataset_id).manifest["environment"] == environment


def test_an_environments_items_without_experts_are_kept_from_the_gate_too(tmp_path: Path) -> None:
    """Uploads made from them are somebody's own answers, held out by what was asked."""
    environment = PlayedEnvironment("reasoning-gym:rush_hour", {}, 12)
    manifest = Manifest("games", 0, {}, 0.0, 0, environment=environment, held_out=(JudgingTask("games", 0.5, 0),))
    drawn = open_environment("reasoning-gym:rush_hour", {}, folder=tmp_path).training_items(12)
    sides = [
        held_out("games", beginning_hash([*item.open().reset().messages, {"role": "assistant", "content": "?"}]), 0.5)
        for item in drawn
    ]
    assert {item.expert for item in drawn} == {None}
    [kept] = items_of(manifest, [], tmp_path).values()
    assert 0 < len(kept) < 12
    expected = [item.item_id for item, side in zip(drawn, sides, strict=True) if not side]
    assert [item.item_id for item in kept] == expected
    with pytest.raises(Cancelled):
        items_of(manifest, [], tmp_path, should_stop=lambda: True)


def test_the_best_recorded_answer_is_the_reference(tmp_path: Path) -> None:
    manifest = Manifest("sums", 3, {}, 0.0, 0, graders={"sums": {"kind": "numeric"}})
    lines = [
        {
            "id": answer,
            "task": "sums",
            "messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": answer}],
            "tools": None,
            "reward": reward,
            "metadata": {},
        }
        for answer, reward in (("5", 0.5), ("4", 1.0), ("3", 0.7))
    ]
    [[item]] = items_of(manifest, lines, tmp_path).values()
    assert item.open().step(Answer("4")).reward == 1.0
    assert item.open().step(Answer("5")).reward == 0.0


def test_a_cancelled_training_stops_and_registers_nothing(workshop: Workshop) -> None:
    workshop.add_task("letters", answers("letters"), LETTER_FIRST)
    params = {"task": "letters", "method": "grpo", "training": {**PLAYED, "steps": 100_000}}
    job_id = workshop.queue_job("train_weaver", params)
    thread = threading.Thread(target=workshop.work, args=(job_id,))
    thread.start()
    while not workshop.job(job_id).progress:
        time.sleep(0.05)
    with transaction(workshop.services.sessions) as session:
        jobs.request_cancel(session, workshop.project_id, job_id)
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert (workshop.job(job_id).state, workshop.versions()) == ("cancelled", [])
