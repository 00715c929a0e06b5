"""The gate's statistics against published examples and hand-computed numbers."""

import pytest

from registry.gates.paired import Paired, compare_pairs


def _table(both: int, lost: int, gained: int, neither: int, level: float = 0.05) -> Paired:
    """Scores with so many items right under both, lost, gained, and right under neither."""
    old = [1.0] * (both + lost) + [0.0] * (gained + neither)
    new = [1.0] * both + [0.0] * lost + [1.0] * gained + [0.0] * neither
    return compare_pairs(old, new, level=level)


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        # Newcombe (1998), table III: 36, 12, 2, 0, method 10.
        ((36, 2, 12, 0), 0.0569, 0.3404),
        # Fagerland, Lydersen, Laake (2017), chapter 8: Bentur et al., square-and-add.
        ((1, 1, 7, 12), 0.0256, 0.5069),
    ],
)
def test_the_interval_is_newcombes(table: tuple[int, int, int, int], low: float, high: float) -> None:
    found = _table(*table)
    assert (found.low, found.high) == (pytest.approx(low, abs=6e-5), pytest.approx(high, abs=6e-5))
    swapped = _table(table[0], table[2], table[1], table[3])
    assert (swapped.low, swapped.high) == (pytest.approx(-found.high), pytest.approx(-found.low))


def test_p_is_the_exact_binomial() -> None:
    """1 of 8 flips down: 2 * (C(8,0) + C(8,1)) / 2^8 = 18 / 256."""
    found = _table(1, 1, 7, 12)
    assert (found.test, found.items, found.better, found.worse, found.discordant) == ("mcnemar", 21, 7, 1, 8)
    assert found.p_value == pytest.approx(18 / 256)
    assert found.change == pytest.approx(6 / 21)


def test_a_level_is_one_less_the_confidence() -> None:
    strict, loose = _table(36, 2, 12, 0, level=0.01), _table(36, 2, 12, 0, level=0.2)
    assert strict.low < loose.low < loose.high < strict.high
    assert strict.p_value == loose.p_value


def test_no_flip_is_no_proof() -> None:
    """Ten items that all stay right: Wilson's interval of 10/10 begins at 10 / (10 + 1.96^2) = 0.7225."""
    found = _table(10, 0, 0, 0)
    assert (found.change, found.p_value) == (0.0, 1.0)
    assert found.low == pytest.approx(10 / (10 + 1.959964**2) - 1, abs=1e-6)
    assert _table(1000, 0, 0, 0).low > -0.004


def test_nothing_leaves_the_range() -> None:
    found = _table(0, 4, 0, 0)
    assert (found.low, found.change) == (-1.0, -1.0)
    assert -1 < found.high < 0


def test_graded_scores_are_resampled_in_pairs() -> None:
    """Scores that differ wildly between items, and by little between subjects: only the pairing can see it."""
    old = [(n % 10) / 10 + 0.05 for n in range(60)]
    new = [score + (0.03 if n % 3 else -0.01) for n, score in enumerate(old)]
    found = compare_pairs(old, new, level=0.05)
    assert (found.test, found.better, found.worse) == ("bootstrap", 40, 20)
    assert found.change == pytest.approx(0.05 / 3)
    assert 0.01 < found.low < found.change < found.high < 0.023
    assert found.p_value < 0.001
    assert compare_pairs(old, new, level=0.05) == found


def test_graded_scores_without_spread_are_bounded_by_what_was_not_seen() -> None:
    """If none of 20 items moved, then with 95% confidence the share that does is below 1 - 0.025^(1/20) = 0.1684."""
    found = compare_pairs([0.3, 0.7] * 10, [0.3, 0.7] * 10, level=0.05)
    assert (found.low, found.high) == (pytest.approx(-0.1684, abs=1e-4), pytest.approx(0.1684, abs=1e-4))
    assert found.p_value == 1.0
    assert compare_pairs([0.25], [0.75], level=0.05).p_value == 1.0


@pytest.mark.parametrize(("old", "new"), [([], []), ([1.0], [1.0, 0.0])])
def test_what_is_not_paired_is_refused(old: list[float], new: list[float]) -> None:
    with pytest.raises(ValueError, match="expected as many, at least one"):
        compare_pairs(old, new, level=0.05)
