"""The gate: may an alias move to this version?

It compares the version with the champion (the bare base if there is none that may serve), item by item, on the same
suites: no task that either has learned may drop by more than the adapter's margin, and the newly trained task must gain
(`registry.gates.baseline`). A version whose trigger alone was trained, or that replaces one without its deleted data,
need not gain on a task that the baseline knows: there it may not drop, as on the others. Nor need any version with the
adapter's setting `gate_gain` off: a champion at its ceiling would refuse all that follow it. What counts as a drop on a
suite of finite size is the adapter's rule:

    point             the measured drop is more than the margin
    significant_drop  it is, and chance is not to blame: two-sided p at or below the level
    non_inferior      it can't be ruled out: the interval of the change reaches the margin or below

The first is the default. On suites of a few dozen items the second lets real forgetting through and the third refuses
nearly everything: 40 items that all stay right leave an interval of nearly 9 points. The new task must gain by its
point estimate whatever the rule; the interval of the gain is recorded beside it.

With the adapter's setting `gate_settled`, the new task is compared a second time, on the items that the baseline itself
was judged by: there the version may not drop either. Held-out items come with the same traffic as what is trained on.
If the rewards of a day are wrong, failures of that day are references, and a version that learned them would gain by
them; it can't gain by items that were held out, and rewarded, before the champion was.

What is compared with is called the baseline. Stored rows and the API call it `champion`: nearly always it is.

Verdict, evidence and reasons are recorded once and never changed; a person's decision on them is a row of its own
(`registry.promotion`).
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.datasets.manifest import TrainedPart, trained_part
from registry.gates.baseline import is_imported, tasks_to_judge
from registry.gates.evaluations import find_evaluation, judged_scores, subject_of
from registry.gates.paired import Paired, compare_pairs
from registry.gates.verdict import gate_of, verdict
from registry.jobs import replaced_number
from registry.models import Adapter, Evaluation, Gate, Job, SuiteItem, Task, Version, VersionImport
from registry.outbox import emit
from registry.versions.ancestry import learned_tasks


@dataclass(frozen=True)
class GateTerms:
    """The rule by which a version is judged."""

    margin: float
    """Largest drop of an old task's score, in [0, 1]."""
    rule: str = "point"
    level: float = 0.05
    """Significance level of the tests; intervals have confidence `1 - level`."""

    @classmethod
    def of(cls, adapter: Adapter) -> "GateTerms":
        return cls(adapter.gate_margin, adapter.gate_rule, adapter.gate_level)


@dataclass(frozen=True)
class Comparison:
    """Baseline and candidate on one task's suite. Stored as JSON with these fields' names as keys."""

    task: str
    new: bool
    """Whether the candidate must gain on this task, as its weaver was trained for it. On others it may not drop."""
    champion: float | None
    """Mean score of the baseline, in [0, 1]; None if there is no suite. The key is older than the word."""
    candidate: float | None
    passed: bool
    reason: str
    suite: str | None = None
    """Id of the suite of both evaluations, which keep every answer."""
    evidence: Paired | None = None
    learned: bool = True
    """Whether the candidate's lineage learned the task; else only the baseline's did."""
    settled: bool = False
    """Whether only items that the baseline was judged by are compared; the task has a comparison of all items too."""

    @property
    def change(self) -> float | None:
        if self.champion is None or self.candidate is None:
            return None
        return self.candidate - self.champion


