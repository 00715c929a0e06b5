"""adapters of the first release say what their artifacts hold: 8 latents of insertions while generating

Revision: 0009
Follows: 0008
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """8 was the default for what 0002 left out; the default has changed, the artifacts have not."""
    op.execute(
        """
        UPDATE adapters SET memory = memory || '{"inference_latents": 8}'::jsonb
        WHERE NOT memory ? 'inference_latents'
        """
    )


def downgrade() -> None:
    """The explicit value holds for the older code too, so nothing is undone."""
