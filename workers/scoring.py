"""Scoring: fill in the entries of the matrix R (version by task) that a gate or a reader needs, and judge by them."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from memgen.errors import Cancelled
from memgen.evaluation.accuracy import ReadItem, SuiteScore, item_of, read_items, score_items
from memgen.evaluation.grading import ItemScore
from memgen.routing.loaded import Choice
from registry import jobs
from registry.adapters import get_adapter
from registry.database import transaction
from registry.datasets import suites
from registry.gates import evaluations
from registry.gates import gate as gates
from registry.gates.baseline import Baseline, baseline_of, not_judged, tasks_to_judge
from registry.gates.verdict import gate_of
from registry.job_requests import JobKind, TrainWeaver
from registry.models import Adapter, Job, Task, Version
from registry.promotion import follow_up, retry_of
from workers.model import Model
from workers.runner import Running

_MOST_NOTES = 50
"""Items that a warning names."""


@dataclass(frozen=True)
class SuiteScores:
    by_subject: dict[str, dict[str, float]]
    """Mean score by subject (`base`, `v1`, ...) and task."""
    suites: dict[uuid.UUID, uuid.UUID] = field(default_factory=dict)
    """Id of the suite that every subject was scored on, by task."""


@dataclass(frozen=True)
class GateOutcome:
    passed: bool
    scores: dict[str, dict[str, float]]
    retry: uuid.UUID | None = None
    """Id of the job that trains once more, which is to be sent to the workers."""


def score_tasks(
    running: Running,
    model: Model,
    adapter: Adapter,
    subjects: Sequence[Version | None],
    tasks: Sequence[Task],
) -> SuiteScores:
    """Score subjects on the tasks' suites as they are now. Tasks without a suite are left out.

    Evaluations that exist are read, not computed again.

    Raises:
        BaseChanged: the adapter is bound to another base than the worker's.
    """
    model.check_base(adapter)
    scores = SuiteScores({_label(subject): {} for subject in subjects})
    for task in tasks:
        with transaction(running.services.sessions) as session:
            suite = suites.freeze_suite(session, session.get_one(Task, task.id))
            if suite is None:
                running.event(f"task {task.name!r} has no held-out items and can't be scored", level="warning")
                continue
            held_out = [
                item_of(row.messages, row.tools, row.details) for row in suites.suite_trajectories(session, suite.id)
            ]
        items = read_items(model.host, held_out)
        scores.suites[task.id] = suite.id
        for subject in subjects:
            running.check()
            score = _score(running, model, adapter, subject, task, suite.id, items)
            scores.by_subject[_label(subject)][task.name] = score
    return scores


def score_and_judge(running: Running, model: Model, version_id: uuid.UUID) -> GateOutcome:
    """Evaluate a version beside the bare base and the champion, and let the gate judge it.

    It is evaluated on the tasks that it or the champion has learned. If another job moves the champion in the meantime,
    the version is compared again, with the new champion and on its tasks.
    """
    while True:
        with transaction(running.services.sessions) as session:
            version = session.get_one(Version, version_id)
            adapter = version.adapter
            baseline = baseline_of(session, adapter)
            tasks = tasks_to_judge(session, version, baseline.version)
        subjects = list(dict.fromkeys([None, baseline.version, version]))
        scores = score_tasks(running, model, adapter, subjects, tasks)
        judged = _judge(running, version_id, baseline, scores)
        if judged is not None:
            return judged


def _judge(running: Running, version_id: uuid.UUID, scored: Baseline, scores: SuiteScores) -> GateOutcome | None:
    """Record the gate of a version and do what follows from it, in one transaction.

    Returns None if the baseline is no longer the one that was scored. The scores of baseline and candidate are on the
    same suites, because one call of `score_tasks` made them.
    """
    with transaction(running.services.sessions) as session:
        job = session.get_one(Job, running.job_id)
        version = session.get_one(Version, version_id)
        known = gate_of(session, version)
        if known is not None:
            return GateOutcome(known.passed, scores.by_subject)
        adapter = get_adapter(session, job.project_id, version.adapter.name, lock=True)
        session.refresh(job)  # a deletion may have cancelled it under the lock: nothing follows from the version then
        if job.cancel_requested:
            raise Cancelled(f"job {job.id} was cancelled")
        baseline = baseline_of(session, adapter)
        if baseline.version_id != scored.version_id:
            return None
        terms = gates.GateTerms.of(adapter)
        comparisons = gates.judge(session, version, baseline=baseline.version, terms=terms, suites=scores.suites)
        gate = gates.record_gate(
            session,
            version,
            baseline=baseline.version,
            comparisons=comparisons,
            terms=terms,
            policy=adapter.gate_policy,
            flags=version.report["flags"],
            remarks=not_judged(session, version, baseline, scores.suites),
        )
        origin = _requested_by(session, job, version)
        outcome = follow_up(session, adapter, version, gate, origin)
        retry = retry_of(session, adapter, version, origin, comparisons)
        if retry is not None:
            share = jobs.request_as(retry, TrainWeaver).replay_share
            outcome += f"; job {retry.id} trains once more with a replay share of {share:g}"
        data = {"version": version.number, "reasons": gate.reasons, "retry": str(retry.id) if retry else None}
        jobs.add_event(session, job.id, "info", outcome, data)
        return GateOutcome(gate.passed, scores.by_subject, retry.id if retry else None)


def _requested_by(session: Session, job: Job, version: Version) -> Job:
    """The job whose request says what follows from a verdict: the training, where it failed and another job judges."""
    return session.get_one(Job, version.job_id) if job.kind == JobKind.EVALUATE else job


def _score(
    running: Running,
    model: Model,
    adapter: Adapter,
    subject: Version | None,
    task: Task,
    suite_id: uuid.UUID,
    items: Sequence[ReadItem],
) -> float:
    evaluated = evaluations.subject_of(adapter, subject)
    with transaction(running.services.sessions) as session:
        known = evaluations.find_evaluation(session, evaluated, suite_id)
        if known is not None:
            return known.score
    phase = f"evaluate {_label(subject)} on {task.name}"

    def on_done(done: int) -> None:
        running.check()
        running.progress(phase, {"done": done, "of": len(items)}, last=done == len(items))

    choices = _choices(model, subject, items)
    result = score_items(model.host, [choice.memory for choice in choices], items, task.grader, on_done=on_done)
    routed = [{"routed": choice.task} for choice in choices] if adapter.strategy == "isolated" else [{}] * len(items)
    with transaction(running.services.sessions) as session:
        evaluations.record_evaluation(
            session,
            evaluated,
            suite_id,
            score=result.score,
            items=[
                {"score": item.score, "answer": item.answer, **routing, **_remarks(item)}
                for item, routing in zip(result.items, routed, strict=True)
            ],
            seconds=result.seconds,
        )
    running.event(f"{phase}: {100 * result.score:.1f}%", {"score": result.score, "items": len(items)})
    _warn_of_items(running, phase, result)
    return result.score


def _choices(model: Model, subject: Version | None, items: Sequence[ReadItem]) -> list[Choice]:
    """The memory that answers each item; none for an item that nobody is judged on."""
    readable = [place for place, item in enumerate(items) if not item.trouble]
    chosen = dict(zip(readable, model.choices(subject, [items[place].prompt_ids for place in readable]), strict=True))
    return [chosen.get(place) or Choice(None) for place in range(len(items))]


def _remarks(item: ItemScore) -> dict[str, Any]:
    return ({"note": item.note} if item.note else {}) | ({"left_out": True} if item.left_out else {})


def _warn_of_items(running: Running, phase: str, result: SuiteScore) -> None:
    """Record a warning if some items were left out, or answers could not be graded."""
    if not result.notes:
        return
    left_out, all_of_it = sum(item.left_out for item in result.items), len(result.items)
    message = f"{left_out} of {all_of_it} items are left out" if left_out else ""
    if left_out == all_of_it:
        message = f"none of {all_of_it} items can be judged, so nothing was measured"
    if failed := len(result.notes) - left_out:
        message += f"{', ' if message else ''}{failed} of {all_of_it} answers count 0 because they could not be graded"
    # Which, but not why: a note may quote an item, and a deletion takes words out of scores, not out of events.
    data = {"left_out": left_out, "items": list(result.notes)[:_MOST_NOTES]}
    running.event(f"{phase}: {message}; the items of the score say why", data, level="warning")


def _label(subject: Version | None) -> str:
    return f"v{subject.number}" if subject else "base"
