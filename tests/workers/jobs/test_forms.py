"""Versions of form `lora` beside memories: trained, judged, promoted, and routed by task."""

import copy
import json
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from peft import PeftModel

from memgen.backbone.loading import load_backbone
from registry.database import transaction
from registry.gates.verdict import gate_of
from registry.models import Evaluation
from tests.workers.conftest import TRAINING, Workshop, answers

PLAIN = {"form": "lora", "rank": 8, "alpha": 16}


def _set(workshop: Workshop, *, memory: dict[str, Any] | None = None, **settings: Any) -> None:
    values = settings | ({"memory": json.dumps(memory)} if memory is not None else {})
    with transaction(workshop.services.sessions) as session:
        for name, value in values.items():
            session.execute(sa.text(f"update adapters set {name} = :value"), {"value": value})


def _queue(workshop: Workshop, task: str, **params: Any) -> Any:
    return workshop.queue_job("train_weaver", {"task": task, "parent": None, "training": TRAINING, **params})


def test_an_adapter_of_plain_loras_learns_two_tasks(workshop: Workshop, tmp_path: Path) -> None:
    _set(workshop, memory=PLAIN)
    workshop.add_task("yes")
    workshop.add_task("nope")
    first = workshop.work(_queue(workshop, "yes"))
    assert (first.state, first.error) == ("succeeded", None)
    assert first.result == {"version": 1, "gate": "passed", "scores": {"base": {"yes": 0.0}, "v1": {"yes": 1.0}}}
    assert workshop.champion() == 1
    second = workshop.work(_queue(workshop, "nope", parent=1))
    assert second.state == "succeeded", second.error
    assert second.result is not None
    assert second.result["scores"]["v2"]["nope"] == 1.0
    v1, v2 = workshop.versions()
    assert (v1.form, v2.form) == ("lora", "lora")
    messages = [event.message for event in workshop.events(second.id)]
    assert "weights and optimizer go on from bot@1" in messages
    workshop.services.store.get_folder(v2.artifact_key, tmp_path / "v2")
    base = load_backbone(workshop.services.settings.base_model, cache_dir=workshop.services.settings.models_dir)
    model = PeftModel.from_pretrained(copy.deepcopy(base.model), tmp_path / "v2")
    assert any(bool(p.any()) for name, p in model.named_parameters() if "lora_B" in name)


def test_a_champion_of_one_form_follows_one_of_the_other(workshop: Workshop) -> None:
    """A plain LoRA is judged against the memory that is the champion, and a memory against the LoRA."""
    workshop.add_task("yes")
    workshop.add_task("nope")
    workshop.work(_queue(workshop, "yes", training={**TRAINING, "steps": 2}))
    plain = workshop.work(_queue(workshop, "yes", parent=1, form="lora"))
    assert plain.state == "succeeded", plain.error
    v1, v2 = workshop.versions()
    assert (v1.form, v2.form, v2.parent_id) == ("cache", "lora", v1.id)
    told = [event.message for event in workshop.events(plain.id)]
    assert any(message.startswith("begins anew: bot@1 is of form 'cache'") for message in told)
    assert not any("go on from" in message and "optimizer go on" in message for message in told)
    assert workshop.champion() == 2
    memory = workshop.work(_queue(workshop, "nope", parent=2))
    assert memory.state == "succeeded", memory.error
    v3 = workshop.versions()[2]
    with transaction(workshop.services.sessions) as session:
        gate = gate_of(session, session.merge(v3))
        assert gate is not None
        assert gate.champion_id == v2.id
        assert {each["task"] for each in gate.comparisons} == {"yes", "nope"}
    assert v3.form == "cache"
    again = workshop.work(workshop.queue_evaluation(2))
    assert again.state == "succeeded", again.error


def test_a_memory_of_one_task_and_a_plain_lora_of_another_stand_behind_one_router(workshop: Workshop) -> None:
    _set(workshop, strategy="isolated", replay_share=0.0)
    workshop.add_task("yes", answers("yes", 60))
    workshop.add_task("nope", answers("nope", 60))
    assert workshop.work(_queue(workshop, "yes")).state == "succeeded"
    plain = workshop.work(_queue(workshop, "nope", parent=1, form="lora"))
    assert plain.state == "succeeded", plain.error
    v1, v2 = workshop.versions()
    described = json.loads(workshop.services.store.get(f"{v2.artifact_key}/isolated.json"))
    assert described == {"format": 1, "task": "nope", "others": {"yes": v1.artifact_hash}}
    with transaction(workshop.services.sessions) as session:
        found = {
            (each.version_id, each.suite.task.name): each.items
            for each in session.scalars(sa.select(Evaluation).where(Evaluation.version_id.is_not(None)))
        }
    own = [item for item in found[v2.id, "nope"] if item["routed"] == "nope"]
    assert len(own) > 0.6 * len(found[v2.id, "nope"])
    assert all(item["score"] == 1.0 for item in own)
    kept = [
        (old, new) for old, new in zip(found[v1.id, "yes"], found[v2.id, "yes"], strict=True) if new["routed"] == "yes"
    ]
    assert kept
    assert all(old == new for old, new in kept)
