"""imported versions keep the lineage of their origin, and purged ones come back

Revision: 0008
Follows: 0007

Until now an imported version was linked to its own dataset alone. The datasets of its ancestors are in its archive's
description.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_CHANGES = "'tagged', 'untagged', 'archived', 'unarchived', 'withdrawn', 'purged'"


def upgrade() -> None:
    op.create_table(
        "version_import_datasets",
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_id"],
            ["datasets.id"],
            name=op.f("fk_version_import_datasets_dataset_id_datasets"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["versions.id"],
            name=op.f("fk_version_import_datasets_version_id_versions"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("version_id", "dataset_id", name=op.f("pk_version_import_datasets")),
    )
    op.create_index(op.f("ix_version_import_datasets_dataset_id"), "version_import_datasets", ["dataset_id"])
    op.execute(
        """
        insert into version_import_datasets (version_id, dataset_id)
        select distinct i.version_id, d.id
        from version_imports i
        join versions v on v.id = i.version_id
        join adapters a on a.id = v.adapter_id
        cross join lateral jsonb_path_query(i.origin, '$.lineage[*].dataset_hash') as named(hash)
        join datasets d on d.project_id = a.project_id and d.content_hash = named.hash #>> '{}'
        """
    )
    op.execute(
        "create trigger immutable before update on version_import_datasets "
        "for each row execute function refuse_update()"
    )
    _replace_check(f"kind in ({_CHANGES}, 'restored', 'exported', 'imported')")


def downgrade() -> None:
    """The older code has no change `restored`; it calls the return of the bytes an import."""
    op.execute("alter table version_changes disable trigger immutable")
    op.execute("update version_changes set kind = 'imported' where kind = 'restored'")
    op.execute("alter table version_changes enable trigger immutable")
    _replace_check(f"kind in ({_CHANGES}, 'exported', 'imported')")
    op.drop_table("version_import_datasets")


def _replace_check(condition: str) -> None:
    op.drop_constraint(op.f("ck_version_changes_kind"), "version_changes", type_="check")
    op.create_check_constraint(op.f("ck_version_changes_kind"), "version_changes", condition)
