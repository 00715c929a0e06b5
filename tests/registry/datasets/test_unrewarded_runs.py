"""What a model of ours answered and nobody rewarded is neither learned nor a reference: else it would teach itself."""

import sqlalchemy as sa

from registry.database import transaction
from registry.datasets.suites import freeze_suite, suite_trajectories
from registry.models import Trajectory
from registry.tasks import get_task
from tests.registry.conftest import Rows


def _counts(rows: Rows) -> tuple[int, int]:
    """(trajectories that a training takes, items of a suite)"""
    with transaction(rows.services.sessions) as session:
        suite = freeze_suite(session, get_task(session, rows.project_id, "a"))
        assert suite is not None
        return len(rows.snapshot(session, "a").items), len(suite_trajectories(session, suite.id))


def _change(rows: Rows, side: bool, values: str) -> None:
    with transaction(rows.services.sessions) as session:
        chosen = sa.select(Trajectory.id).where(Trajectory.held_out.is_(side)).order_by(Trajectory.seq).limit(3)
        ids = [str(found) for found in session.scalars(chosen)]
        session.execute(sa.text(f"update trajectories set {values} where id::text = any(:ids)"), {"ids": ids})


def test_own_answers_need_a_reward_and_demonstrations_none(rows: Rows) -> None:
    rows.task("a")
    learned, items = _counts(rows)
    for side in (False, True):
        _change(rows, side, "sampled = '[null]'")
    assert _counts(rows) == (learned - 3, items - 3)
    for side in (False, True):
        _change(rows, side, "reward = 1.0")
    assert _counts(rows) == (learned, items)
    for side in (False, True):
        _change(rows, side, "reward = 0.0")
    assert _counts(rows) == (learned - 3, items - 3)
    for side in (False, True):
        _change(rows, side, "reward = null, success = true")
    assert _counts(rows) == (learned, items)
