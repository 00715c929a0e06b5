"""versions of a known task that need not gain, quiet schedules that wait for enough

Revision: 0019
Follows: 0018
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_NAME = "ck_schedules_new_trajectories"
_GIVEN = "(kind <> 'new_trajectories' or new_trajectories is not null)"


def upgrade() -> None:
    op.add_column("adapters", sa.Column("gate_gain", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.alter_column("adapters", "gate_gain", server_default=None)
    op.drop_constraint(op.f(_NAME), "schedules", type_="check")
    op.create_check_constraint(op.f(_NAME), "schedules", _GIVEN)


def downgrade() -> None:
    """Schedules that wait for quiet learn from any number of trajectories again."""
    op.drop_constraint(op.f(_NAME), "schedules", type_="check")
    op.execute("update schedules set new_trajectories = null where kind = 'idle'")
    op.create_check_constraint(op.f(_NAME), "schedules", f"{_GIVEN} and (kind <> 'idle' or new_trajectories is null)")
    op.drop_column("adapters", "gate_gain")
