"""Metrics over R with hand-computed numbers."""

import pytest

from memgen.evaluation.forgetting import average_accuracy, backward_transfer, forgetting, forward_transfer

R = [[0.9, 0.3, None], [0.7, 0.8, 0.1], [0.8, 0.6, 0.5]]
ORDER = [0, 1, 2]


def test_average_accuracy() -> None:
    assert average_accuracy(R, ORDER) == pytest.approx((0.8 + 0.6 + 0.5) / 3)
    assert average_accuracy(R[:1], ORDER) == pytest.approx(0.9)


def test_backward_transfer() -> None:
    assert backward_transfer(R, ORDER) == pytest.approx(((0.8 - 0.9) + (0.6 - 0.8)) / 2)
    assert backward_transfer(R[:1], ORDER) is None


def test_forgetting_is_against_the_best_since_it_was_learned() -> None:
    assert forgetting(R, ORDER) == [pytest.approx(0.1), pytest.approx(0.2), None]
    assert forgetting([[0.5], [0.9], [0.6]], [0]) == [pytest.approx(0.3)]


def test_forward_transfer_skips_what_was_not_measured() -> None:
    assert forward_transfer(R, [0.1, 0.2, 0.0], ORDER) == pytest.approx(((0.3 - 0.2) + (0.1 - 0.0)) / 2)
    assert forward_transfer(R[:1], [0.1], [0]) is None


def test_a_missing_score_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"R\[1,0\] is missing"):
        average_accuracy([[0.9, None], [None, 0.8]], [0, 1])
