"""What strategies promise: nothing of an isolated task is forgotten, and a training goes on from its parent."""

import json
from typing import Any

import sqlalchemy as sa

from memgen.artifacts.artifact import MOMENTS_FILE
from registry.database import transaction
from registry.models import Evaluation, Gate
from tests.workers.conftest import Workshop, answers


def _set(workshop: Workshop, **settings: Any) -> None:
    with transaction(workshop.services.sessions) as session:
        for name, value in settings.items():
            session.execute(sa.text(f"update adapters set {name} = :value"), {"value": value})


def clash(count: int = 40) -> list[dict[str, Any]]:
    """The prompts of `yes` with another answer: the two tasks can't both be right."""
    return [
        {"messages": [row["messages"][0], {"role": "assistant", "content": "no!"}], "session_id": str(n)}
        for n, row in enumerate(answers("yes", count))
    ]


def test_isolated_tasks_keep_what_they_learned(workshop: Workshop) -> None:
    """A memory per task: the second leaves the first's bytes alone, and prompts find their own."""
    _set(workshop, strategy="isolated", replay_share=0.0)
    workshop.add_task("yes", answers("yes", 60))
    workshop.add_task("nope", answers("nope", 60))
    first = workshop.work(workshop.queue("yes"))
    assert first.state == "succeeded", first.error
    second = workshop.work(workshop.queue("nope", parent=1))
    assert second.state == "succeeded", second.error
    v1, v2 = workshop.versions()
    described = json.loads(workshop.services.store.get(f"{v2.artifact_key}/isolated.json"))
    assert described == {"format": 1, "task": "nope", "others": {"yes": v1.artifact_hash}}
    assert second.result is not None
    scores = second.result["scores"]
    assert scores["v2"]["nope"] > scores["v1"]["nope"]
    with transaction(workshop.services.sessions) as session:
        found = {
            (each.version_id, each.suite.task.name): each.items
            for each in session.scalars(sa.select(Evaluation).where(Evaluation.version_id.is_not(None)))
        }
    before, after = found[v1.id, "yes"], found[v2.id, "yes"]
    # Whatever still goes to its own memory is answered as before, to the letter.
    kept = [(old, new) for old, new in zip(before, after, strict=True) if new["routed"] == "yes"]
    assert len(kept) > 0.6 * len(after)
    assert all(old == new for old, new in kept)
    assert {item["routed"] for item in found[v2.id, "nope"]} <= {"yes", "nope", None}
    # Learned again, a task goes on from its own memory, not from its parent's.
    third = workshop.work(workshop.queue("yes", parent=2, training={"steps": 2}))
    assert third.state == "succeeded", third.error
    messages = [event.message for event in workshop.events(third.id)]
    assert "weights and optimizer go on from bot@1" in messages
    described = json.loads(workshop.services.store.get(f"{workshop.versions()[2].artifact_key}/isolated.json"))
    assert described["others"] == {"nope": v2.artifact_hash}


def test_an_isolated_task_too_small_to_be_recognised_fails_before_it_is_trained(workshop: Workshop) -> None:
    _set(workshop, strategy="isolated", replay_share=0.0)
    workshop.add_task("yes")
    done = workshop.work(workshop.queue("yes"))
    assert done.state == "failed"
    assert done.error is not None
    assert "a region needs at least 20" in done.error
    assert done.progress == {}


def test_a_version_that_forgot_is_trained_once_more_with_a_larger_share(workshop: Workshop) -> None:
    _set(workshop, replay_share=0.1, retry_replay_share=0.5)
    workshop.add_task("yes")
    workshop.add_task("clash", clash())
    workshop.work(workshop.queue("yes"))
    forgot = workshop.work(workshop.queue("clash", parent=1))
    assert forgot.result is not None
    assert forgot.result["gate"] == "rejected"
    retry = workshop.job(forgot.result["retry"])
    assert (retry.state, retry.params["retry_of"], retry.params["replay_share"]) == ("queued", 2, 0.5)
    assert {**retry.params, "retry_of": None, "replay_share": None} == {
        **forgot.params,
        "retry_of": None,
        "replay_share": None,
    }
    again = workshop.work(retry.id)
    assert again.state == "succeeded", again.error
    assert again.result is not None
    assert "retry" not in again.result
    v2, v3 = workshop.versions()[1:]
    with transaction(workshop.services.sessions) as session:
        small, large = (session.merge(v).dataset.manifest for v in (v2, v3))
        gates = session.scalars(sa.select(Gate)).all()
    assert (small["replay_share"], large["replay_share"]) == (0.1, 0.5)
    assert large["replayed"]["yes"] > small["replayed"]["yes"]
    assert len(gates) == 3


def test_weights_and_optimizer_go_on_from_the_parent(workshop: Workshop) -> None:
    workshop.add_task("yes")
    workshop.work(workshop.queue("yes", training={"steps": 5}))
    [v1] = workshop.versions()
    job_id = workshop.queue("yes", parent=1, training={"steps": 5})
    assert workshop.work(job_id).state == "succeeded"
    assert "weights and optimizer go on from bot@1" in [event.message for event in workshop.events(job_id)]
    assert _steps(workshop, 1) == 5
    assert _steps(workshop, 2) == 10
    # Without what the parent left, its weights alone are the start.
    workshop.services.store.delete(f"{v1.artifact_key}/{MOMENTS_FILE}")
    cold = workshop.queue("yes", parent=1, training={"steps": 5})
    assert workshop.work(cold).state == "succeeded"
    assert any(event.message.startswith("the optimizer begins anew") for event in workshop.events(cold))
    assert _steps(workshop, 3) == 5


def _steps(workshop: Workshop, number: int) -> int:
    """Optimizer steps that a version's moments have seen."""
    from safetensors.torch import load

    stored = workshop.services.store.get(f"{workshop.versions()[number - 1].artifact_key}/{MOMENTS_FILE}")
    [steps] = {int(tensor) for name, tensor in load(stored).items() if name.endswith(".step")}
    return steps
