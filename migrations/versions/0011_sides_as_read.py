"""the side of a trajectory is drawn by what a model reads of its beginning

Revision: 0011
Follows: 0010

Until now beginnings that a base reads alike could be on different sides: with `developer` for `system`, in the main.
Every row gets the new hash. Where rows that begin alike are on both sides, those that were trained on are held out from
now on; nothing goes from held out to trained on. The number of moved rows is told, by task.

Frozen suites and datasets stay as they are, with their scores. A later suite leaves out whatever begins like an item of
a dataset (`registry.datasets.suites.freeze_suite`), so no version is judged by what one has learned.
"""

import hashlib
import json
import logging
from collections.abc import Callable
from itertools import islice
from typing import Any

import sqlalchemy as sa
from alembic import context, op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_BATCH = 500

Messages = list[dict[str, Any]]


def upgrade() -> None:
    _rehash(_beginning_hash)
    moved = op.get_bind().execute(
        sa.text(
            """
            with moved as (
                update trajectories t set held_out = true
                where not t.held_out and exists (
                    select from trajectories h
                    where h.task_id = t.task_id and h.beginning_hash = t.beginning_hash and h.held_out
                )
                returning t.id, t.task_id
            )
            select k.name, p.name as project, count(*) as rows,
                count(*) filter (where exists (select from dataset_items i where i.trajectory_id = m.id)) as learned
            from moved m join tasks k on k.id = m.task_id join projects p on p.id = k.project_id
            group by p.name, k.name order by p.name, k.name
            """
        )
    )
    for task, project, rows, learned in moved:
        note = (
            f"{rows} trajectories of task {task!r} (project {project!r}) are held out from now on: they begin like "
            f"held-out ones. {learned} of them were trained on; see docs/upgrading.md"
        )
        logging.getLogger("alembic.runtime.migration").warning(note)
        context.config.attributes.setdefault("notes", []).append(note)


def downgrade() -> None:
    """The older code finds rows by its own hash. Sides stay as they are."""
    _rehash(_hash_before)


def _rehash(hash_of: Callable[[Messages, int], str | None]) -> None:
    """In batches, so that memory does not grow with the table."""
    connection, seq = op.get_bind(), 0
    following = sa.text(
        "select t.seq, t.messages, t.beginning_hash, k.shared_turns from trajectories t "
        "join tasks k on k.id = t.task_id where t.seq > :seq order by t.seq limit :batch"
    )
    change = sa.text(
        "update trajectories t set beginning_hash = s.hash "
        "from unnest(cast(:seqs as bigint[]), cast(:hashes as text[])) as s(seq, hash) where t.seq = s.seq"
    )
    while rows := connection.execute(following, {"seq": seq, "batch": _BATCH}).all():
        hashes = [
            None if row.beginning_hash is None else hash_of(row.messages, row.shared_turns) or row.beginning_hash
            for row in rows
        ]
        connection.execute(change, {"seqs": [row.seq for row in rows], "hashes": hashes})
        seq = rows[-1].seq


def _first_answer(messages: Messages, shared_turns: int) -> int | None:
    turns = (place for place, message in enumerate(messages) if message["role"] == "assistant")
    return next(islice(turns, shared_turns, None), None)


def _beginning_hash(messages: Messages, shared_turns: int) -> str | None:
    """A copy of `registry.trajectories.holdout.beginning_hash` at this revision."""
    first = _first_answer(messages, shared_turns)
    if first is None:
        return None
    beginning: list[list[Any]] = [["asked", ""]]
    for message in messages[:first]:
        text = _text(message)
        if message["role"] == "assistant":
            beginning += [["answered", text, _calls(message)], ["asked", ""]]
        elif text:
            beginning[-1][1] = f"{beginning[-1][1]}\n\n{text}" if beginning[-1][1] else text
    return hashlib.sha256(json.dumps(beginning, separators=(",", ":")).encode()).hexdigest()


def _text(message: dict[str, Any]) -> str:
    content, refusal = message.get("content"), message.get("refusal")
    if isinstance(content, list):
        content = "".join(part[part["type"]] for part in content if part["type"] in ("text", "refusal"))
    text = content or refusal
    return text.strip() if isinstance(text, str) else ""


def _calls(message: dict[str, Any]) -> list[list[str]]:
    made, older = list(message.get("tool_calls") or ()), message.get("function_call")
    if isinstance(older, dict):
        made.append({"function": older})
    calls = []
    for call in made:
        function = call.get("function") or call.get("custom") or {}
        given = function.get("arguments", function.get("input"))
        try:
            arguments = json.loads(given.strip() or "{}") if isinstance(given, str) else given
            written = json.dumps(arguments or {}, sort_keys=True)
        except (ValueError, RecursionError):
            written = str(given)
        calls.append([str(function.get("name")), written])
    return calls


def _hash_before(messages: Messages, shared_turns: int) -> str | None:
    """A copy of the function at revision 0010; None for what it could not read."""
    first = _first_answer(messages, shared_turns)
    if first is None:
        return None
    try:
        beginning = [_read_before(message) for message in messages[:first]]
        text = json.dumps([beginning, None], ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _read_before(message: dict[str, Any]) -> list[Any]:
    content = message.get("content")
    text = "".join(part["text"] for part in content) if isinstance(content, list) else content or ""
    calls = [
        [call["function"]["name"], json.loads(call["function"]["arguments"])]
        for call in message.get("tool_calls") or ()
    ]
    return [message["role"], text, calls]
