"""indexes by which the runs that are due are found; what waits in each recorder, and whether it is stuck

Revision: 0024
Follows: 0023
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

_IDLE_AT = "timezone('UTC', timezone('UTC', last_at) + make_interval(secs => idle_seconds))"


def upgrade() -> None:
    op.create_index("ix_runs_idle_at", "runs", [sa.text(_IDLE_AT)], postgresql_where=sa.text("state = 'open'"))
    op.create_index("ix_runs_closing_at", "runs", ["closing_at"], postgresql_where=sa.text("state = 'closing'"))
    op.add_column("recorders", sa.Column("waiting", JSONB(), nullable=False, server_default=sa.text("'{}'")))
    op.add_column("recorders", sa.Column("is_stuck", sa.Boolean(), nullable=False, server_default=sa.false()))
    for name in ("waiting", "is_stuck"):
        op.alter_column("recorders", name, server_default=None)


def downgrade() -> None:
    op.drop_column("recorders", "is_stuck")
    op.drop_column("recorders", "waiting")
    op.drop_index("ix_runs_closing_at", "runs")
    op.drop_index("ix_runs_idle_at", "runs")
