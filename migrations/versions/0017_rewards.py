"""all rewards of a trajectory, by source; feedback for runs, sessions and trajectories, searchable by its comments

Revision: 0017
Follows: 0016

What uploads said of their reward becomes the first row of its source. The rewards that datasets were made with are
those of today: until now none could change.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_REFUSE_UPDATE = """
create or replace function refuse_update() returns trigger language plpgsql as $$
declare
    texts text[] := case tg_table_name
        when 'evaluations' then array['items']
        when 'exposures' then array['session_id']
        when 'feedback' then array[{feedback}]
        else array[]::text[]
    end;
begin
    if current_setting('memgen.erasing', true) = 'on'
        and cardinality(texts) > 0
        and to_jsonb(new) - texts = to_jsonb(old) - texts
    then
        return new;
    end if;
    if tg_table_name = 'evaluations'
        and to_jsonb(old) -> 'base_identity' = 'null'
        and to_jsonb(new) - 'base_identity' = to_jsonb(old) - 'base_identity'
    then
        return new;
    end if;
    raise exception 'rows of % are immutable', tg_table_name;
end $$
"""


def upgrade() -> None:
    op.add_column("tasks", sa.Column("judge_rewards", sa.Text(), nullable=False, server_default="apart"))
    op.create_check_constraint(op.f("ck_tasks_judge_rewards"), "tasks", "judge_rewards in ('apart', 'fill')")
    op.add_column("exposures", sa.Column("upstream", sa.Text(), nullable=True))
    op.add_column("trajectories", sa.Column("rewarded_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_trajectories_project_id_reward_source_seq", "trajectories", ["project_id", "reward_source", "seq"]
    )
    op.create_index("ix_trajectories_task_id_rewarded_at", "trajectories", ["task_id", "rewarded_at"])
    _widen_feedback()
    _create_rewards()
    op.add_column("dataset_items", sa.Column("reward", sa.Float(), nullable=True))
    op.execute("alter table dataset_items disable trigger immutable")
    op.execute(
        "update dataset_items i set reward = t.reward from trajectories t "
        "where t.id = i.trajectory_id and t.reward is not null"
    )
    op.execute("alter table dataset_items enable trigger immutable")


def _widen_feedback() -> None:
    op.alter_column("feedback", "completion_id", existing_type=sa.Text(), nullable=True)
    for column, kind in (("run_id", sa.Uuid()), ("session_id", sa.Text()), ("trajectory_id", sa.Uuid())):
        op.add_column("feedback", sa.Column(column, kind, nullable=True))
    op.add_column("feedback", sa.Column("part_of", sa.BigInteger(), nullable=True))
    op.create_check_constraint(
        op.f("ck_feedback_target"), "feedback", "num_nonnulls(completion_id, run_id, session_id, trajectory_id) = 1"
    )
    for target in ("run_id", "trajectory_id"):
        op.create_index(
            f"uq_feedback_{target}",
            "feedback",
            ["project_id", target, "source"],
            unique=True,
            postgresql_where=sa.text("part_of is null"),
        )
    op.create_index("ix_feedback_project_id_seq", "feedback", ["project_id", "seq"])
    op.create_index("ix_feedback_project_id_session_id", "feedback", ["project_id", "session_id"])
    op.execute(
        "create index ix_feedback_comment_words on feedback using gin (to_tsvector('simple'::regconfig, comment))"
    )
    op.execute(_REFUSE_UPDATE.format(feedback="'comment', 'unit', 'session_id'"))


def _create_rewards() -> None:
    op.create_table(
        "trajectory_rewards",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("trajectory_id", sa.Uuid(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("completion_id", sa.Text(), nullable=True),
        sa.Column("reward", sa.Float(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("feedback_seq", sa.BigInteger(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("reward > '-infinity' and reward < 'infinity'", name=op.f("ck_trajectory_rewards_reward")),
        sa.ForeignKeyConstraint(
            ["trajectory_id"],
            ["trajectories.id"],
            name=op.f("fk_trajectory_rewards_trajectory_id_trajectories"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["feedback_seq"],
            ["feedback.seq"],
            name=op.f("fk_trajectory_rewards_feedback_seq_feedback"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_trajectory_rewards")),
        sa.UniqueConstraint(
            "trajectory_id",
            "source",
            "completion_id",
            name=op.f("uq_trajectory_rewards_trajectory_id_source_completion_id"),
            postgresql_nulls_not_distinct=True,
        ),
    )
    op.create_index(op.f("ix_trajectory_rewards_feedback_seq"), "trajectory_rewards", ["feedback_seq"])
    op.execute(
        "insert into trajectory_rewards (trajectory_id, source, reward, comment, actor, at) "
        "select id, coalesce(reward_source, 'upload'), reward, '', 'upload', created_at from trajectories "
        "where reward is not null order by seq"
    )
    op.execute(
        "create trigger immutable before update on trajectory_rewards for each row execute function refuse_update()"
    )


def downgrade() -> None:
    """The older code knows one reward of a trajectory, the one in effect, and feedback on answers alone."""
    op.drop_column("dataset_items", "reward")
    op.drop_table("trajectory_rewards")
    op.execute("delete from feedback where completion_id is null")
    op.execute(_REFUSE_UPDATE.format(feedback="'comment', 'unit'"))
    for name in ("comment_words", "project_id_session_id", "project_id_seq"):
        op.drop_index(f"ix_feedback_{name}", table_name="feedback")
    for name in ("trajectory_id", "run_id"):
        op.drop_index(f"uq_feedback_{name}", table_name="feedback")
    op.drop_constraint(op.f("ck_feedback_target"), "feedback", type_="check")
    for column in ("part_of", "trajectory_id", "session_id", "run_id"):
        op.drop_column("feedback", column)
    op.alter_column("feedback", "completion_id", existing_type=sa.Text(), nullable=False)
    for name in ("project_id_reward_source_seq", "task_id_rewarded_at"):
        op.drop_index(f"ix_trajectories_{name}", table_name="trajectories")
    op.drop_column("trajectories", "rewarded_at")
    op.drop_column("exposures", "upstream")
    op.drop_constraint(op.f("ck_tasks_judge_rewards"), "tasks", type_="check")
    op.drop_column("tasks", "judge_rewards")
