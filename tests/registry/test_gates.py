"""The gate's judgement of one task, and what the whole verdict needs."""

import pytest

from registry.database import transaction
from registry.gates import compare, record_gate
from registry.models import Version
from tests.registry.conftest import Rows


@pytest.mark.parametrize(
    ("new", "champion", "candidate", "passed", "reason"),
    [
        (False, 0.90, 0.86, True, "a: 90.0% to 86.0% (-4.0 points), within the allowed drop of 5.0 points"),
        (False, 0.90, 0.85, True, "a: 90.0% to 85.0% (-5.0 points), within the allowed drop of 5.0 points"),
        (False, 0.90, 0.84, False, "a: 90.0% to 84.0% (-6.0 points), more than the allowed drop of 5.0 points"),
        (False, 0.90, 0.95, True, "a: 90.0% to 95.0% (+5.0 points), within the allowed drop of 5.0 points"),
        (True, 0.10, 0.11, True, "a: 10.0% to 11.0% (+1.0 points), a gain on the new task"),
        (True, 0.10, 0.10, False, "a: 10.0% to 10.0% (+0.0 points), no gain on the new task"),
        (True, None, 0.5, False, "a: no held-out items to check; upload more trajectories of this task"),
    ],
)
def test_one_task(new: bool, champion: float | None, candidate: float, passed: bool, reason: str) -> None:
    judged = compare("a", new=new, champion=champion, candidate=candidate, margin=0.05)
    assert (judged.passed, judged.reason) == (passed, reason)


def test_a_verdict_needs_every_task_and_a_training_that_learned(rows: Rows) -> None:
    rows.task("a")
    good = compare("a", new=True, champion=0.1, candidate=0.9, margin=0.05)
    bad = compare("b", new=False, champion=0.9, candidate=0.1, margin=0.05)

    def verdict(comparisons: list[object], flags: tuple[str, ...] = ()) -> bool:
        version = rows.version("a", passed=None)
        with transaction(rows.services.sessions) as session:
            version = session.get_one(Version, version.id)
            return record_gate(
                session, version, champion=None, comparisons=comparisons, margin=0.05, flags=flags
            ).passed

    assert verdict([good])
    assert not verdict([good, bad])
    assert not verdict([good], ("no weight changed",))
    assert not verdict([])
