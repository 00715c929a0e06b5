"""schedules, what is kept of versions, deletion of data

Revision: 0005
Follows: 0004
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

IMMUTABLE_TABLES = (
    "schedule_runs",
    "schedule_changes",
    "version_changes",
    "version_imports",
    "version_import_tasks",
    "deletions",
    "deletion_datasets",
)
TABLES = (
    "schedules",
    "schedule_runs",
    "schedule_changes",
    "version_standings",
    "version_tags",
    "version_changes",
    "version_imports",
    "version_import_tasks",
    "retention_policies",
    "deletions",
    "deletion_datasets",
    "erasures",
    "retrainings",
)


def upgrade() -> None:
    op.create_table(
        "schedules",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("adapter_id", sa.Uuid(), nullable=False),
        sa.Column("task_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("cron", sa.Text(), nullable=True),
        sa.Column("time_zone", sa.Text(), nullable=True),
        sa.Column("new_trajectories", sa.Integer(), nullable=True),
        sa.Column("idle_hours", sa.Double(), nullable=True),
        sa.Column("params", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("next_run_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_job_id", sa.Uuid(), nullable=True),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "(kind = 'cron') = (cron is not null and time_zone is not null)", name=op.f("ck_schedules_cron")
        ),
        sa.CheckConstraint("(kind = 'idle') = (idle_hours is not null)", name=op.f("ck_schedules_idle_hours")),
        sa.CheckConstraint(
            "(kind = 'new_trajectories') = (new_trajectories is not null)", name=op.f("ck_schedules_new_trajectories")
        ),
        sa.CheckConstraint("kind in ('cron', 'new_trajectories', 'idle')", name=op.f("ck_schedules_kind")),
        sa.ForeignKeyConstraint(
            ["adapter_id"], ["adapters.id"], name=op.f("fk_schedules_adapter_id_adapters"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["last_job_id"], ["jobs.id"], name=op.f("fk_schedules_last_job_id_jobs")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_schedules_project_id_projects"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name=op.f("fk_schedules_task_id_tasks"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedules")),
    )
    op.create_index(op.f("ix_schedules_project_id"), "schedules", ["project_id"], unique=False)
    op.create_index(
        "uq_schedules_name",
        "schedules",
        ["project_id", "name"],
        unique=True,
        postgresql_where=sa.text("deleted_at is null"),
    )
    op.create_table(
        "schedule_runs",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("schedule_id", sa.Uuid(), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("missed", sa.Integer(), nullable=False),
        sa.Column("new_trajectories", sa.Integer(), nullable=False),
        sa.Column("up_to_seq", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.CheckConstraint("(outcome = 'started') = (job_id is not null)", name=op.f("ck_schedule_runs_job_id")),
        sa.CheckConstraint("outcome in ('started', 'skipped')", name=op.f("ck_schedule_runs_outcome")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_schedule_runs_job_id_jobs"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["schedule_id"], ["schedules.id"], name=op.f("fk_schedule_runs_schedule_id_schedules"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_schedule_runs")),
    )
    op.create_index("ix_schedule_runs_schedule_id_seq", "schedule_runs", ["schedule_id", "seq"], unique=False)
    op.create_table(
        "schedule_changes",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("schedule_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("before", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("after", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "kind in ('created', 'changed', 'paused', 'resumed', 'deleted')", name=op.f("ck_schedule_changes_kind")
        ),
        sa.ForeignKeyConstraint(
            ["schedule_id"],
            ["schedules.id"],
            name=op.f("fk_schedule_changes_schedule_id_schedules"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_schedule_changes")),
    )
    op.create_index(op.f("ix_schedule_changes_schedule_id"), "schedule_changes", ["schedule_id"], unique=False)
    op.create_table(
        "version_standings",
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("withdrawn_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("purged_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["version_id"], ["versions.id"], name=op.f("fk_version_standings_version_id_versions"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("version_id", name=op.f("pk_version_standings")),
    )
    op.create_table(
        "version_tags",
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"], ["versions.id"], name=op.f("fk_version_tags_version_id_versions"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("version_id", "name", name=op.f("pk_version_tags")),
    )
    op.create_table(
        "version_changes",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("evidence", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "kind in ('tagged', 'untagged', 'archived', 'unarchived', 'withdrawn', 'purged', 'exported', 'imported')",
            name=op.f("ck_version_changes_kind"),
        ),
        sa.ForeignKeyConstraint(
            ["version_id"], ["versions.id"], name=op.f("fk_version_changes_version_id_versions"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_version_changes")),
    )
    op.create_index("ix_version_changes_version_id_seq", "version_changes", ["version_id", "seq"], unique=False)
    op.create_table(
        "version_imports",
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("origin", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"], ["versions.id"], name=op.f("fk_version_imports_version_id_versions"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("version_id", name=op.f("pk_version_imports")),
    )
    op.create_table(
        "version_import_tasks",
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["task_id"], ["tasks.id"], name=op.f("fk_version_import_tasks_task_id_tasks"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["versions.id"],
            name=op.f("fk_version_import_tasks_version_id_versions"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("version_id", "place", name=op.f("pk_version_import_tasks")),
    )
    op.create_table(
        "retention_policies",
        sa.Column("adapter_id", sa.Uuid(), nullable=False),
        sa.Column("keep_last", sa.Integer(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("keep_last >= 1", name=op.f("ck_retention_policies_keep_last")),
        sa.ForeignKeyConstraint(
            ["adapter_id"], ["adapters.id"], name=op.f("fk_retention_policies_adapter_id_adapters"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("adapter_id", name=op.f("pk_retention_policies")),
    )
    op.create_table(
        "deletions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("scope", sa.String(length=16), nullable=False),
        sa.Column("subject_hash", sa.Text(), nullable=False),
        sa.Column("policy", sa.String(length=16), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("trajectories", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("affected", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("policy in ('keep', 'retrain', 'withdraw')", name=op.f("ck_deletions_policy")),
        sa.CheckConstraint("scope in ('trajectory', 'session', 'user')", name=op.f("ck_deletions_scope")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_deletions_project_id_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deletions")),
        sa.UniqueConstraint("seq", name=op.f("uq_deletions_seq")),
    )
    op.create_index(op.f("ix_deletions_project_id"), "deletions", ["project_id"], unique=False)
    op.create_table(
        "deletion_datasets",
        sa.Column("deletion_id", sa.Uuid(), nullable=False),
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        sa.Column("items", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name=op.f("fk_deletion_datasets_dataset_id_datasets"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["deletion_id"],
            ["deletions.id"],
            name=op.f("fk_deletion_datasets_deletion_id_deletions"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("deletion_id", "dataset_id", name=op.f("pk_deletion_datasets")),
    )
    op.create_index(op.f("ix_deletion_datasets_dataset_id"), "deletion_datasets", ["dataset_id"], unique=False)
    op.create_table(
        "erasures",
        sa.Column("deletion_id", sa.Uuid(), nullable=False),
        sa.Column("datasets", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("objects", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("job_ids", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("swept_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["deletion_id"], ["deletions.id"], name=op.f("fk_erasures_deletion_id_deletions"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("deletion_id", name=op.f("pk_erasures")),
    )
    op.create_index(
        "ix_erasures_unfinished",
        "erasures",
        ["deletion_id"],
        unique=False,
        postgresql_where=sa.text("finished_at is null"),
    )
    op.create_table(
        "retrainings",
        sa.Column("deletion_id", sa.Uuid(), nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("adapter_id", sa.Uuid(), nullable=False),
        sa.Column("task_id", sa.Uuid(), nullable=False),
        sa.Column("replaces_id", sa.Uuid(), nullable=False),
        sa.Column("parent_id", sa.Uuid(), nullable=True),
        sa.Column("params", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("stopped", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["adapter_id"], ["adapters.id"], name=op.f("fk_retrainings_adapter_id_adapters"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["deletion_id"], ["deletions.id"], name=op.f("fk_retrainings_deletion_id_deletions"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_retrainings_job_id_jobs")),
        sa.ForeignKeyConstraint(["parent_id"], ["versions.id"], name=op.f("fk_retrainings_parent_id_versions")),
        sa.ForeignKeyConstraint(["replaces_id"], ["versions.id"], name=op.f("fk_retrainings_replaces_id_versions")),
        sa.ForeignKeyConstraint(
            ["task_id"], ["tasks.id"], name=op.f("fk_retrainings_task_id_tasks"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("deletion_id", "line", "place", name=op.f("pk_retrainings")),
    )
    # When was the project last asked something?
    op.create_index("ix_exposures_project_id_at", "exposures", ["project_id", "at"], unique=False)
    for table in IMMUTABLE_TABLES:
        op.execute(f"create trigger immutable before update on {table} for each row execute function refuse_update()")
    # A deletion of data says so for its own transaction; then, of immutable rows, texts alone may be blanked.
    op.execute(
        """
        create or replace function refuse_update() returns trigger language plpgsql as $$
        declare
            texts text[] := case tg_table_name
                when 'evaluations' then array['items']
                when 'exposures' then array['session_id']
                when 'feedback' then array['comment', 'unit']
                else array[]::text[]
            end;
        begin
            if current_setting('memgen.erasing', true) = 'on'
                and cardinality(texts) > 0
                and to_jsonb(new) - texts = to_jsonb(old) - texts
            then
                return new;
            end if;
            raise exception 'rows of % are immutable', tg_table_name;
        end $$
        """
    )


def downgrade() -> None:
    op.execute(
        """
        create or replace function refuse_update() returns trigger language plpgsql as $$
        begin
            raise exception 'rows of % are immutable', tg_table_name;
        end $$
        """
    )
    op.drop_index("ix_exposures_project_id_at", table_name="exposures")
    for table in reversed(TABLES):
        op.drop_table(table)
