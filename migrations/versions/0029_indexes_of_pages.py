"""indexes by which pages and deletions find what they show, whatever else there is

They are made beside running reads and writes, which takes a transaction of its own for each.

Revision: 0029
Follows: 0028
"""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

_USER = "(details ->> 'user')"
_NEW = (
    ("ix_versions_dataset_id", "versions", ("dataset_id",), None),
    ("ix_alias_moves_adapter_id_seq", "alias_moves", ("adapter_id", "seq"), None),
    ("ix_jobs_dataset_id", "jobs", ("dataset_id",), None),
    ("ix_jobs_project_id_seq", "jobs", ("project_id", "seq"), None),
    ("ix_jobs_adapter_id_kind_seq", "jobs", ("adapter_id", "kind", "seq"), None),
    ("ix_jobs_failed", "jobs", ("project_id", "finished_at"), "state = 'failed'"),
    ("ix_runs_project_id_seq", "runs", ("project_id", "seq"), None),
    ("ix_runs_project_id_user", "runs", ("project_id", "user"), '"user" is not null'),
    ("ix_trajectories_task_id_created_at", "trajectories", ("task_id", "created_at"), None),
    ("ix_trajectories_project_id_user", "trajectories", ("project_id", _USER), f"{_USER} is not null"),
)
_REPLACED = (("ix_jobs_project_id", "jobs"), ("ix_runs_project_id", "runs"))
"""By indexes that begin with the same column."""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for name, table, columns, where in _NEW:
            # An attempt that was interrupted leaves an index that is not valid.
            op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)
            op.create_index(
                name,
                table,
                [sa.text(column) if column == _USER else column for column in columns],
                postgresql_include=["id"] if name == "ix_trajectories_task_id_created_at" else None,
                postgresql_where=None if where is None else sa.text(where),
                postgresql_concurrently=True,
            )
        for name, table in _REPLACED:
            op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)


def downgrade() -> None:
    for name, table in _REPLACED:
        op.create_index(name, table, ["project_id"])
    for name, table, _, _ in _NEW:
        op.drop_index(name, table)
