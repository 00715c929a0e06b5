"""Datasets and suites: what enters, what never does, and that the same rows give the same snapshot."""

import json
import uuid

import pytest
from sqlalchemy.orm import Session

from registry.database import transaction
from registry.datasets import snapshots, suites
from registry.datasets.snapshots import Snapshot
from registry.datasets.suites import freeze_suite, suite_trajectories
from registry.errors import EmptyDataset
from registry.models import Trajectory
from registry.tasks import get_task
from tests.registry.conftest import Rows, chats


def _snapshot(
    session: Session, rows: Rows, task: str, earlier: tuple[str, ...] = (), share: float = 0.25, min_reward: float = 0.5
) -> Snapshot:
    return snapshots.snapshot(
        session,
        rows.project_id,
        get_task(session, rows.project_id, task),
        earlier_tasks=[get_task(session, rows.project_id, name) for name in earlier],
        replay_share=share,
        min_reward=min_reward,
        seed=1,
    )


def test_held_out_trajectories_never_enter(rows: Rows) -> None:
    rows.task("a", share=0.4)
    rows.task("b", share=0.4)
    with transaction(rows.services.sessions) as session:
        snapshot = _snapshot(session, rows, "b", ("a",), share=0.9)
        chosen = {session.get_one(Trajectory, item) for item, _ in snapshot.items}
        suites = [freeze_suite(session, get_task(session, rows.project_id, name)) for name in ("a", "b")]
        held_out = {row for suite in suites if suite for row in suite_trajectories(session, suite.id)}
    assert chosen
    assert held_out
    assert not any(row.held_out for row in chosen)
    assert all(row.held_out for row in held_out)
    assert not {r.beginning_hash for r in chosen} & {r.beginning_hash for r in held_out}


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
def test_the_replay_share_is_of_the_whole_and_balanced(rows: Rows, share: float) -> None:
    for name in ("a", "b", "c"):
        rows.task(name, chats(60, word=name))
    with transaction(rows.services.sessions) as session:
        snapshot = _snapshot(session, rows, "c", ("a", "b"), share=share)
    lines = [json.loads(line) for line in snapshot.jsonl.decode().splitlines()]
    replayed = [line["task"] for line in lines if line["replayed"]]
    assert len(replayed) / len(lines) == pytest.approx(share, abs=0.02)
    assert replayed.count("a") == replayed.count("b")
    assert snapshot.manifest.replayed == {"a": replayed.count("a"), "b": replayed.count("b")}


def test_a_snapshot_is_repeatable_and_recorded_once(rows: Rows) -> None:
    rows.task("a")
    rows.task("b")
    with transaction(rows.services.sessions) as session:
        one, other = (_snapshot(session, rows, "b", ("a",)) for _ in range(2))
        assert one == other
        assert snapshots.record_dataset(session, one).id == snapshots.record_dataset(session, other).id


def test_failures_and_low_rewards_are_not_learned_from(rows: Rows) -> None:
    items = [
        *chats(20, word="good", reward=1.0),
        *chats(20, word="plain"),
        *chats(20, word="weak", reward=0.4),
        *chats(20, word="failed", success=False, reward=1.0),
    ]
    rows.task("a", items)
    with transaction(rows.services.sessions) as session:
        text = _snapshot(session, rows, "a").jsonl.decode()
        everything = _snapshot(session, rows, "a", min_reward=0.0).jsonl.decode()
        suite = freeze_suite(session, get_task(session, rows.project_id, "a"))
        assert suite is not None
        held_out = [r.messages[0]["content"] for r in suite_trajectories(session, suite.id)]
    assert "good" in text
    assert "plain" in text
    assert "weak" not in text
    assert "weak" in everything
    assert "failed" not in text + everything
    assert not any("failed" in prompt for prompt in held_out)


def test_nothing_to_learn_is_an_error(rows: Rows) -> None:
    rows.task("a", chats(10, success=False))
    with transaction(rows.services.sessions) as session, pytest.raises(EmptyDataset, match="task 'a' has no traj"):
        _snapshot(session, rows, "a")


