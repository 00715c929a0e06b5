"""canaries that become the champion by themselves

Revision: 0006
Follows: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_PROMOTIONS = "in ('never', 'better', 'non_inferior')"
_STATES = "'live', 'ended', 'stopped'"
_CHANGES = "'started', 'ended', 'stopped'"


def upgrade() -> None:
    """Adapters with policy `canary`, and live routes, keep promotion by hand, as it was when they were made."""
    op.add_column("adapters", sa.Column("canary_promotion", sa.Text(), nullable=False, server_default="non_inferior"))
    op.add_column("adapters", sa.Column("canary_margin", sa.Double(), nullable=False, server_default="0.05"))
    op.execute("update adapters set canary_promotion = 'never' where gate_policy = 'canary'")
    op.add_column("routes", sa.Column("promotion", sa.Text(), nullable=False, server_default="never"))
    op.add_column("routes", sa.Column("margin", sa.Double(), nullable=True))
    for table, column in (("adapters", "canary_promotion"), ("adapters", "canary_margin"), ("routes", "promotion")):
        op.alter_column(table, column, server_default=None)
    for table, name, condition in (
        ("adapters", "canary_promotion", f"canary_promotion {_PROMOTIONS}"),
        ("adapters", "canary_margin", "canary_margin > 0 and canary_margin < 1"),
        ("routes", "promotion", f"promotion {_PROMOTIONS} and (kind = 'canary' or promotion = 'never')"),
        ("routes", "margin_of_promotion", "(promotion = 'non_inferior') = (margin is not null)"),
        ("routes", "margin", "margin > 0 and margin < 1"),
    ):
        op.create_check_constraint(op.f(f"ck_{table}_{name}"), table, condition)
    _replace_check("routes", "state", f"state in ({_STATES}, 'promoted')")
    _replace_check("route_changes", "kind", f"kind in ({_CHANGES}, 'promoted')")


def downgrade() -> None:
    """Routes that ended in a promotion have ended, which is all that the older code can say."""
    op.execute("alter table routes disable trigger only_ends")
    op.execute("update routes set state = 'ended' where state = 'promoted'")
    op.execute("alter table routes enable trigger only_ends")
    op.execute("alter table route_changes disable trigger immutable")
    op.execute("update route_changes set kind = 'ended' where kind = 'promoted'")
    op.execute("alter table route_changes enable trigger immutable")
    _replace_check("route_changes", "kind", f"kind in ({_CHANGES})")
    _replace_check("routes", "state", f"state in ({_STATES})")
    for name in ("margin", "margin_of_promotion", "promotion"):
        op.drop_constraint(op.f(f"ck_routes_{name}"), "routes", type_="check")
    op.drop_column("routes", "margin")
    op.drop_column("routes", "promotion")
    op.drop_column("adapters", "canary_margin")
    op.drop_column("adapters", "canary_promotion")


def _replace_check(table: str, name: str, condition: str) -> None:
    op.drop_constraint(op.f(f"ck_{table}_{name}"), table, type_="check")
    op.create_check_constraint(op.f(f"ck_{table}_{name}"), table, condition)
