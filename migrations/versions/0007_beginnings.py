"""trajectories that begin alike are held out together

Revision: 0007
Follows: 0006

Until now the side depended on what stands in front of the last supervised turn, so that a conversation and its own
beginning could be on different sides. From now on it depends on what stands in front of the first answer.

No row goes from held out to trained on: it may be an item of a suite, and a version trained from then on would be
tested on what it learned. Where rows that begin alike were on both sides, those that were trained on are held out from
now on; where all were on one side they stay there, whatever the new rule says, and later ones that begin like them
follow (`registry.trajectories.holdout.stored_sides`). Versions that learned one of the rows exist already, so
`registry.datasets.suites.freeze_suite` leaves out what begins like an item of a dataset. Suites that are frozen stay as
they are, with their scores.
"""

import hashlib
import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_BATCH = 500


def upgrade() -> None:
    op.add_column("tasks", sa.Column("shared_turns", sa.Integer(), nullable=False, server_default="0"))
    op.alter_column("tasks", "shared_turns", server_default=None)
    op.create_check_constraint(op.f("ck_tasks_shared_turns"), "tasks", "shared_turns >= 0")
    op.alter_column("trajectories", "prompt_hash", new_column_name="beginning_hash", nullable=True)
    _rehash()
    op.create_index(op.f("ix_trajectories_task_id_beginning_hash"), "trajectories", ["task_id", "beginning_hash"])
    op.execute(
        """
        update trajectories t set held_out = true
        where not t.held_out and exists (
            select from trajectories h
            where h.task_id = t.task_id and h.beginning_hash = t.beginning_hash and h.held_out
        )
        """
    )


def downgrade() -> None:
    """The older code never reads the column of a stored row, so the hashes may stay. So do the sides."""
    op.drop_index(op.f("ix_trajectories_task_id_beginning_hash"), table_name="trajectories")
    op.execute("update trajectories set beginning_hash = content_hash where beginning_hash is null")
    op.alter_column("trajectories", "beginning_hash", new_column_name="prompt_hash", nullable=False)
    op.drop_constraint(op.f("ck_tasks_shared_turns"), "tasks", type_="check")
    op.drop_column("tasks", "shared_turns")


def _rehash() -> None:
    connection, seq = op.get_bind(), 0
    following = sa.text("select seq, messages from trajectories where seq > :seq order by seq limit :batch")
    change = sa.text("update trajectories set beginning_hash = :hash where seq = :seq")
    while rows := connection.execute(following, {"seq": seq, "batch": _BATCH}).all():
        connection.execute(change, [{"seq": row.seq, "hash": _beginning_hash(row.messages)} for row in rows])
        seq = rows[-1].seq


def _beginning_hash(messages: list[dict[str, Any]]) -> str:
    """A copy of `registry.trajectories.holdout.beginning_hash` at this revision, for no shared turns."""
    first = next(place for place, message in enumerate(messages) if message["role"] == "assistant")
    beginning = [[message["role"], _text(message.get("content")), []] for message in messages[:first]]
    text = json.dumps([beginning, None], ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _text(content: Any) -> str:
    return "".join(part["text"] for part in content) if isinstance(content, list) else content or ""