def test_a_suite_is_frozen_until_something_is_added(rows: Rows) -> None:
    rows.task("a")
    with transaction(rows.services.sessions) as session:
        task = get_task(session, rows.project_id, "a")
        first, again = freeze_suite(session, task), freeze_suite(session, task)
        assert first is not None
        assert again is not None
        assert (first.number, first.id) == (1, again.id)
    from registry.trajectories.imports import import_batch, read_item
    from tests.registry.conftest import TOKENS

    with transaction(rows.services.sessions) as session:
        sent = [read_item(n, item) for n, item in enumerate(chats(40, word="more"))]
        import_batch(session, rows.project_id, sent, default_task="a", tokens=TOKENS)
    with transaction(rows.services.sessions) as session:
        second = freeze_suite(session, get_task(session, rows.project_id, "a"))
        assert second is not None
        assert (second.number, second.items > first.items) == (2, True)
        assert len(suite_trajectories(session, first.id)) == first.items


def test_failures_are_no_references(rows: Rows) -> None:
    """By the sender's `success`, else by the reward."""
    items = []
    for fields, right in (
        ({"reward": 1.0}, True),
        ({"reward": 0.0}, False),
        ({"success": False}, False),
        ({"success": False, "reward": 1.0}, False),
        ({"success": True, "reward": -3.0}, True),
        ({}, True),
    ):
        for n in range(20):
            messages = [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"{right} {fields}"}]
            items.append({"messages": messages, **fields})
    rows.task("a", items)
    with transaction(rows.services.sessions) as session:
        suite = freeze_suite(session, get_task(session, rows.project_id, "a"))
        assert suite is not None
        answers = [item.messages[-1]["content"] for item in suite_trajectories(session, suite.id)]
    assert answers
    assert all(answer.startswith("True") for answer in answers)
    assert len(set(answers)) == 3


def test_a_task_without_held_out_items_has_no_suite(rows: Rows) -> None:
    rows.task("a", [])
    with transaction(rows.services.sessions) as session:
        assert freeze_suite(session, get_task(session, rows.project_id, "a")) is None


def test_what_is_replayed_of_a_task_hardly_changes_as_it_grows(rows: Rows) -> None:
    """A reservoir: each newcomer displaces one item at most, and every item has the same chance."""
    from registry.trajectories.imports import import_batch, read_item
    from tests.registry.conftest import TOKENS

    rows.task("a", chats(60, word="early"))
    rows.task("b", chats(60, word="b"))

    def replayed() -> tuple[list[str], dict[str, object]]:
        with transaction(rows.services.sessions) as session:
            taken = _snapshot(session, rows, "b", ("a",), share=0.2)
        lines = [json.loads(line) for line in taken.jsonl.decode().splitlines()]
        return [line["id"] for line in lines if line["replayed"]], (taken.manifest.buffer or {})["a"]

    before, buffer = replayed()
    with transaction(rows.services.sessions) as session:
        sent = [read_item(n, item) for n, item in enumerate(chats(6, word="late"))]
        import_batch(session, rows.project_id, sent, default_task="a", tokens=TOKENS)
    after, grown = replayed()
    assert len(before) == len(after) == len(set(after)) == buffer["items"]
    newcomers = set(after) - set(before)
    assert len(newcomers) <= grown["pool"] - buffer["pool"] <= 6
    assert [item for item in after if item in before] == [item for item in before if item in after]


def test_a_task_smaller_than_its_part_is_replayed_again_and_again(rows: Rows) -> None:
    rows.task("a", chats(4, word="few"))
    rows.task("b", chats(60, word="b"))
    with transaction(rows.services.sessions) as session:
        taken = _snapshot(session, rows, "b", ("a",), share=0.5)
    buffer = (taken.manifest.buffer or {})["a"]
    replayed = [item for item, is_replayed in taken.items if is_replayed]
    assert buffer["pool"] == buffer["items"] == len(set(replayed)) < len(replayed)
    counts = [replayed.count(item) for item in set(replayed)]
    assert max(counts) - min(counts) <= 1


def test_a_suite_judged_by_other_rules_is_another_suite(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its scores are not compared with those of the rules before."""
    rows.task("a")

    def frozen() -> tuple[int, list[uuid.UUID]]:
        with transaction(rows.services.sessions) as session:
            suite = freeze_suite(session, get_task(session, rows.project_id, "a"))
            assert suite is not None
            return suite.number, [row.id for row in suite_trajectories(session, suite.id)]

    before = frozen()
    assert frozen() == before
    monkeypatch.setattr(suites, "JUDGED_BY", "other rules")
    assert frozen() == (before[0] + 1, before[1])
