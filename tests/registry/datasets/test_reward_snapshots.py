"""Datasets of trainings from reward, and the gate of a version whose trigger alone was trained."""

import json
from typing import Any

import pytest
from sqlalchemy import select

from registry import jobs
from registry.adapters import get_adapter
from registry.database import transaction
from registry.datasets import reward_snapshots, snapshots
from registry.datasets.suites import freeze_suite
from registry.errors import EmptyDataset
from registry.gates.evaluations import record_evaluation, subject_of
from registry.gates.gate import GateTerms, judge
from registry.job_requests import TrainTrigger
from registry.models import Dataset, Trajectory, Version
from registry.tasks import get_task
from registry.versions.records import register_version
from tests.registry.conftest import Rows, chats


def rewarded(count: int, rewards: list[float], **envelope: Any) -> list[dict[str, Any]]:
    """Answers with each of the rewards to each of `count` prompts."""
    return [
        {
            "messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{place}"}],
            "reward": reward,
            **envelope,
        }
        for n in range(count)
        for place, reward in enumerate(rewards)
    ]


def test_recorded_answers_keep_failures_and_their_logprobs(rows: Rows) -> None:
    logged = {"metadata": {"logprobs": [[-0.5]]}, "success": False}
    rows.task("t", [*rewarded(20, [1.0]), *rewarded(20, [0.0, 0.1], **logged)][:60])
    with transaction(rows.services.sessions) as session:
        task = get_task(session, rows.project_id, "t")
        assert reward_snapshots.has_comparison(session, task)
        made = reward_snapshots.recorded_snapshot(
            session, rows.project_id, task, earlier_tasks=(), replay_share=0.0, seed=0
        )
        lines = [json.loads(line) for line in made.jsonl.splitlines()]
        held = select(Trajectory.id).where(Trajectory.held_out)
        assert not {str(one) for one in session.scalars(held)} & {line["id"] for line in lines}
    rewards = [line["reward"] for line in lines]
    assert rewards.count(1.0) == rewards.count(0.0) == rewards.count(0.1) == len(lines) / 3 > 0
    assert all(line["metadata"] == {"logprobs": [[-0.5]]} for line in lines if line["reward"] < 1.0)


@pytest.mark.parametrize("items", [chats(20), rewarded(20, [0.5]), rewarded(20, [1.0, 1.0])], ids=len)
def test_what_can_not_be_compared_is_no_dataset(rows: Rows, items: list[dict[str, Any]]) -> None:
    rows.task("t", items)
    with transaction(rows.services.sessions) as session:
        task = get_task(session, rows.project_id, "t")
        assert not reward_snapshots.has_comparison(session, task)
        with pytest.raises(EmptyDataset, match="no prompt with several recorded answers of different rewards"):
            reward_snapshots.recorded_snapshot(
                session, rows.project_id, task, earlier_tasks=(), replay_share=0.0, seed=0
            )


def test_a_shared_opening_is_no_prompt(rows: Rows) -> None:
    """Different questions behind it are not compared, and the manifest says where prompts end."""
    opening = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    items = [{**item, "messages": [*opening, *item["messages"]]} for item in rewarded(40, [1.0])]
    for number, item in enumerate(items):
        item["reward"] = float(number % 2)
    rows.task("apart", items, shared_turns=1)
    compared = [{**item, "messages": [*opening, *item["messages"]]} for item in rewarded(40, [1.0, 0.0])]
    rows.task("together", compared, shared_turns=1)
    with transaction(rows.services.sessions) as session:
        apart, together = (get_task(session, rows.project_id, name) for name in ("apart", "together"))
        assert not reward_snapshots.has_comparison(session, apart)
        assert reward_snapshots.has_comparison(session, together)
        made = reward_snapshots.recorded_snapshot(
            session, rows.project_id, together, earlier_tasks=(), replay_share=0.0, seed=0
        )
    assert made.manifest.shared_turns == {"together": 1}


def test_replay_takes_whole_groups_up_to_its_share(rows: Rows) -> None:
    rows.task("old", rewarded(40, [1.0, 0.0]))
    rows.task("new", rewarded(40, [1.0, 0.0]))
    with transaction(rows.services.sessions) as session:
        old, new = (get_task(session, rows.project_id, name) for name in ("old", "new"))
        made = [
            reward_snapshots.recorded_snapshot(
                session, rows.project_id, new, earlier_tasks=[old], replay_share=0.25, seed=0
            )
            for _ in range(2)
        ]
        replayed = [row for row, is_replayed in made[0].items if is_replayed]
        groups = reward_snapshots.comparable_groups(
            session.scalars(select(Trajectory).where(Trajectory.id.in_(replayed)))
        )
    assert made[0].content_hash == made[1].content_hash
    assert sum(map(len, groups.values())) == len(replayed)
    assert 0 <= len(replayed) - len([1 for _, is_replayed in made[0].items if not is_replayed]) / 3 < 2


def test_questions_carry_graders_and_metadata(rows: Rows) -> None:
    rows.task("old")
    rows.task("t", chats(20, metadata={"choices": ["a", "b"]}))
    with transaction(rows.services.sessions) as session:
        old, task = (get_task(session, rows.project_id, name) for name in ("old", "t"))
        options: dict[str, Any] = {"replay_share": 0.25, "min_reward": 0.5, "seed": 0}
        made = reward_snapshots.question_snapshot(session, rows.project_id, task, earlier_tasks=[old], **options)
        plain = snapshots.snapshot(session, rows.project_id, task, earlier_tasks=[old], **options)
    assert made.items == plain.items
    assert made.content_hash != plain.content_hash
    assert made.manifest.graders == {"t": {"kind": "exact"}, "old": {"kind": "exact"}}
    lines = [json.loads(line) for line in made.jsonl.splitlines()]
    assert all(line["metadata"] == {"choices": ["a", "b"]} for line in lines if not line["replayed"])


def trigger_version(rows: Rows, parent: Version) -> Version:
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, rows.adapter, lock=True)
        task = get_task(session, rows.project_id, "t")
        made = reward_snapshots.trigger_snapshot(session, rows.project_id, task, [task], min_reward=0.5, seed=0)
        job = jobs.create_job(session, rows.project_id, TrainTrigger(("t",)), adapter)
        job.dataset_id = snapshots.record_dataset(session, made).id
        return register_version(
            session,
            job,
            adapter,
            parent_id=parent.id,
            artifact_key="k",
            artifact_hash="ab" * 32,
            code_version="test",
            report={"flags": []},
        )


@pytest.mark.parametrize(("champion", "passes"), [(True, True), (False, False)])
def test_a_trigger_has_to_hold_what_serves_but_gain_on_what_does_not(rows: Rows, champion: bool, passes: bool) -> None:
    """Equal scores: enough beside the champion that its weaver comes from, no gain over the bare base."""
    rows.task("t")
    first = rows.version("t")
    second = trigger_version(rows, first)
    with transaction(rows.services.sessions) as session:
        first, second = session.merge(first), session.merge(second)
        suite = freeze_suite(session, get_task(session, rows.project_id, "t"))
        assert suite is not None
        baseline = first if champion else None
        for version in (baseline, second):
            who = subject_of(second.adapter, version)
            scores = [{"score": float(n % 2), "answer": ""} for n in range(suite.items)]
            record_evaluation(session, who, suite.id, score=0.5, items=scores, seconds=0.0)
        [found] = judge(session, second, baseline=baseline, terms=GateTerms(0.05), suites={suite.task_id: suite.id})
        assert (found.new, found.passed) == (not champion, passes)
        assert session.get_one(Dataset, second.dataset_id).manifest["trains"] == "trigger"
