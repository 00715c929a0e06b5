"""The gate: may an alias move to this version?

It compares the version with the champion (the bare base if there is none) on the same suites: no earlier task may
drop by more than the adapter's margin, and the newly trained task must gain. The verdict and its reasons are recorded.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy.orm import Session

from registry.models import Gate, Version


@dataclass(frozen=True)
class Comparison:
    """Scores of champion and candidate on one task's suite, in [0, 1]; None if there is no suite to compare on."""

    task: str
    new: bool
    """The task that the candidate was trained for; else one its lineage learned before."""
    champion: float | None
    candidate: float | None
    passed: bool
    reason: str

    @property
    def change(self) -> float | None:
        if self.champion is None or self.candidate is None:
            return None
        return self.candidate - self.champion


def compare(task: str, *, new: bool, champion: float | None, candidate: float | None, margin: float) -> Comparison:
    """Judge one task.

    An earlier task passes if `candidate >= champion - margin`, the new one if `candidate > champion`: with a margin
    of 0.05, 0.90 to 0.86 passes on an earlier task and 0.90 to 0.90 fails on the new one. What can't be measured
    fails: a gate that saw nothing must not wave a version through.
    """
    if champion is None or candidate is None:
        reason = f"{task}: no held-out items to check; upload more trajectories of this task"
        return Comparison(task, new, champion, candidate, passed=False, reason=reason)
    change = 100 * (candidate - champion)
    scores = f"{task}: {100 * champion:.1f}% to {100 * candidate:.1f}% ({change:+.1f} points)"
    if new:
        passed = candidate > champion
        reason = f"{scores}, {'a gain' if passed else 'no gain'} on the new task"
    else:
        # Scores are fractions of item counts; the tolerance only absorbs their rounding.
        passed = candidate >= champion - margin - 1e-9
        bound = f"the allowed drop of {100 * margin:.1f} points"
        reason = f"{scores}, {'within' if passed else 'more than'} {bound}"
    return Comparison(task, new, champion, candidate, passed, reason)


def record_gate(
    session: Session,
    version: Version,
    *,
    champion: Version | None,
    comparisons: Sequence[Comparison],
    margin: float,
    flags: Sequence[str] = (),
) -> Gate:
    """Record the verdict on a version: every comparison must pass, and training must have learned (`flags` empty)."""
    reasons = [c.reason for c in comparisons] + [f"training: {flag}" for flag in flags]
    gate = Gate(
        version_id=version.id,
        champion_id=champion.id if champion else None,
        passed=bool(comparisons) and all(c.passed for c in comparisons) and not flags,
        margin=margin,
        comparisons=[{**asdict(c), "change": c.change} for c in comparisons],
        reasons=reasons,
    )
    session.add(gate)
    session.flush()
    return gate
