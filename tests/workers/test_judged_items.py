"""Suites with items that nobody, or not everybody, can be judged on: their gates judge by the others, and say so."""

import uuid
from typing import Any

import pytest

from registry.adapters import get_adapter
from registry.database import transaction
from registry.gates.audit import recorded_gate
from registry.models import Evaluation, Gate
from registry.versions.records import get_version
from tests.workers.conftest import Workshop, answers

SHORT = {"steps": 2}
CALL = {"id": "1", "type": "function", "function": {"name": "go", "arguments": '{"to": "B"}'}}


def _chat(question: str, answer: dict[str, Any], **envelope: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", **answer}], **envelope}


def _called(count: int, name: str = "go") -> list[dict[str, Any]]:
    call = {**CALL, "function": {**CALL["function"], "name": name}}
    return [_chat(f"go {n}", {"content": None, "tool_calls": [call]}) for n in range(count)]


def _gate(workshop: Workshop, number: int) -> Gate:
    with transaction(workshop.services.sessions) as session:
        version = get_version(session, get_adapter(session, workshop.project_id, "bot"), number)
        return recorded_gate(session, version)


def _evaluations(workshop: Workshop) -> list[Evaluation]:
    with transaction(workshop.services.sessions) as session:
        return list(session.query(Evaluation))


def _warnings(workshop: Workshop, job_id: uuid.UUID) -> list[str]:
    return [event.message for event in workshop.events(job_id) if event.level == "warning"]


@pytest.mark.parametrize("grader", ["exact", "likelihood"])
def test_long_items_hinder_nobody(workshop: Workshop, grader: str) -> None:
    """As long as an import takes them: prompt and answer fill the context of 1,024 tokens."""
    long = [_chat(f"{n} {'x' * 480}", {"content": "y" * 500}) for n in range(16)]
    longer = [_chat(f"{n} {'x' * 900}", {"content": "y" * 90}) for n in range(16)]
    workshop.add_task("yes", [*answers("yes", 12), *long, *longer], {"kind": grader})
    job = workshop.work(workshop.queue("yes", training=SHORT))
    assert (job.state, job.error) == ("succeeded", None)
    for evaluation in _evaluations(workshop):
        assert [item for item in evaluation.items if not item.get("left_out")]
    [comparison] = _gate(workshop, 1).comparisons
    left_out = {
        place for found in _evaluations(workshop) for place, item in enumerate(found.items) if item.get("left_out")
    }
    assert left_out, "some have no room beside the memory"
    assert comparison["evidence"]["items"] == len(_evaluations(workshop)[0].items) - len(left_out)
    assert comparison["reason"].endswith(f"; {len(left_out)} more are left out")
    assert any("items are left out; the items of the score" in warning for warning in _warnings(workshop, job.id))


def test_a_memory_that_is_silent_is_not_right_where_a_call_was_expected(workshop: Workshop) -> None:
    workshop.add_task("go", [*_called(40), *answers("yes", 12)])
    job = workshop.work(workshop.queue("go", training=SHORT))
    assert job.state == "succeeded"
    for evaluation in _evaluations(workshop):
        assert any(item.get("left_out") for item in evaluation.items)
        assert all(item["score"] == 0.0 for item in evaluation.items if item.get("left_out"))
        assert any("judges text, and the expert's turn calls go" in item.get("note", "") for item in evaluation.items)
    warnings = _warnings(workshop, job.id)
    assert any("the items of the score say why" in warning for warning in warnings)
    assert not any("calls go" in warning for warning in warnings), "a deletion takes no words out of events"


def test_a_suite_of_which_nothing_can_be_judged_is_said(workshop: Workshop) -> None:
    workshop.add_task("go", _called(16))
    job = workshop.work(workshop.queue("go", training=SHORT))
    assert job.state == "succeeded"
    [reason, *_] = _gate(workshop, 1).reasons
    assert "held-out items can be judged; the evaluations' items say why" in reason
    assert not _gate(workshop, 1).passed
    assert any("so nothing was measured" in warning for warning in _warnings(workshop, job.id))


def test_questions_whose_reference_can_not_be_judged_are_not_played(workshop: Workshop) -> None:
    workshop.add_task("yes", [*_called(8), *answers("yes", 12)])
    training = {"steps": 1, "items_per_step": 2, "group_size": 2, "max_new_tokens": 4}
    params = {"task": "yes", "method": "grpo", "training": training}
    job = workshop.work(workshop.queue_job("train_weaver", params))
    assert (job.state, job.error) == ("succeeded", None)
    assert any(" lines are not played: grader 'exact' judges text" in found for found in _warnings(workshop, job.id))
    workshop.add_task("go", _called(8))
    failed = workshop.work(workshop.queue_job("train_weaver", {**params, "task": "go"}))
    assert failed.state == "failed"
    assert "no item to play" in str(failed.error)


def test_turns_that_are_too_long_are_a_warning_and_a_flag(workshop: Workshop) -> None:
    long = [_chat(f"{n} {'x' * 300}", {"content": "y"}) for n in range(24)]
    workshop.add_task("yes", [*answers("yes", 24), *long])
    job = workshop.work(workshop.queue("yes", training={**SHORT, "max_example_tokens": 200}))
    assert job.state == "succeeded"
    [warning] = [found for found in _warnings(workshop, job.id) if "were not learned" in found]
    assert "longer than 200 tokens" in warning
    [version] = workshop.versions()
    assert warning in version.report["flags"]
    assert f"training: {warning}" in _gate(workshop, 1).reasons
    fine = workshop.work(workshop.queue("yes", training={**SHORT, "max_example_tokens": 600}))
    assert not [found for found in _warnings(workshop, fine.id) if "were not learned" in found]


def test_recorded_answers_that_are_too_long_or_unfit_are_warnings(workshop: Workshop) -> None:
    lines = [
        _chat(f"q{n}", {"content": word}, reward=reward, metadata={"logprobs": [logged]})
        for n in range(12)
        for word, reward, logged in [
            ("yes", 1.0, {"content": [{"token": "y", "logprob": -0.1}] * 3}),
            ("no", 0.0, [-0.1] * 9),
            ("x" * 1100, 0.5, None),
        ]
    ]
    workshop.add_task("yes", lines)
    params = {"task": "yes", "method": "grpo_recorded", "training": {"steps": 1, "items_per_step": 2}}
    job = workshop.work(workshop.queue_job("train_weaver", params))
    assert (job.state, job.error) == ("succeeded", None)
    warnings = _warnings(workshop, job.id)
    [event] = [found for found in workshop.events(job.id) if found.message.startswith("comparing the answers")]
    groups = event.data["unfit_logprobs"]
    assert groups == event.data["skipped_long"] > 0, "one of three answers each"
    assert any(found.startswith(f"the logprobs of {groups} turns are not used") for found in warnings)
    assert any(found.startswith(f"{groups} of {3 * groups} turns were not learned") for found in warnings)
    assert any("were not learned" in flag for flag in workshop.versions()[0].report["flags"])
