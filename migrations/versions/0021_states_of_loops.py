"""states of loops: champion_lost, no_worker, canary_undecided

Revision: 0021
Follows: 0020
"""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_BEFORE = (
    *("running", "paused", "disk", "gate_rejected", "training_failed", "canary_stopped", "canary_without_traffic"),
    *("no_traffic", "no_rewards", "nothing_new"),
)
_ADDED = ("champion_lost", "no_worker", "canary_undecided")


def upgrade() -> None:
    _allow((*_BEFORE, *_ADDED))


def downgrade() -> None:
    """Loops in a state of these are as if they ran, until the next look; changes to one are gone from their history."""
    op.execute(
        "update loops set state = 'running', held = false "
        "where state in ('champion_lost', 'no_worker', 'canary_undecided')"
    )
    op.execute(
        "delete from loop_changes where from_state in ('champion_lost', 'no_worker', 'canary_undecided') "
        "or to_state in ('champion_lost', 'no_worker', 'canary_undecided')"
    )
    _allow(_BEFORE)


def _allow(states: tuple[str, ...]) -> None:
    op.drop_constraint(op.f("ck_loops_state"), "loops", type_="check")
    op.drop_constraint(op.f("ck_loop_changes_states"), "loop_changes", type_="check")
    op.create_check_constraint(op.f("ck_loops_state"), "loops", f"state in {states}")
    condition = f"from_state in {states} and to_state in {states}"
    op.create_check_constraint(op.f("ck_loop_changes_states"), "loop_changes", condition)
