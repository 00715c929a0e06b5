"""indexes by which the newest run of a session or a task is found, and refused ones

Revision: 0022
Follows: 0021
"""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_runs_project_id_session_id_last_at", "runs", ["project_id", "session_id", "last_at"])
    op.drop_index("ix_runs_project_id_session_id", "runs")
    op.create_index("ix_runs_task_id_last_at", "runs", ["task_id", "last_at"])
    op.drop_index("ix_runs_task_id", "runs")
    refused = sa.text("refusal_code is not null")
    op.create_index("ix_runs_refused", "runs", ["project_id", "seq"], postgresql_where=refused)


def downgrade() -> None:
    op.drop_index("ix_runs_refused", "runs")
    op.create_index("ix_runs_task_id", "runs", ["task_id"])
    op.drop_index("ix_runs_task_id_last_at", "runs")
    op.create_index("ix_runs_project_id_session_id", "runs", ["project_id", "session_id"])
    op.drop_index("ix_runs_project_id_session_id_last_at", "runs")