def compare(
    task: str,
    *,
    new: bool,
    baseline: Sequence[float] | None,
    candidate: Sequence[float] | None,
    terms: GateTerms,
    suite: uuid.UUID | None = None,
    learned: bool = True,
    left_out: int = 0,
) -> Comparison:
    """Judge one task by the scores of the same items in the same order; `left_out` more could not be judged.

    With a margin of 0.05 and rule `point`, 90% to 86% passes on an earlier task, and 90% to 90% fails on the new one.
    A task that can't be measured fails: a gate that saw nothing must not let a version pass.
    """
    if not baseline or not candidate:
        reason = f"{task}: no held-out items to check; upload more trajectories of this task"
        if left_out:
            reason = f"{task}: none of its {left_out} held-out items can be judged; the evaluations' items say why"
        return Comparison(task, new, None, None, passed=False, reason=reason, learned=learned)
    evidence = compare_pairs(baseline, candidate, level=terms.level)
    before, after = sum(baseline) / len(baseline), sum(candidate) / len(candidate)
    if new:
        passed = after > before
        found = f"{'a gain' if passed else 'no gain'} on the new task"
    else:
        passed, found = _holds(evidence, after - before, terms)
    if not learned:
        found += "; the champion has learned it and this version has not"
    reason = (
        f"{task}: {100 * before:.1f}% to {100 * after:.1f}% ({100 * (after - before):+.1f} points), {found}; "
        f"{_in_words(evidence)}" + (f"; {left_out} more are left out" if left_out else "")
    )
    return Comparison(task, new, before, after, passed, reason, str(suite) if suite else None, evidence, learned)


def judge(
    session: Session,
    version: Version,
    *,
    baseline: Version | None,
    terms: GateTerms,
    suites: Mapping[uuid.UUID, uuid.UUID],
) -> list[Comparison]:
    """Compare a version with the baseline on every task that either has learned.

    A task without a suite fails, except for an imported version: that is judged on the suites that are here, and by
    its origin's verdict where none of its own tasks has one.

    Args:
        baseline: a version that may serve (`registry.gates.baseline`); None for the bare base.
        suites: the suite that both were evaluated on, by task; a task without one was not measured.
    """
    subjects = subject_of(version.adapter, baseline), subject_of(version.adapter, version)
    ours, theirs = learned_tasks(session, version), learned_tasks(session, baseline)
    imported = is_imported(session, version)
    found = []
    if imported and not any(task.id in suites for task in ours):
        found.append(origin_verdict(session, version))
    for task in tasks_to_judge(session, version, baseline):
        suite = suites.get(task.id)
        if imported and suite is None:
            continue
        found_here = [find_evaluation(session, subject, suite) for subject in subjects] if suite else []
        measured = [evaluation for evaluation in found_here if evaluation is not None]
        scores = judged_scores(measured) if len(measured) == len(subjects) else [[], []]
        holds = not version.adapter.gate_gain or _of_trigger(version) or _replaces(session, version)
        known = task in theirs and holds
        found.append(
            compare(
                task.name,
                new=task.id == version.dataset.task_id and not known,
                baseline=scores[0],
                candidate=scores[1],
                terms=terms,
                suite=suite,
                learned=task in ours,
                left_out=len(measured[0].items) - len(scores[0]) if measured else 0,
            )
        )
        if task.id == version.dataset.task_id and len(measured) == len(subjects):
            found += _on_settled_items(session, version, baseline, task, measured, terms)
    return found


def _on_settled_items(
    session: Session,
    version: Version,
    baseline: Version | None,
    task: Task,
    measured: Sequence[Evaluation],
    terms: GateTerms,
) -> list[Comparison]:
    """The comparison on the items of the suite that the baseline's own gate compared on; none where it is not asked
    for, or would be the same again."""
    if not version.adapter.gate_settled or baseline is None:
        return []
    gate = gate_of(session, baseline)
    former = next((c["suite"] for c in gate.comparisons if c["task"] == task.name), None) if gate else None
    suite = measured[0].suite_id
    if former is None or former == str(suite):
        return []
    settled = select(SuiteItem.trajectory_id).where(SuiteItem.suite_id == uuid.UUID(former))
    query = select(SuiteItem.place).where(SuiteItem.suite_id == suite, SuiteItem.trajectory_id.in_(settled))
    places = set(session.scalars(query))
    scores = judged_scores(measured, places)
    compared = compare(
        task.name,
        new=False,
        baseline=scores[0],
        candidate=scores[1],
        terms=terms,
        suite=suite,
        left_out=len(places) - len(scores[0]),
    )
    reason = f"on what the champion was judged by, {compared.reason}"
    if not places:
        reason = f"{task.name}: nothing is left of the items that the champion was judged by"
    return [replace(compared, settled=True, reason=reason)]


