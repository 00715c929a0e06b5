"""Invocation rates by hand."""

import pytest

from memgen.generation.intervals import wilson_interval
from memgen.generation.invocations import invocation_rate, invocation_rates, rate_of_counts
from memgen.generation.requests import Decision, Generation, Timings


def decisions(pattern: str) -> tuple[Decision, ...]:
    """`x` weaves, `.` skips."""
    return tuple(Decision(n, 0.5, mark == "x", 4 * (mark == "x")) for n, mark in enumerate(pattern))


def answer(pattern: str) -> Generation:
    return Generation((5,), "a", "stop", decisions(pattern), 3, Timings())


def test_a_rate_is_over_decisions_and_a_cost_over_answers() -> None:
    rate = invocation_rate([decisions("xx."), decisions("x"), decisions("....")])
    assert (rate.answers, rate.asked, rate.invoked) == (3, 8, 3)
    assert rate.rate == 3 / 8
    assert rate.insertions_per_answer == 1.0


def test_each_task_has_its_own() -> None:
    rates = invocation_rates({"calls": [answer("x"), answer("x.")], "chat": [answer(".")]})
    assert {task: rate.rate for task, rate in rates.items()} == {"calls": 2 / 3, "chat": 0.0}


def test_nothing_asked_is_nothing_known() -> None:
    for rate in (invocation_rate([]), invocation_rate([(), ()])):
        assert rate.rate is None
        assert rate.interval == (0.0, 1.0)
        assert rate.insertions_per_answer == 0.0


def test_one_decision_an_answer_is_an_ordinary_share() -> None:
    counts = [(1, 1)] * 30 + [(1, 0)] * 70
    rate = rate_of_counts(counts)
    # The sample variance divides by 99, not by 100, but there are no more than 100 decisions.
    assert rate.interval == pytest.approx(wilson_interval(30, 100), abs=0.003)


def test_decisions_that_are_alike_within_an_answer_count_as_few() -> None:
    """100 decisions of 10 answers, each of one mind, tell as much as 10."""
    assert rate_of_counts([(10, 10)] * 5 + [(10, 0)] * 5).interval == pytest.approx(wilson_interval(5, 10))
    assert rate_of_counts([(10, 5)] * 10).interval == pytest.approx(wilson_interval(50, 100))
    low, high = rate_of_counts([(10, 8)] * 5 + [(10, 2)] * 5).interval
    assert wilson_interval(5, 10)[0] < low < wilson_interval(50, 100)[0]
    assert wilson_interval(50, 100)[1] < high < wilson_interval(5, 10)[1]


def test_a_rate_of_all_or_nothing_counts_answers() -> None:
    """No variance is seen, so the cautious number is taken. Answers that were not asked do not count."""
    assert rate_of_counts([(10, 10)] * 10 + [(0, 0)] * 5).interval == pytest.approx(wilson_interval(10, 10))
    assert rate_of_counts([(3, 1)]).interval == pytest.approx(wilson_interval(1 / 3, 1))
