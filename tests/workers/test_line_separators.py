"""Texts with characters that Python takes for ends of lines: trained on, replayed, read from older objects, erased."""

import json
from typing import Any

import pytest
import sqlalchemy as sa

from registry.database import transaction
from registry.deletion.deletions import delete_data
from registry.deletion.erasure import finish_erasure
from registry.deletion.scope import DeletionSubject
from registry.json_text import jsonl_lines
from registry.models import Dataset, Job, Trajectory
from registry.wiring import Services
from tests.workers.conftest import Workshop
from workers.datasets import lines_of
from workers.runner import Running

SEPARATORS = "\u2028\u2029\u0085\x0b\x0c\x1c\x1d\x1e\r\n"
SHORT = {"steps": 2}


def separated(word: str, count: int = 16) -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "user", "content": f"{word}{SEPARATORS}{n}"},
                {"role": "assistant", "content": f"{SEPARATORS}{word}{n % 2}"},
            ],
            "reward": 1.0 - n % 2,
            "metadata": {"note": SEPARATORS},
        }
        for n in range(count)
    ]


def graded_pairs(word: str) -> list[dict[str, Any]]:
    """A right and a wrong answer to each question."""
    pairs = []
    for n in range(12):
        for reward in (1.0, 0.0):
            question = {"role": "user", "content": f"{word}{SEPARATORS}{n}"}
            answer = {"role": "assistant", "content": f"{word}{SEPARATORS}{reward:.0f}"}
            pairs.append({"messages": [question, answer], "reward": reward})
    return pairs


def _dataset(workshop: Workshop, job: Job) -> list[dict[str, Any]]:
    """What the job's dataset holds, by the reader of all trainings."""
    with transaction(workshop.services.sessions) as session:
        dataset = session.get_one(Dataset, job.dataset_id)
    running = Running.__new__(Running)
    running.services = workshop.services
    return lines_of(running, dataset)


def test_they_are_trained_on_and_replayed(workshop: Workshop) -> None:
    workshop.add_task("yes", separated("yes"))
    workshop.add_task("no", separated("no"))
    first = workshop.work(workshop.queue("yes", training=SHORT))
    assert (first.state, first.error) == ("succeeded", None)
    second = workshop.work(workshop.queue("no", parent=1, training=SHORT))
    assert (second.state, second.error) == ("succeeded", None)
    lines = _dataset(workshop, second)
    assert {line["task"] for line in lines} == {"yes", "no"}, "some are replayed"
    assert all(SEPARATORS in message["content"] for line in lines for message in line["messages"])


@pytest.mark.parametrize("method", ["grpo", "grpo_recorded"])
def test_they_are_trained_on_from_reward(workshop: Workshop, method: str) -> None:
    workshop.add_task("yes", graded_pairs("yes"))
    training = {"steps": 1, "items_per_step": 1, "group_size": 2, "max_new_tokens": 4}
    params = {"task": "yes", "method": method, "training": training}
    job = workshop.work(workshop.queue_job("train_weaver", params))
    assert (job.state, job.error) == ("succeeded", None)


def test_objects_of_older_releases_are_read_and_erased(workshop: Workshop, services: Services) -> None:
    """Their lines are JSON that keeps what is not ASCII."""
    workshop.add_task("yes", separated("yes"))
    job = workshop.work(workshop.queue("yes", training=SHORT))
    with transaction(services.sessions) as session:
        key = session.get_one(Dataset, job.dataset_id).object_key
        rows = {str(row.id): row.messages for row in session.scalars(sa.select(Trajectory))}
    lines = _dataset(workshop, job)
    old = "".join(json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n" for line in lines).encode()
    assert services.store.get(key).count(b"\n") == old.count(b"\n") == len(lines)
    assert [json.loads(line) for line in jsonl_lines(old)] == lines, "older releases wrote the same, its keys sorted"
    assert [line["messages"] for line in lines] == [rows[line["id"]] for line in lines]

    victim = lines[0]["id"]
    with transaction(services.sessions) as session:
        subject = DeletionSubject("trajectory", victim)
        made = delete_data(session, workshop.project_id, subject, "withdraw", actor="test", reason="")
    assert finish_erasure(services.sessions, services.store, made.deletion.id)
    assert [line["id"] for line in _dataset(workshop, job)] == [line["id"] for line in lines[1:]]
