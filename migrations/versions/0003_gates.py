"""gates are policies, verdicts by hand, and paired tests

Revision: 0003
Follows: 0002
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

IMMUTABLE_TABLES = ("gate_decisions", "adapter_changes")
_RULES = "in ('point', 'significant_drop', 'non_inferior')"
_POLICIES = "in ('automatic', 'manual', 'canary')"


def upgrade() -> None:
    """Existing gates were judged by the point estimate, and a pass promoted."""
    _add("adapters", "gate_rule", sa.Text(), "point")
    _add("adapters", "gate_level", sa.Double(), "0.05")
    _add("adapters", "gate_policy", sa.Text(), "automatic")
    _add("adapters", "canary_share", sa.Double(), "0.05")
    op.add_column("adapters", sa.Column("retry_replay_share", sa.Double(), nullable=True))
    op.drop_constraint(op.f("ck_adapters_strategy"), "adapters", type_="check")
    for name, condition in {
        "strategy": "strategy in ('sequential', 'replay', 'isolated')",
        "gate_rule": f"gate_rule {_RULES}",
        "gate_policy": f"gate_policy {_POLICIES}",
        "gate_level": "gate_level > 0 and gate_level < 1",
        "canary_share": "canary_share > 0 and canary_share <= 0.5",
        "retry_replay_share": "retry_replay_share > 0 and retry_replay_share < 1",
    }.items():
        op.create_check_constraint(op.f(f"ck_adapters_{name}"), "adapters", condition)
    _add("gates", "rule", sa.Text(), "point")
    _add("gates", "level", sa.Double(), "0.05")
    _add("gates", "policy", sa.Text(), "automatic")
    op.create_check_constraint(op.f("ck_gates_rule"), "gates", f"rule {_RULES}")
    op.create_check_constraint(op.f("ck_gates_policy"), "gates", f"policy {_POLICIES}")
    op.create_table(
        "gate_decisions",
        sa.Column("gate_id", sa.Uuid(), nullable=False),
        sa.Column("approved", sa.Boolean(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["gate_id"], ["gates.id"], name=op.f("fk_gate_decisions_gate_id_gates"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("gate_id", name=op.f("pk_gate_decisions")),
    )
    op.create_table(
        "adapter_changes",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("adapter_id", sa.Uuid(), nullable=False),
        sa.Column("changes", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["adapter_id"], ["adapters.id"], name=op.f("fk_adapter_changes_adapter_id_adapters"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_adapter_changes")),
    )
    op.create_index(op.f("ix_adapter_changes_adapter_id"), "adapter_changes", ["adapter_id"], unique=False)
    for table in IMMUTABLE_TABLES:
        op.execute(f"create trigger immutable before update on {table} for each row execute function refuse_update()")


def downgrade() -> None:
    """Adapters of strategy `isolated` must be deleted before: the older code can't serve them."""
    op.drop_index(op.f("ix_adapter_changes_adapter_id"), table_name="adapter_changes")
    op.drop_table("adapter_changes")
    op.drop_table("gate_decisions")
    for name in ("policy", "level", "rule"):
        op.drop_column("gates", name)
    for name in ("retry_replay_share", "canary_share", "gate_policy", "gate_level", "gate_rule"):
        op.drop_column("adapters", name)
    op.drop_constraint(op.f("ck_adapters_strategy"), "adapters", type_="check")
    op.create_check_constraint(op.f("ck_adapters_strategy"), "adapters", "strategy in ('sequential', 'replay')")


def _add(table: str, name: str, kind: sa.types.TypeEngine[str] | sa.types.TypeEngine[float], value: str) -> None:
    """Add a column that holds `value` in existing rows and has no default afterwards."""
    op.add_column(table, sa.Column(name, kind, nullable=False, server_default=value))
    op.alter_column(table, name, server_default=None)
