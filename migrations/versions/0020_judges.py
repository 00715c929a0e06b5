"""judges, what they were asked and what they said

Revision: 0020
Follows: 0019
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def _link(table: str, column: str, target: str, ondelete: str = "CASCADE") -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_{column}_{target}")
    return sa.ForeignKeyConstraint([column], [f"{target}.id"], name=name, ondelete=ondelete)


def _text(name: str, length: int | None = None) -> sa.Column[str]:
    return sa.Column(name, sa.String(length) if length else sa.Text(), nullable=False)


def _whole(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=False)


def _moment(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def upgrade() -> None:
    op.create_table(
        "judges",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        _text("name"),
        _text("kind", 16),
        _text("model"),
        _text("rubric"),
        _whole("scale"),
        _whole("group_size"),
        sa.Column("temperature", sa.Float(), nullable=True),
        _whole("max_answer_tokens"),
        _whole("max_characters"),
        _text("too_long", 16),
        _whole("daily_calls"),
        _moment("created_at"),
        sa.CheckConstraint("kind in ('pointwise', 'relative')", name=op.f("ck_judges_kind")),
        sa.CheckConstraint("too_long in ('truncate', 'refuse')", name=op.f("ck_judges_too_long")),
        sa.CheckConstraint("daily_calls >= 0", name=op.f("ck_judges_daily_calls")),
        _link("judges", "project_id", "projects"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_judges")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_judges_project_id_name")),
    )
    op.create_index(op.f("ix_judges_project_id"), "judges", ["project_id"])
    op.create_table(
        "task_judges",
        sa.Column("task_id", sa.Uuid(), nullable=False),
        sa.Column("judge_id", sa.Uuid(), nullable=False),
        sa.Column("last_job_id", sa.Uuid(), nullable=True),
        _moment("named_at"),
        _link("task_judges", "task_id", "tasks"),
        _link("task_judges", "judge_id", "judges"),
        _link("task_judges", "last_job_id", "jobs", "SET NULL"),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_task_judges")),
    )
    op.create_index(op.f("ix_task_judges_judge_id"), "task_judges", ["judge_id"])
    _create_calls()
    _create_judgements()


def _create_calls() -> None:
    op.create_table(
        "judge_calls",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("judge_id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("trajectory_ids", postgresql.ARRAY(sa.Uuid()), nullable=False),
        _text("model"),
        _text("prompt_hash"),
        _text("state", 16),
        sa.Column("answer", postgresql.JSONB(none_as_null=True), nullable=True),
        _whole("prompt_tokens"),
        _whole("answer_tokens"),
        _moment("sent_at"),
        _moment("answered_at", nullable=True),
        sa.CheckConstraint("state in ('sent', 'answered', 'unparsable', 'refused')", name=op.f("ck_judge_calls_state")),
        _link("judge_calls", "judge_id", "judges"),
        _link("judge_calls", "job_id", "jobs"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_judge_calls")),
        sa.UniqueConstraint("seq", name=op.f("uq_judge_calls_seq")),
    )
    op.create_index(op.f("ix_judge_calls_job_id"), "judge_calls", ["job_id"])
    op.create_index("ix_judge_calls_judge_id_prompt_hash", "judge_calls", ["judge_id", "prompt_hash"])
    op.create_index("ix_judge_calls_judge_id_asked_at", "judge_calls", ["judge_id", "sent_at"])


def _create_judgements() -> None:
    op.create_table(
        "judgements",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("judge_id", sa.Uuid(), nullable=False),
        sa.Column("trajectory_id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("group_id", sa.Uuid(), nullable=True),
        _text("state", 16),
        sa.Column("score", sa.Float(), nullable=True),
        _text("reason"),
        sa.Column("verdict", postgresql.JSONB(), nullable=False),
        _text("model"),
        _text("prompt_hash"),
        _whole("calls"),
        _whole("prompt_tokens"),
        _whole("answer_tokens"),
        _moment("at"),
        sa.CheckConstraint(
            "state in ('scored', 'undecided', 'unparsable', 'refused', 'too_long')", name=op.f("ck_judgements_state")
        ),
        sa.CheckConstraint("(state = 'scored') = (score is not null)", name=op.f("ck_judgements_score")),
        sa.CheckConstraint("score >= 0 and score <= 1", name=op.f("ck_judgements_range")),
        _link("judgements", "judge_id", "judges"),
        _link("judgements", "trajectory_id", "trajectories"),
        _link("judgements", "job_id", "jobs"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_judgements")),
        sa.UniqueConstraint("seq", name=op.f("uq_judgements_seq")),
        sa.UniqueConstraint("judge_id", "trajectory_id", name=op.f("uq_judgements_judge_id_trajectory_id")),
    )
    for column in ("trajectory_id", "job_id", "group_id"):
        op.create_index(op.f(f"ix_judgements_{column}"), "judgements", [column])
    op.create_index("ix_judgements_judge_id_seq", "judgements", ["judge_id", "seq"])


def downgrade() -> None:
    for table in ("judgements", "judge_calls", "task_judges", "judges"):
        op.drop_table(table)
