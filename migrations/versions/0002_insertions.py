"""memories say how many insertions they may make, not where

Revision: 0002
Follows: 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """`insertion` was always "prompt_end": no insertion after the prompt's."""
    op.execute(
        """
        UPDATE adapters SET memory = (memory - 'insertion') || '{"max_insertions": 0}'::jsonb
        WHERE memory ? 'insertion'
        """
    )


def downgrade() -> None:
    op.execute(
        """
        UPDATE adapters SET memory = '{"insertion": "prompt_end"}'::jsonb
            || (memory - ARRAY['max_insertions', 'inference_latents', 'delimiters', 'weaver_base'])
        WHERE memory ? 'max_insertions'
        """
    )
