"""each version says of which form it is: as its job asked for, or as the memory of its adapter

Revision: 0030
Follows: 0029
"""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("versions", sa.Column("form", sa.Text(), nullable=True))
    # Rows of versions are immutable; what they say of their form, they always were.
    op.execute("ALTER TABLE versions DISABLE TRIGGER immutable")
    op.execute(
        "UPDATE versions SET form = coalesce(jobs.params ->> 'form', adapters.memory ->> 'form', 'cache') "
        "FROM adapters, jobs WHERE adapters.id = versions.adapter_id AND jobs.id = versions.job_id"
    )
    op.execute("ALTER TABLE versions ENABLE TRIGGER immutable")
    op.alter_column("versions", "form", nullable=False)


def downgrade() -> None:
    op.drop_column("versions", "form")