def origin_verdict(session: Session, version: Version) -> Comparison:
    """The origin's verdict, in place of comparisons, for an imported version whose tasks can't be measured here."""
    origin = session.get_one(VersionImport, version.id).origin
    tasks = ", ".join(task.name for task in learned_tasks(session, version))
    reason = (
        f"not checked here: this installation has no held-out items of {tasks}; at its origin "
        f"{origin['adapter']}@{origin['number']} was {origin['verdict']}"
    )
    return Comparison(version.dataset.task.name, True, None, None, passed=origin["verdict"] == "passed", reason=reason)


def _replaces(session: Session, version: Version) -> bool:
    """Whether the version was trained anew because data was deleted; it need not know more than the one it replaces."""
    return replaced_number(session.get_one(Job, version.job_id)) is not None


def record_gate(
    session: Session,
    version: Version,
    *,
    baseline: Version | None,
    comparisons: Sequence[Comparison],
    terms: GateTerms,
    policy: str = "automatic",
    flags: Sequence[str] = (),
    remarks: Sequence[str] = (),
) -> Gate:
    """Record the verdict on a version: every comparison must pass, and training must have learned (`flags` empty).

    Args:
        remarks: further reasons, which decide nothing.
    """
    gate = Gate(
        version_id=version.id,
        champion_id=baseline.id if baseline else None,
        passed=bool(comparisons) and all(c.passed for c in comparisons) and not flags,
        margin=terms.margin,
        rule=terms.rule,
        level=terms.level,
        policy=policy,
        comparisons=[{**asdict(c), "change": c.change} for c in comparisons],
        reasons=[c.reason for c in comparisons] + [f"training: {flag}" for flag in flags] + list(remarks),
    )
    session.add(gate)
    session.flush()
    emit_verdict(session, version, gate)
    return gate


def emit_verdict(session: Session, version: Version, gate: Gate) -> None:
    """Tell the project's webhooks how its gate, or a person after it, decided on a version."""
    data = {
        "adapter": version.adapter.name,
        "version": version.number,
        "task": version.dataset.task.name,
        "verdict": verdict(gate),
        "policy": gate.policy,
        "reasons": gate.reasons,
        "decided_by": gate.decision.actor if gate.decision else None,
        "decision_reason": gate.decision.reason if gate.decision else None,
    }
    emit(session, version.adapter.project_id, "gate.decided", data)


def _of_trigger(version: Version) -> bool:
    """Whether only the trigger was trained: its aim is to weave less at no lower score, not to gain on a task."""
    return trained_part(version.dataset) == TrainedPart.TRIGGER


def forgot(comparisons: Sequence[Comparison]) -> bool:
    """Whether a task learned earlier was measured and failed, which a larger replay share might mend."""
    return any(
        c.learned and not c.new and not c.settled and not c.passed and c.evidence is not None for c in comparisons
    )


def _holds(evidence: Paired, change: float, terms: GateTerms) -> tuple[bool, str]:
    """Whether an earlier task keeps its score, and the words for it."""
    allowed = f"the allowed drop of {100 * terms.margin:.1f} points"
    # Scores are fractions of item counts; the tolerance only absorbs their rounding.
    if terms.rule == "non_inferior":
        shown = evidence.low > -terms.margin + 1e-9
        return shown, f"{'shown to be within' if shown else 'not shown to be within'} {allowed}"
    if change >= -terms.margin - 1e-9:
        return True, f"within {allowed}"
    if terms.rule == "significant_drop":
        significant = evidence.p_value <= terms.level
        return not significant, f"more than {allowed}, {'' if significant else 'but not '}significant"
    return False, f"more than {allowed}"


def _in_words(evidence: Paired) -> str:
    test = "exact McNemar" if evidence.test == "mcnemar" else "paired permutation"
    return (
        f"{100 * (1 - evidence.level):g}% interval {100 * evidence.low:+.1f} to {100 * evidence.high:+.1f} points, "
        f"{evidence.better} better and {evidence.worse} worse of {evidence.items} items, "
        f"p = {evidence.p_value:.3g} ({test})"
    )
