"""loops

Revision: 0018
Follows: 0017
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_STATES = (
    "in ('running', 'paused', 'disk', 'gate_rejected', 'training_failed', 'canary_stopped', 'canary_without_traffic', "
    "'no_traffic', 'no_rewards', 'nothing_new')"
)


def upgrade() -> None:
    op.create_table(
        "loops",
        sa.Column("id", sa.Uuid(), nullable=False),
        *[sa.Column(f"{owner}_id", sa.Uuid(), nullable=False) for owner in ("project", "adapter", "task", "schedule")],
        sa.Column("quiet_hours", sa.Double(), nullable=False),
        sa.Column("most_failures", sa.Integer(), nullable=False),
        sa.Column("setup", postgresql.JSONB(), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("held", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("advice", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("counted_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(f"state {_STATES}", name=op.f("ck_loops_state")),
        sa.CheckConstraint("quiet_hours > 0", name=op.f("ck_loops_quiet_hours")),
        sa.CheckConstraint("most_failures >= 1", name=op.f("ck_loops_most_failures")),
        *[
            sa.ForeignKeyConstraint(
                [f"{owner}_id"], [f"{owner}s.id"], name=op.f(f"fk_loops_{owner}_id_{owner}s"), ondelete="CASCADE"
            )
            for owner in ("project", "adapter", "task", "schedule")
        ],
        sa.PrimaryKeyConstraint("id", name=op.f("pk_loops")),
    )
    for column in ("project_id", "schedule_id"):
        op.create_index(f"ix_loops_{column}", "loops", [column])
    op.create_index(
        "uq_loops_adapter_id", "loops", ["adapter_id"], unique=True, postgresql_where=sa.text("deleted_at is null")
    )
    op.create_table(
        "loop_changes",
        sa.Column("seq", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("loop_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("from_state", sa.String(32), nullable=True),
        sa.Column("to_state", sa.String(32), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("evidence", postgresql.JSONB(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "kind in ('created', 'changed', 'paused', 'stopped', 'resumed', 'deleted')",
            name=op.f("ck_loop_changes_kind"),
        ),
        sa.CheckConstraint(f"from_state {_STATES} and to_state {_STATES}", name=op.f("ck_loop_changes_states")),
        sa.ForeignKeyConstraint(
            ["loop_id"], ["loops.id"], name=op.f("fk_loop_changes_loop_id_loops"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_loop_changes")),
    )
    op.create_index("ix_loop_changes_loop_id_seq", "loop_changes", ["loop_id", "seq"])
    op.execute("create trigger immutable before update on loop_changes for each row execute function refuse_update()")


def downgrade() -> None:
    """Their schedules stay, and train on without them."""
    op.drop_table("loop_changes")
    op.drop_table("loops")
