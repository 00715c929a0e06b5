"""How often memory was woven where the trigger was asked, by task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from memgen.generation.intervals import wilson_interval
from memgen.generation.requests import Decision, Generation


@dataclass(frozen=True)
class InvocationRate:
    answers: int
    asked: int
    """Decision points."""
    invoked: int
    rate: float | None
    """`invoked / asked`; None if nothing was asked."""
    interval: tuple[float, float]
    """95%, over answers; (0, 1) if nothing was asked."""

    @property
    def insertions_per_answer(self) -> float:
        """What memory costs an answer, in insertions; 0 without answers."""
        return self.invoked / self.answers if self.answers else 0.0


def invocation_rates(generations: Mapping[str, Sequence[Generation]]) -> dict[str, InvocationRate]:
    """The rate of each task, from the answers to its items."""
    return {task: invocation_rate([a.decisions for a in answers]) for task, answers in generations.items()}


def invocation_rate(answers: Sequence[Sequence[Decision]]) -> InvocationRate:
    """The rate over all decisions of some answers."""
    return rate_of_counts([(len(asked), sum(d.invoked for d in asked)) for asked in answers])


def rate_of_counts(counts: Sequence[tuple[int, int]]) -> InvocationRate:
    """The rate from (asked, invoked) of each answer.

    Decisions of one answer are alike, so they tell less than as many answers would. The interval is Wilson's for as
    many independent decisions as would vary like the answers do (the ratio estimator's design effect; Cochran,
    Sampling Techniques, 3rd ed., section 6.3), between the number of answers that were asked and that of decisions.

    For answers (2, 1), (2, 1): rate 0.5, and 4 decisions count as 4. For (2, 2), (2, 0): they count as 2.
    """
    asked, invoked = sum(a for a, _ in counts), sum(i for _, i in counts)
    if asked == 0:
        return InvocationRate(len(counts), 0, 0, None, (0.0, 1.0))
    rate = invoked / asked
    effective = _independent_decisions([(a, i) for a, i in counts if a], rate, asked)
    return InvocationRate(len(counts), asked, invoked, rate, wilson_interval(rate * effective, effective))


def _independent_decisions(counts: Sequence[tuple[int, int]], rate: float, asked: int) -> int:
    clusters = len(counts)
    squares = sum((invoked - rate * some) ** 2 for some, invoked in counts)
    if clusters < 2 or rate in (0.0, 1.0):
        return clusters
    if squares == 0.0:
        return asked
    variance = clusters / (clusters - 1) * squares / asked**2
    return min(asked, max(clusters, round(rate * (1 - rate) / variance)))
