"""The words of trajectories, by which they are searched: read from conversations, and indexed behind their arrival.

A word is a run of letters and digits, whatever the language: nothing is stemmed and nothing left out, as in the search
of feedback. Of scripts that put no spaces between words each character is one. PostgreSQL finds the words, alone or in
a row; what a word is, is decided here, for conversations and for what is searched, so that addresses, code and
hyphens, which its parser reads each in a way of its own, are found by their parts.

The index follows the order of arrival. An import never waits for it: an index costs more than storing the row.
"""

import json
import unicodedata
import uuid
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import regex  # type: ignore[import-untyped]  # ships no type information
from sqlalchemy import BigInteger, ColumnElement, SQLColumnExpression, Text, column, func, insert, literal, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from registry.database import one_of
from registry.models import Project, Trajectory, TrajectoryWords
from registry.trajectories.continuation import message_text

MOST_BYTES = 200_000
"""How much of a conversation's words can be searched, from its beginning: PostgreSQL takes no more than a megabyte of
words with their positions."""
MAX_SEARCH_CHARACTERS = 500
_BATCH, _BATCH_BYTES = 500, 4_000_000
"""What is read at once: rows, and bytes of them as the database keeps them, which is compressed."""
_SPACELESS = "".join(rf"\p{{{name}}}" for name in ("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar"))
_ALONE, _PART_OF_WORD = regex.compile(rf"[{_SPACELESS}]"), regex.compile(r"[\p{L}\p{M}\p{N}]")
_MOST_CHARACTERS = 255
"""Length of a word; longer ones are cut: PostgreSQL leaves out words of more than 2,047 bytes."""
_TERM = regex.compile(r'-?"[^"]*"?|[^\s"]+')
_SIMPLE = text("'simple'::regconfig")
"""The configuration that knows no language."""


def words_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """The words of a conversation, with spaces between them: what was said, thought, called and returned."""
    found: list[str] = []
    left = MOST_BYTES
    for message in messages:
        for part in _texts(message):
            # Cut before it is read, too: one character may become eighteen.
            words = " ".join(_words(part[:left]))
            if words:
                found.append(words)
                left -= len(words) + 1
            if left <= 0:
                return _cut(" ".join(found))
    return _cut(" ".join(found))


def matches(search: str) -> ColumnElement[bool]:
    """Whether `TrajectoryWords` has the words of `search`: all of them; "quoted ones" in a row, `or` between
    alternatives, `-` before what must not be there. A text without a word is found nowhere."""
    return TrajectoryWords.words.op("@@")(func.websearch_to_tsquery(_SIMPLE, _as_query(search)))


def projects_to_index(session: Session) -> list[uuid.UUID]:
    """Projects that have trajectories whose words are not indexed yet."""
    newest = select(func.max(Trajectory.seq)).where(Trajectory.project_id == Project.id).scalar_subquery()
    return list(session.scalars(select(Project.id).where(newest > _indexed_up_to(Project.id))))


def index_words(session: Session, project_id: uuid.UUID) -> int:
    """Index the next trajectories of the project, in their order of arrival. Returns how many; 0 if all are indexed.

    What is indexed is always the beginning of what there is: a project's trajectories become visible in the order of
    their `seq` (`registry.trajectories.records`), and one that is deleted takes its words along.
    """
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"words of {project_id}", 0))))
    chosen = _next(session, project_id)
    rows = session.execute(
        select(Trajectory.seq, Trajectory.messages)
        .where(one_of(Trajectory.seq, chosen))
        .with_for_update(read=True, key_share=True)  # one that is being deleted is waited for, and left out
    ).all()
    columns = (
        literal([row.seq for row in rows], ARRAY(BigInteger)),
        literal([words_of(row.messages) for row in rows], ARRAY(Text)),
    )
    sent = func.unnest(*columns).table_valued(column("seq", BigInteger), column("words", Text), name="sent")
    read = sent.render_derived()
    words = select(read.c.seq, literal(project_id), func.to_tsvector(_SIMPLE, read.c.words))
    session.execute(insert(TrajectoryWords).from_select(["seq", "project_id", "words"], words))
    return len(chosen)


def _next(session: Session, project_id: uuid.UUID) -> list[int]:
    """The next trajectories to index, by `seq`: many short ones or few long ones, so that memory holds them."""
    rows = session.execute(
        select(Trajectory.seq, func.pg_column_size(Trajectory.messages).label("size"))
        .where(Trajectory.project_id == project_id, Trajectory.seq > _indexed_up_to(literal(project_id)))
        .order_by(Trajectory.seq)
        .limit(_BATCH)
    ).all()
    before = accumulate((row.size for row in rows), initial=0)
    return [row.seq for row, size in zip(rows, before, strict=False) if size < _BATCH_BYTES]


def _indexed_up_to(project_id: SQLColumnExpression[uuid.UUID]) -> ColumnElement[int]:
    newest = select(func.max(TrajectoryWords.seq)).where(TrajectoryWords.project_id == project_id)
    return func.coalesce(newest.scalar_subquery(), 0)


class _Spaced(dict[int, int | str]):
    """For `str.translate`: what each character becomes, so that spaces stand between words and nowhere else."""

    def __missing__(self, code: int) -> int | str:
        character = chr(code)
        found = f" {character} " if _ALONE.match(character) else code if _PART_OF_WORD.match(character) else " "
        if len(self) < _MOST_KNOWN:
            self[code] = found
        return found


_SPACED, _MOST_KNOWN = _Spaced(), 20_000


def _words(given: str) -> list[str]:
    """Letters that look alike are one, as the wide ones of Asian typography."""
    found = unicodedata.normalize("NFKC", given).translate(_SPACED).split()
    if max(map(len, found), default=0) <= _MOST_CHARACTERS:
        return found
    return [word[start : start + _MOST_CHARACTERS] for word in found for start in range(0, len(word), _MOST_CHARACTERS)]


def _as_query(search: str) -> str:
    """What `websearch_to_tsquery` reads, without what it would read by rules of its own."""
    terms = []
    for term in _TERM.findall(search):
        words = " ".join(_words(term))
        if term.lower() == "or":
            terms.append(term)
        elif words:
            terms.append(f'{"-" if term.startswith("-") else ""}"{words}"')
    return " ".join(terms)


def _cut(words: str) -> str:
    return words.encode()[:MOST_BYTES].decode(errors="ignore")


def _texts(message: Mapping[str, Any]) -> Iterator[str]:
    """What a message says, in order; roles and ids are left out, and what is no text."""
    yield from _values(message.get("reasoning_content"))
    yield from _values(message_text(message))
    calls = message.get("tool_calls")
    for call in [*(calls if isinstance(calls, list) else ()), {"function": message.get("function_call")}]:
        function = (call.get("function") or call.get("custom")) if isinstance(call, dict) else None
        if isinstance(function, dict):
            yield from (each for name in ("name", "arguments", "input") for each in _values(function.get(name)))


def _values(value: object) -> Iterator[str]:
    """The texts and numbers in a JSON value, names too, in order. A text that is JSON itself, as arguments and results
    are, is read as what it spells: escapes hide words."""
    waiting = [_spelled(value)]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, dict):
            waiting += [part for pair in reversed(each.items()) for part in reversed(pair)]
        elif isinstance(each, list):
            waiting += reversed(each)
        elif isinstance(each, int | float) and not isinstance(each, bool):
            yield str(each)


def _spelled(value: object) -> object:
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")) or len(value) > MOST_BYTES:
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
