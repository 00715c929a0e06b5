"""an index by which the children of a version are found: descendants are counted one generation after the other

Revision: 0027
Follows: 0026
"""

from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(op.f("ix_versions_parent_id"), "versions", ["parent_id"])


def downgrade() -> None:
    op.drop_index(op.f("ix_versions_parent_id"), table_name="versions")
