"""Evaluation: fill in the entries of R that a gate or a reader needs, and judge a version by them."""

import uuid
from collections.abc import Sequence
from typing import Any

from memgen.evaluation.accuracy import Item, SuiteScore, item_of, score_suite
from registry import evaluations, gates, suites
from registry.adapters import get_adapter
from registry.aliases import CHAMPION, promote
from registry.database import transaction
from registry.models import Adapter, Job, Task, Version
from registry.versions import champion, gate_of, get_version, learned_tasks
from workers.model import Model
from workers.runner import Running


def evaluate_version(running: Running, model: Model) -> dict[str, Any]:
    """The job `evaluate`: a version and the bare base on the suites of all tasks of its lineage."""
    with transaction(running.services.sessions) as session:
        job = session.get_one(Job, running.job_id)
        if job.adapter is None:
            raise RuntimeError("an evaluate job without adapter")
        version = get_version(session, job.adapter, job.params["version"])
        adapter, tasks = job.adapter, learned_tasks(version)
    return {"scores": score_tasks(running, model, adapter, [None, version], tasks), "version": version.number}


def score_tasks(
    running: Running,
    model: Model,
    adapter: Adapter,
    subjects: Sequence[Version | None],
    tasks: Sequence[Task],
) -> dict[str, dict[str, float]]:
    """Scores by subject (`base`, `v1`, ...) and task on the tasks' suites as they are now.

    What was evaluated before is read, not computed again. Tasks without a suite are left out.
    """
    scores: dict[str, dict[str, float]] = {_label(subject): {} for subject in subjects}
    for task in tasks:
        with transaction(running.services.sessions) as session:
            suite = suites.freeze_suite(session, session.get_one(Task, task.id))
            if suite is None:
                running.event(f"task {task.name!r} has no held-out items and can't be scored", level="warning")
                continue
            items = [
                item_of(row.messages, row.tools, row.details) for row in suites.suite_trajectories(session, suite.id)
            ]
        for subject in subjects:
            running.check()
            scores[_label(subject)][task.name] = _score(running, model, adapter, subject, task, suite.id, items)
    return scores


def score_and_judge(running: Running, model: Model, version_id: uuid.UUID) -> tuple[bool, dict[str, dict[str, float]]]:
    """Evaluate a version beside the bare base and the champion, and let the gate judge it.

    When another job moves the champion meanwhile, the version is compared again, with the new one.

    Returns:
        (passed, scores as `score_tasks` gives them)
    """
    while True:
        with transaction(running.services.sessions) as session:
            version = session.get_one(Version, version_id)
            adapter, tasks = version.adapter, learned_tasks(version)
            best = champion(session, adapter)
        rival = None if best is None or best.id == version_id else best
        subjects = [None, version] if rival is None else [None, rival, version]
        scores = score_tasks(running, model, adapter, subjects, tasks)
        passed = _judge(running, version_id, rival, scores)
        if passed is not None:
            return passed, scores


def _judge(
    running: Running, version_id: uuid.UUID, rival: Version | None, scores: dict[str, dict[str, float]]
) -> bool | None:
    """Record the gate of a version and, if it passes and the job says so, move `champion`: one transaction.

    None if `rival` is no longer the champion. Its and the candidate's scores are on the same suites, because one call
    of `score_tasks` made them.
    """
    with transaction(running.services.sessions) as session:
        job = session.get_one(Job, running.job_id)
        version = session.get_one(Version, version_id)
        known = gate_of(session, version)
        if known is not None:
            return known.passed
        adapter = get_adapter(session, job.project_id, version.adapter.name, lock=True)
        best = champion(session, adapter)
        if (best.id if best else None) != (rival.id if rival else None):
            return None
        comparisons = [
            gates.compare(
                task.name,
                new=task.id == version.dataset.task_id,
                champion=scores[_label(rival)].get(task.name),
                candidate=scores[_label(version)].get(task.name),
                margin=adapter.gate_margin,
            )
            for task in learned_tasks(version)
        ]
        gate = gates.record_gate(
            session,
            version,
            champion=best,
            comparisons=comparisons,
            margin=adapter.gate_margin,
            flags=version.report["flags"],
        )
        if gate.passed and job.params.get("promote", True):
            promote(session, adapter, CHAMPION, version, actor=f"job {job.id}", reason="passed its gate")
        return gate.passed


def _score(
    running: Running,
    model: Model,
    adapter: Adapter,
    subject: Version | None,
    task: Task,
    suite_id: uuid.UUID,
    items: Sequence[Item],
) -> float:
    who = evaluations.subject_of(adapter, subject)
    with transaction(running.services.sessions) as session:
        known = evaluations.find_evaluation(session, who, suite_id)
        if known is not None:
            return known.score
    phase = f"evaluate {_label(subject)} on {task.name}"

    def on_done(done: int) -> None:
        running.check()
        running.progress(phase, {"done": done, "of": len(items)}, last=done == len(items))

    memory = model.memory_of(subject) if subject else None
    result: SuiteScore = score_suite(model.host, memory, items, task.grader, on_done=on_done)
    with transaction(running.services.sessions) as session:
        evaluations.record_evaluation(
            session,
            who,
            suite_id,
            score=result.score,
            items=[{"score": item.score, "answer": item.answer} for item in result.items],
            seconds=result.seconds,
        )
    running.event(f"{phase}: {100 * result.score:.1f}%", {"score": result.score, "items": len(items)})
    return result.score


def _label(subject: Version | None) -> str:
    return f"v{subject.number}" if subject else "base"
