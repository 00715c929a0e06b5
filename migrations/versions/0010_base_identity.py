"""adapters and scores know their base's tokenizer, chat template and generation config, beside its weights

Revision: 0010
Follows: 0009

Rows that are there have none: no model is at hand here. The first process that loads a base of their revision fills it
in, which is why of an immutable row of scores it may be filled in, once.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_UNIQUE = "uq_evaluations_suite_id_base_model_base_revision_version_id"
_UNIQUE_BY_IDENTITY = "uq_evaluations_suite_id_base_model_base_revision_base_i_7321"

_REFUSE_UPDATE = """
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
    {more}
    raise exception 'rows of % are immutable', tg_table_name;
end $$
"""

_FILL_IN_ONCE = """
    if tg_table_name = 'evaluations'
        and to_jsonb(old) -> 'base_identity' = 'null'
        and to_jsonb(new) - 'base_identity' = to_jsonb(old) - 'base_identity'
    then
        return new;
    end if;
"""


def upgrade() -> None:
    for table in ("adapters", "evaluations"):
        op.add_column(table, sa.Column("base_identity", postgresql.JSONB(astext_type=sa.Text()), nullable=True))
    op.drop_constraint(_UNIQUE, "evaluations", type_="unique")
    op.create_unique_constraint(
        op.f(_UNIQUE_BY_IDENTITY),
        "evaluations",
        ["suite_id", "base_model", "base_revision", "base_identity", "version_id"],
        postgresql_nulls_not_distinct=True,
    )
    op.execute(_REFUSE_UPDATE.format(more=_FILL_IN_ONCE))


def downgrade() -> None:
    """The older code knows one score of a revision on a suite: the oldest stays, which is the one that it gave."""
    op.execute(_REFUSE_UPDATE.format(more=""))
    op.execute(
        """
        delete from evaluations newer using evaluations older
        where newer.suite_id = older.suite_id
            and newer.base_model = older.base_model
            and newer.base_revision = older.base_revision
            and newer.version_id is not distinct from older.version_id
            and (newer.created_at, newer.id) > (older.created_at, older.id)
        """
    )
    op.drop_constraint(_UNIQUE_BY_IDENTITY, "evaluations", type_="unique")
    op.create_unique_constraint(
        op.f(_UNIQUE),
        "evaluations",
        ["suite_id", "base_model", "base_revision", "version_id"],
        postgresql_nulls_not_distinct=True,
    )
    for table in ("evaluations", "adapters"):
        op.drop_column(table, "base_identity")
