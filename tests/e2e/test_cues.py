"""An adapter whose weaver is shown past experience: what is remembered, trained with, served, kept and moved."""

import json
import uuid
from typing import Any

import openai
import pytest

from registry.database import transaction
from registry.models import Adapter, DatasetItem, Trajectory
from tests.e2e.test_serving import api_url, client
from tests.workers.conftest import Workshop, settings, workshop

__all__ = ["api_url", "client", "settings", "workshop"]


def asking(word: str, count: int = 24) -> list[dict[str, Any]]:
    """Questions that have words in common, so that one finds the others."""
    return [
        {
            "messages": [
                {"role": "user", "content": f"{word} please {n}"},
                {"role": "assistant", "content": word},
            ]
        }
        for n in range(count)
    ]


@pytest.fixture
def cued(workshop: Workshop) -> Workshop:
    with transaction(workshop.services.sessions) as session:
        adapter = session.query(Adapter).one()
        adapter.memory = {**adapter.memory, "cue_tokens": 120, "trigger": "lora"}
    return workshop


def _stored(workshop: Workshop, number: int) -> dict[str, Any]:
    version = next(version for version in workshop.versions() if version.number == number)
    return dict(json.loads(workshop.services.store.get(f"{version.artifact_key}/experience/entries.json")))


def _experience(workshop: Workshop, number: int) -> dict[str, Any]:
    """By id, the trajectories that a version remembers."""
    return {entry["entry_id"]: entry for entry in _stored(workshop, number)["trajectories"]}


def _insights(workshop: Workshop, number: int) -> list[dict[str, Any]]:
    return list(_stored(workshop, number)["insights"])


def test_a_version_remembers_what_it_was_trained_with_and_is_served_so(cued: Workshop, client: openai.OpenAI) -> None:
    cued.add_task("yes", asking("yes"))
    first = cued.work(cued.queue("yes"))
    assert first.state == "succeeded", first.error
    told = next(event for event in cued.events(first.id) if event.message.startswith("the weaver is shown"))
    remembered = _experience(cued, 1)
    assert told.data == {"remembered": len(remembered), "of_this_dataset": len(remembered), "insights": 0}
    with transaction(cued.services.sessions) as session:
        trained = {str(item.trajectory_id) for item in session.query(DatasetItem)}
        held_out = {str(row.id) for row in session.query(Trajectory) if row.held_out}
    assert set(remembered) == trained
    assert held_out
    assert not held_out & set(remembered)

    def ask(model: str, text: str) -> tuple[str | None, list[str]]:
        answer = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": text}], max_tokens=8, temperature=0
        )
        return answer.choices[0].message.content, answer.model_extra["memgen"]["cue"]

    said, shown = ask("bot@1", "yes please 100")
    assert said == "yes"
    assert shown
    assert set(shown) <= trained
    # A question of the past finds its own answer when served, though it never did in training.
    question = next(entry["prompt"] for entry in remembered.values())
    assert remembered[ask("bot@1", question)[1][0]]["prompt"] == question
    assert ask("bot@1", "zebra")[1] == []
    assert ask("base", "yes please 100")[1] == []


def test_experience_goes_on_from_version_to_version(cued: Workshop) -> None:
    """The next training adds to it, whichever its method, and a trigger's training leaves it as it is."""
    cued.add_task("yes", asking("yes"))
    cued.add_task("nope", asking("nope"))
    cued.work(cued.queue("yes", training={"steps": 4}))
    second = cued.work(cued.queue("nope", parent=1, training={"steps": 4}))
    assert second.state == "succeeded", second.error
    one, two = _experience(cued, 1), _experience(cued, 2)
    assert one.items() < two.items()
    assert {entry["task"] for entry in two.values()} == {"yes", "nope"}

    played = {"steps": 1, "items_per_step": 2, "group_size": 2, "max_new_tokens": 6}
    third = cued.work(cued.queue_job("train_trigger", {"parent": 2, "tasks": ["yes", "nope"], "training": played}))
    assert third.state == "succeeded", third.error
    assert _experience(cued, 3) == two
    params = {"task": "yes", "parent": 2, "method": "grpo", "training": {**played, "warmup_steps": 0}}
    fourth = cued.work(cued.queue_job("train_weaver", params))
    assert fourth.state == "succeeded", fourth.error
    assert _experience(cued, 4).keys() == two.keys()


