"""an index by which the trajectories that a version answered are found

Revision: 0028
Follows: 0027
"""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_trajectories_project_id_adapter_version_seq",
        "trajectories",
        ["project_id", "adapter_version", "seq"],
        postgresql_where=sa.text("adapter_version is not null"),
    )


def downgrade() -> None:
    op.drop_index("ix_trajectories_project_id_adapter_version_seq", table_name="trajectories")
