"""How often memory was woven at decision points, by task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from memgen.generation.intervals import wilson_interval
from memgen.generation.requests import Decision, Generation


@dataclass(frozen=True)
class InvocationRate:
    answers: int
    asked: int
    """Decision points: places where the trigger was asked."""
    invoked: int
    rate: float | None
    """`invoked / asked`; None if there was no decision point."""
    interval: tuple[float, float]
    """95%, over answers; (0, 1) if there was no decision point."""

    @property
    def insertions_per_answer(self) -> float:
        """What memory costs an answer, in insertions; 0 without answers."""
        return self.invoked / self.answers if self.answers else 0.0


def invocation_rates(generations: Mapping[str, Sequence[Generation]]) -> dict[str, InvocationRate]:
    """The rate of each task, from the answers to its items."""
    return {task: invocation_rate([a.decisions for a in answers]) for task, answers in generations.items()}


def invocation_rate(answers: Sequence[Sequence[Decision]]) -> InvocationRate:
    """The rate over all decisions of some answers."""
    return rate_of_counts([(len(decisions), sum(d.invoked for d in decisions)) for decisions in answers])


def rate_of_counts(counts: Sequence[tuple[int, int]]) -> InvocationRate:
    """The rate from (decision points, decisions to INVOKE) of each answer.

    Decisions of one answer are alike, so they tell less than as many answers would. The interval is Wilson's for as
    many independent decisions as would vary like the answers do (the ratio estimator's design effect; Cochran,
    Sampling Techniques, 3rd ed., section 6.3), between the number of answers with decisions and that of decisions.

    For answers (2, 1), (2, 1): rate 0.5, and 4 decisions count as 4. For (2, 2), (2, 0): they count as 2.
    """
    points, invoked = sum(p for p, _ in counts), sum(i for _, i in counts)
    if points == 0:
        return InvocationRate(len(counts), 0, 0, None, (0.0, 1.0))
    rate = invoked / points
    effective = _independent_decisions([(p, i) for p, i in counts if p], rate, points)
    return InvocationRate(len(counts), points, invoked, rate, wilson_interval(rate * effective, effective))


def _independent_decisions(counts: Sequence[tuple[int, int]], rate: float, points: int) -> int:
    clusters = len(counts)
    squares = sum((invoked - rate * some) ** 2 for some, invoked in counts)
    if clusters < 2 or rate in (0.0, 1.0):
        return clusters
    if squares == 0.0:
        return points
    variance = clusters / (clusters - 1) * squares / points**2
    return min(points, max(clusters, round(rate * (1 - rate) / variance)))