def _answered_twice(cued: Workshop) -> None:
    """Twenty questions of task `yes`, each answered badly and well."""
    items = [
        {
            "messages": [
                {"role": "user", "content": f"yes please {n // 2}"},
                {"role": "assistant", "content": "yes" if n % 2 else "no!"},
            ],
            "reward": float(n % 2),
            "session_id": uuid.uuid4().hex,
        }
        for n in range(40)
    ]
    cued.add_task("yes", items)


COMPARED = {
    "task": "yes",
    "parent": None,
    "method": "grpo_recorded",
    "training": {"steps": 2, "items_per_step": 2, "warmup_steps": 0},
}


def test_failures_are_not_shown(cued: Workshop) -> None:
    """Recorded answers are compared, good and bad ones; only the good ones are remembered."""
    _answered_twice(cued)
    done = cued.work(cued.queue_job("train_weaver", COMPARED))
    assert done.state == "succeeded", done.error
    remembered = _experience(cued, 1).values()
    assert remembered
    assert {entry["answer"] for entry in remembered} == {"yes"}


def test_failures_teach_insights_and_a_person_may_give_some(cued: Workshop, client: openai.OpenAI) -> None:
    """The base writes them once; they and what was given are shown first, and go on from version to version."""
    with transaction(cued.services.sessions) as session:
        adapter = session.query(Adapter).one()
        adapter.memory = {**adapter.memory, "cue_tokens": 400, "cue_insights": 2}
    _answered_twice(cued)
    done = cued.work(cued.queue_job("train_weaver", {**COMPARED, "insights": ["Say yes please."]}))
    assert done.state == "succeeded", done.error
    [wrote] = [event for event in cued.events(done.id) if event.message.startswith("the base wrote")]
    written, *distilled = _insights(cued, 1)
    assert (written["text"], written["sources"]) == ("Say yes please.", [])
    assert distilled
    with transaction(cued.services.sessions) as session:
        rewards = {str(row.id): row.reward for row in session.query(Trajectory)}
        trained = {str(item.trajectory_id) for item in session.query(DatasetItem)}
    assert [[rewards[source] for source in rule["sources"][:2]] for rule in distilled] == [[0.0, 1.0]] * len(distilled)
    assert {source for rule in distilled for source in rule["sources"]} <= trained
    prompts = sum(len(rule["prompts"]) for rule in distilled)
    assert prompts == wrote.data["pairs"] - wrote.data["skipped_empty"] - wrote.data["skipped_long"]

    answer = client.chat.completions.create(
        model="bot@1", messages=[{"role": "user", "content": "yes please 100"}], max_tokens=8, temperature=0
    )
    assert answer.model_extra["memgen"]["cue"][0] == written["entry_id"]

    cued.add_task("nope", asking("nope"))
    second = cued.work(cued.queue("nope", parent=1, training={"steps": 2}))
    assert second.state == "succeeded", second.error
    assert _insights(cued, 2) == [written, *distilled]
    again = cued.work(cued.queue_job("train_weaver", {**COMPARED, "parent": 1}))
    assert again.state == "succeeded", again.error
    asked = [event.data["pairs"] for event in cued.events(again.id) if event.message.startswith("the base wrote")]
    assert asked in ([], [wrote.data["pairs"] - prompts]), "only of what no insight is known from"


def test_a_task_whose_conversations_open_alike_is_not_remembered(cued: Workshop) -> None:
    """What stands in front of the first answer would find all of them alike."""
    opening = [{"role": "user", "content": "Begin."}, {"role": "assistant", "content": "yes", "weight": 0}]
    cued.add_task("yes", [{"messages": [*opening, *item["messages"]]} for item in asking("yes")], shared_turns=1)
    done = cued.work(cued.queue("yes", training={"steps": 2}))
    assert done.state == "succeeded", done.error
    assert _experience(cued, 1) == {}
    [warned] = [event for event in cued.events(done.id) if event.message.startswith("not remembered")]
    assert (warned.level, "yes" in warned.message) == ("warning", True)
