"""routes, exposures and feedback

Revision: 0004
Follows: 0003
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

IMMUTABLE_TABLES = ("route_arms", "route_changes", "exposures", "feedback", "shadow_answers")


def upgrade() -> None:
    op.create_table(
        "routes",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("adapter_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("salt", sa.Text(), nullable=False),
        sa.Column("shadow_share", sa.Double(), nullable=True),
        sa.Column("level", sa.Double(), nullable=False),
        sa.Column("smallest_effect", sa.Double(), nullable=False),
        sa.Column("reward_source", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(state = 'live') = (ended_at is null)", name=op.f("ck_routes_ended_at")),
        sa.CheckConstraint("kind in ('ab', 'canary', 'shadow')", name=op.f("ck_routes_kind")),
        sa.CheckConstraint("state in ('live', 'ended', 'stopped')", name=op.f("ck_routes_state")),
        sa.CheckConstraint("level > 0 and level < 1", name=op.f("ck_routes_level")),
        sa.CheckConstraint("shadow_share > 0 and shadow_share <= 1", name=op.f("ck_routes_shadow_share")),
        sa.CheckConstraint("smallest_effect > 0 and smallest_effect <= 1", name=op.f("ck_routes_smallest_effect")),
        sa.ForeignKeyConstraint(
            ["adapter_id"], ["adapters.id"], name=op.f("fk_routes_adapter_id_adapters"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_routes")),
        sa.UniqueConstraint("adapter_id", "number", name=op.f("uq_routes_adapter_id_number")),
    )
    op.create_index("uq_routes_live", "routes", ["adapter_id"], unique=True, postgresql_where=sa.text("state = 'live'"))
    op.create_table(
        "route_changes",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("route_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("evidence", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind in ('started', 'ended', 'stopped')", name=op.f("ck_route_changes_kind")),
        sa.ForeignKeyConstraint(
            ["route_id"], ["routes.id"], name=op.f("fk_route_changes_route_id_routes"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_route_changes")),
    )
    op.create_index(op.f("ix_route_changes_route_id"), "route_changes", ["route_id"], unique=False)
    op.create_table(
        "exposures",
        sa.Column("completion_id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=True),
        sa.Column("route_id", sa.Uuid(), nullable=True),
        sa.Column("session_id", sa.Text(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_exposures_project_id_projects"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["route_id"], ["routes.id"], name=op.f("fk_exposures_route_id_routes"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["version_id"], ["versions.id"], name=op.f("fk_exposures_version_id_versions"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("completion_id", name=op.f("pk_exposures")),
    )
    op.create_index(op.f("ix_exposures_project_id"), "exposures", ["project_id"], unique=False)
    op.create_index("ix_exposures_route_id_version_id", "exposures", ["route_id", "version_id"], unique=False)
    op.create_index(op.f("ix_exposures_session_id"), "exposures", ["session_id"], unique=False)
    op.create_index(op.f("ix_exposures_version_id"), "exposures", ["version_id"], unique=False)
    op.create_table(
        "route_arms",
        sa.Column("route_id", sa.Uuid(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.CheckConstraint("weight >= 0 and weight <= 1", name=op.f("ck_route_arms_weight")),
        sa.ForeignKeyConstraint(
            ["route_id"], ["routes.id"], name=op.f("fk_route_arms_route_id_routes"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_route_arms_version_id_versions")),
        sa.PrimaryKeyConstraint("route_id", "place", name=op.f("pk_route_arms")),
        sa.UniqueConstraint("route_id", "version_id", name=op.f("uq_route_arms_route_id_version_id")),
    )
    op.create_index(op.f("ix_route_arms_version_id"), "route_arms", ["version_id"], unique=False)
    op.create_table(
        "feedback",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("completion_id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("reward", sa.Double(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=True),
        sa.Column("route_id", sa.Uuid(), nullable=True),
        sa.Column("unit", sa.Text(), nullable=True),
        sa.Column("counted", sa.Boolean(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "not counted or (route_id is not null and unit is not null)", name=op.f("ck_feedback_counted")
        ),
        sa.CheckConstraint("reward >= 0 and reward <= 1", name=op.f("ck_feedback_reward")),
        sa.ForeignKeyConstraint(
            ["completion_id"],
            ["exposures.completion_id"],
            name=op.f("fk_feedback_completion_id_exposures"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_feedback_project_id_projects"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["route_id"], ["routes.id"], name=op.f("fk_feedback_route_id_routes"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["version_id"], ["versions.id"], name=op.f("fk_feedback_version_id_versions"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_feedback")),
        sa.UniqueConstraint("completion_id", "source", name=op.f("uq_feedback_completion_id_source")),
    )
    op.create_index(op.f("ix_feedback_project_id"), "feedback", ["project_id"], unique=False)
    op.create_index("ix_feedback_route_id_seq", "feedback", ["route_id", "seq"], unique=False)
    op.create_index(op.f("ix_feedback_version_id"), "feedback", ["version_id"], unique=False)
    op.create_index(
        "uq_feedback_counted", "feedback", ["route_id", "unit"], unique=True, postgresql_where=sa.text("counted")
    )
    op.create_table(
        "shadow_answers",
        sa.Column("completion_id", sa.Text(), nullable=False),
        sa.Column("route_id", sa.Uuid(), nullable=False),
        sa.Column("same", sa.Boolean(), nullable=True),
        sa.Column("similarity", sa.Double(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("shadow_seconds", sa.Double(), nullable=True),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("shadow_tokens", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["completion_id"],
            ["exposures.completion_id"],
            name=op.f("fk_shadow_answers_completion_id_exposures"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["route_id"], ["routes.id"], name=op.f("fk_shadow_answers_route_id_routes"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("completion_id", name=op.f("pk_shadow_answers")),
    )
    op.create_index("ix_shadow_answers_route_id", "shadow_answers", ["route_id"], unique=False)
    for table in IMMUTABLE_TABLES:
        op.execute(f"create trigger immutable before update on {table} for each row execute function refuse_update()")
    op.execute(
        """
        create function refuse_all_but_the_end() returns trigger language plpgsql as $$
        begin
            if old.state <> 'live'
                or to_jsonb(new) - array['state', 'ended_at'] <> to_jsonb(old) - array['state', 'ended_at']
            then
                raise exception 'of a route only its end may be written, once';
            end if;
            return new;
        end $$
        """
    )
    op.execute(
        "create trigger only_ends before update on routes for each row execute function refuse_all_but_the_end()"
    )
    op.execute(
        """
        create function check_weights() returns trigger language plpgsql as $$
        begin
            if abs((select sum(weight) from route_arms where route_id = new.route_id) - 1) > 1e-9 then
                raise exception 'the weights of a route must sum to one';
            end if;
            return null;
        end $$
        """
    )
    op.execute(
        "create constraint trigger weights_sum_to_one after insert on route_arms "
        "deferrable initially deferred for each row execute function check_weights()"
    )


def downgrade() -> None:
    op.drop_index("ix_shadow_answers_route_id", table_name="shadow_answers")
    op.drop_table("shadow_answers")
    op.drop_index("uq_feedback_counted", table_name="feedback", postgresql_where=sa.text("counted"))
    op.drop_index(op.f("ix_feedback_version_id"), table_name="feedback")
    op.drop_index("ix_feedback_route_id_seq", table_name="feedback")
    op.drop_index(op.f("ix_feedback_project_id"), table_name="feedback")
    op.drop_table("feedback")
    op.drop_index(op.f("ix_route_arms_version_id"), table_name="route_arms")
    op.drop_table("route_arms")
    op.drop_index(op.f("ix_exposures_version_id"), table_name="exposures")
    op.drop_index(op.f("ix_exposures_session_id"), table_name="exposures")
    op.drop_index("ix_exposures_route_id_version_id", table_name="exposures")
    op.drop_index(op.f("ix_exposures_project_id"), table_name="exposures")
    op.drop_table("exposures")
    op.drop_index(op.f("ix_route_changes_route_id"), table_name="route_changes")
    op.drop_table("route_changes")
    op.drop_index("uq_routes_live", table_name="routes", postgresql_where=sa.text("state = 'live'"))
    op.drop_table("routes")
    op.execute("drop function check_weights()")
    op.execute("drop function refuse_all_but_the_end()")
