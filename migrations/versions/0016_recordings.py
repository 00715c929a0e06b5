"""recordings

Revision: 0016
Follows: 0015
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def _project(table: str) -> tuple[sa.Column[object], sa.ForeignKeyConstraint]:
    name = op.f(f"fk_{table}_project_id_projects")
    return (
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=name, ondelete="CASCADE"),
    )


def _reference(table: str, column: str, to: str, ondelete: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{to}.id"], name=op.f(f"fk_{table}_{column}_{to}"), ondelete=ondelete)


def _at(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def upgrade() -> None:
    op.add_column("trajectories", sa.Column("sampled", sa.JSON(), nullable=True))
    _policies()
    _runs()
    _turns()
    _calls()


def _policies() -> None:
    op.create_table(
        "recording_policies",
        sa.Column("id", sa.Uuid(), nullable=False),
        *_project("recording_policies"),
        sa.Column("adapter_id", sa.Uuid(), nullable=True),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("share", sa.Float(), nullable=False),
        sa.Column("task_id", sa.Uuid(), nullable=True),
        sa.Column("idle_seconds", sa.Float(), nullable=True),
        _at("changed_at"),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.CheckConstraint("mode IN ('off', 'asked', 'all')", name=op.f("ck_recording_policies_mode")),
        sa.CheckConstraint("share > 0 AND share <= 1", name=op.f("ck_recording_policies_share")),
        sa.CheckConstraint("idle_seconds > 0", name=op.f("ck_recording_policies_idle_seconds")),
        _reference("recording_policies", "adapter_id", "adapters", "CASCADE"),
        _reference("recording_policies", "task_id", "tasks", "SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recording_policies")),
        sa.UniqueConstraint(
            "project_id",
            "adapter_id",
            name=op.f("uq_recording_policies_project_id_adapter_id"),
            postgresql_nulls_not_distinct=True,
        ),
    )
    op.create_index("ix_recording_policies_project_id", "recording_policies", ["project_id"])
    op.create_table(
        "recording_counts",
        *_project("recording_counts"),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        _at("last_at"),
        sa.PrimaryKeyConstraint("project_id", "outcome", name=op.f("pk_recording_counts")),
    )


def _runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), sa.Identity(), nullable=False),
        *_project("runs"),
        sa.Column("task_id", sa.Uuid(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=True),
        sa.Column("user", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("close_reason", sa.Text(), nullable=True),
        _at("opened_at"),
        _at("last_at"),
        _at("closing_at", nullable=True),
        _at("closed_at", nullable=True),
        sa.Column("idle_seconds", sa.Float(), nullable=False),
        sa.Column("tip", sa.Text(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("turns", sa.Integer(), nullable=False),
        sa.Column("calls", sa.Integer(), nullable=False),
        sa.Column("tools", sa.JSON(), nullable=True),
        sa.Column("tools_hash", sa.Text(), nullable=True),
        sa.Column("details", sa.dialects.postgresql.JSONB(), nullable=False),
        sa.Column("branch_of", sa.Uuid(), nullable=True),
        sa.Column("trajectory_id", sa.Uuid(), nullable=True),
        sa.Column("refusal_code", sa.Text(), nullable=True),
        sa.Column("refusal_reason", sa.Text(), nullable=True),
        sa.CheckConstraint("state IN ('open', 'closing', 'closed')", name=op.f("ck_runs_state")),
        sa.CheckConstraint("close_reason IN ('idle', 'header', 'reward', 'limit')", name=op.f("ck_runs_close_reason")),
        _reference("runs", "task_id", "tasks", "CASCADE"),
        _reference("runs", "trajectory_id", "trajectories", "CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
        sa.UniqueConstraint("seq", name=op.f("uq_runs_seq")),
    )
    for column in ("project_id", "task_id", "trajectory_id"):
        op.create_index(f"ix_runs_{column}", "runs", [column])
    op.create_index("ix_runs_project_id_scope_tip", "runs", ["project_id", "scope", "tip"])
    op.create_index("ix_runs_project_id_session_id", "runs", ["project_id", "session_id"])
    op.create_index("ix_runs_unfinished", "runs", ["last_at"], postgresql_where=sa.text("state <> 'closed'"))


def _turns() -> None:
    op.create_table(
        "run_turns",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        _at("at"),
        sa.Column("messages", sa.JSON(), nullable=False),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("finish_reason", sa.Text(), nullable=True),
        sa.Column("sampled", sa.JSON(), nullable=True),
        sa.CheckConstraint("kind IN ('own', 'copied', 'foreign')", name=op.f("ck_run_turns_kind")),
        _reference("run_turns", "run_id", "runs", "CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "place", name=op.f("pk_run_turns")),
    )
    op.create_index("ix_run_turns_hash", "run_turns", ["hash"])


def _calls() -> None:
    op.create_table(
        "recorded_calls",
        sa.Column("completion_id", sa.Text(), nullable=False),
        sa.Column("choice", sa.Integer(), nullable=False),
        *_project("recorded_calls"),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("announced_run_id", sa.Uuid(), nullable=True),
        sa.Column("version_id", sa.Uuid(), nullable=True),
        _at("at"),
        _reference("recorded_calls", "run_id", "runs", "SET NULL"),
        _reference("recorded_calls", "version_id", "versions", "SET NULL"),
        sa.PrimaryKeyConstraint("completion_id", "choice", name=op.f("pk_recorded_calls")),
    )
    for column in ("project_id", "run_id", "announced_run_id"):
        op.create_index(f"ix_recorded_calls_{column}", "recorded_calls", [column])


def downgrade() -> None:
    for table in ("recorded_calls", "run_turns", "runs", "recording_counts", "recording_policies"):
        op.drop_table(table)
    op.drop_column("trajectories", "sampled")
