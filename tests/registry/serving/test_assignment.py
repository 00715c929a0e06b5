"""Which version a session gets: known values, shares, the same in every process, and who moves with the weights."""

import hashlib
import math
import subprocess
import sys
from collections import Counter

import pytest

from registry.serving.assignment import choose_version, is_sampled, uniform

SESSIONS = [f"session-{number}" for number in range(4000)]


def test_golden_values() -> None:
    """They must never change: a session's version would change with them."""
    digest = hashlib.sha256(b'["s","anna",1]').hexdigest()
    assert uniform("s", "anna", 1) == pytest.approx(int(digest[:16], 16) / 2**64, abs=1e-15)
    assert uniform("s", "anna", 1) == 0.14129272426954337
    assert uniform("s", "anna", 2) == 0.0870039045138436
    assert uniform("s", "bert", 1) == 0.5243633059336583
    assert uniform("salt", "ü", 2) == 0.7899614930899843
    even = {1: 0.5, 2: 0.5}
    assert [choose_version("s", key, even) for key in ("anna", "bert", "anna2")] == [1, 2, 2]
    assert [choose_version("s", key, {1: 0.95, 2: 0.05}) for key in ("anna", "bert", "anna2")] == [1, 1, 1]


def test_shares_are_the_weights() -> None:
    weights = {3: 0.7, 5: 0.2, 8: 0.1}
    drawn = Counter(choose_version("x", session, weights) for session in SESSIONS)
    for number, weight in weights.items():
        spread = math.sqrt(len(SESSIONS) * weight * (1 - weight))
        assert abs(drawn[number] - len(SESSIONS) * weight) < 4 * spread
    assert {choose_version("x", session, {1: 1.0, 2: 0.0}) for session in SESSIONS} == {1}


def test_only_sessions_that_must_move_do() -> None:
    before = {1: 0.8, 2: 0.1, 3: 0.1}
    after = {1: 0.5, 2: 0.1, 3: 0.4}
    moves = Counter((choose_version("x", s, before), choose_version("x", s, after)) for s in SESSIONS)
    assert all(old == new or (old, new) in {(1, 3), (1, 2), (2, 3)} for old, new in moves)
    stayed = sum(count for (old, new), count in moves.items() if old == new)
    # Version 3 gains 0.3 of the sessions; nobody leaves it, and a plain new draw would move far more.
    assert moves[(3, 3)] > 0
    assert stayed > 0.65 * len(SESSIONS)
    # The order in which the weights are given is nothing.
    backwards = dict(reversed(before.items()))
    assert all(choose_version("x", s, before) == choose_version("x", s, backwards) for s in SESSIONS[:200])


def test_another_salt_is_another_draw() -> None:
    even = {1: 0.5, 2: 0.5}
    same = sum(choose_version("x", s, even) == choose_version("y", s, even) for s in SESSIONS)
    assert abs(same - len(SESSIONS) / 2) < 4 * math.sqrt(len(SESSIONS) / 4)


def test_every_process_draws_the_same() -> None:
    code = (
        "from registry.serving.assignment import choose_version\n"
        "print([choose_version('x', f'session-{n}', {1: 0.5, 2: 0.3, 3: 0.2}) for n in range(300)])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    here = [choose_version("x", session, {1: 0.5, 2: 0.3, 3: 0.2}) for session in SESSIONS[:300]]
    assert outputs == {f"{here}\n"}


def test_samples_grow_with_their_share() -> None:
    small = {s for s in SESSIONS if is_sampled("x", s, 0.1)}
    large = {s for s in SESSIONS if is_sampled("x", s, 0.3)}
    assert small < large
    assert abs(len(small) - 400) < 80
    assert {s for s in SESSIONS if is_sampled("x", s, 1.0)} == set(SESSIONS)
