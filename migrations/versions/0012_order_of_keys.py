"""messages and tools keep the order of their keys, which a model reads

What is stored already was put into jsonb's order when it came, and stays in it. The table is written anew: as much free
space as it has, and minutes on millions of rows.

Revision: 0012
Follows: 0011
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _change("json")


def downgrade() -> None:
    _change("jsonb")


def _change(kind: str) -> None:
    changes = (f"ALTER {column} TYPE {kind} USING {column}::{kind}" for column in ("messages", "tools"))
    op.execute(f"ALTER TABLE trajectories {', '.join(changes)}")
