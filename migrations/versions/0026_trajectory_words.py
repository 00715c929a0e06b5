"""trajectory_words: what trajectories are searched by

Empty at first: the beat fills it behind, the oldest trajectories first. The index of a project's trajectories gets the
order of arrival, by which they are listed.

Revision: 0026
Follows: 0025
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "trajectory_words",
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("words", postgresql.TSVECTOR(), nullable=False),
        sa.ForeignKeyConstraint(
            ["seq"], ["trajectories.seq"], name=op.f("fk_trajectory_words_seq_trajectories"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_trajectory_words_project_id_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_trajectory_words")),
    )
    op.create_index("ix_trajectory_words_project_id_seq", "trajectory_words", ["project_id", "seq"])
    op.create_index("ix_trajectory_words_words", "trajectory_words", ["words"], postgresql_using="gin")
    op.create_index("ix_trajectories_project_id_seq", "trajectories", ["project_id", "seq"])
    op.drop_index("ix_trajectories_project_id", table_name="trajectories")


def downgrade() -> None:
    op.create_index("ix_trajectories_project_id", "trajectories", ["project_id"])
    op.drop_index("ix_trajectories_project_id_seq", table_name="trajectories")
    op.drop_table("trajectory_words")
