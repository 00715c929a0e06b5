"""settled items of gates, schedules by the clock that wait for enough

Revision: 0015
Follows: 0014
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_NAME = "ck_schedules_new_trajectories"


def upgrade() -> None:
    op.add_column("adapters", sa.Column("gate_settled", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.alter_column("adapters", "gate_settled", server_default=None)
    op.drop_constraint(op.f(_NAME), "schedules", type_="check")
    op.create_check_constraint(
        op.f(_NAME),
        "schedules",
        "(kind <> 'new_trajectories' or new_trajectories is not null) and (kind <> 'idle' or new_trajectories is null)",
    )


def downgrade() -> None:
    """Schedules by the clock learn from any number of trajectories again."""
    op.drop_constraint(op.f(_NAME), "schedules", type_="check")
    op.execute("update schedules set new_trajectories = null where kind = 'cron'")
    op.create_check_constraint(op.f(_NAME), "schedules", "(kind = 'new_trajectories') = (new_trajectories is not null)")
    op.drop_column("adapters", "gate_settled")
