"""Bulk import: turns batches of sent trajectories into rows, and reports on every line. Knows no HTTP, no tokenizer.

A line is accepted, already there, or refused with a code and a reason. A refused line never affects its neighbours, and
sending a file again, whole or from the middle, twice at once or after a break, adds only what is missing.
"""

import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sqlalchemy.orm import Session

from registry.errors import InvalidTrajectory
from registry.json_text import show
from registry.models import Task
from registry.tasks import find_tasks
from registry.trajectories.draft import Draft, Sent
from registry.trajectories.formats import chat
from registry.trajectories.holdout import MIN_ALIKE, beginning_hash, find_shared_prefix_group, held_out, stored_sides
from registry.trajectories.records import Key, NewTrajectory, find_stored, insert_trajectories

Status = Literal["accepted", "duplicate", "refused"]
MAX_REPORTED_LINES = 10_000
"""Refused lines listed one by one in a report; all of them are counted by code."""


@dataclass(frozen=True)
class TokenLimit:
    """Length of conversations for the base model. The caller passes it: the registry holds no tokenizer."""

    count: Callable[[list[Any], list[Any] | None], int]
    """Tokens of the longest supervised prompt plus answer of (messages, tools).
    Raises ValueError when the model's chat template refuses the conversation."""
    max_tokens: int


@dataclass(frozen=True, slots=True)
class LineWarning:
    """What the sender should know of a line that was accepted. `code` is stable for programs."""

    code: str
    reason: str


Advise = Callable[[NewTrajectory], Sequence[LineWarning]]
"""Looks at a trajectory that is about to be stored, with its tokens and its side. The caller passes it: the registry
knows neither graders nor the limits of trainings."""


@dataclass(frozen=True, slots=True)
class LineResult:
    line: int
    status: Status
    id: uuid.UUID | None = None
    """Id of the stored trajectory: the new one, or the one that was there."""
    held_out: bool = False
    task: str | None = None
    """Name of the task of an accepted line."""
    code: str | None = None
    reason: str | None = None
    warnings: tuple[LineWarning, ...] = ()


@dataclass
class ImportReport:
    every_line: bool = False
    """Whether to list accepted and duplicate lines too."""
    max_lines: int = MAX_REPORTED_LINES
    counts: Counter[Status] = field(default_factory=Counter)
    held_out: int = 0
    """How many of the accepted ones are held out."""
    accepted_by_task: Counter[str] = field(default_factory=Counter)
    refused_by_code: Counter[str] = field(default_factory=Counter)
    lines: list[LineResult] = field(default_factory=list)
    lines_left_out: int = 0
    """Refused lines beyond `max_lines`."""
    warned_by_code: Counter[str] = field(default_factory=Counter)
    warned: list[tuple[int, LineWarning]] = field(default_factory=list)
    """(line, warning) of accepted lines, up to `max_lines`."""
    warnings: list[str] = field(default_factory=list)

    def add(self, results: Sequence[LineResult]) -> None:
        for result in results:
            self.counts[result.status] += 1
            self.held_out += result.status == "accepted" and result.held_out
            if result.task is not None:
                self.accepted_by_task[result.task] += 1
            if result.code is not None:
                self.refused_by_code[result.code] += 1
            self._warn(result)
            if not self.every_line and result.status != "refused":
                continue
            if len(self.lines) < self.max_lines:
                self.lines.append(result)
            else:
                self.lines_left_out += 1

    def _warn(self, result: LineResult) -> None:
        for warning in result.warnings:
            self.warned_by_code[warning.code] += 1
            if len(self.warned) < self.max_lines:
                self.warned.append((result.line, warning))

    def sum_up(self) -> None:
        """Add a warning of the whole for each code that lines were warned by."""
        first = {warning.code: (line, warning) for line, warning in reversed(self.warned)}
        for code, (line, warning) in sorted(first.items()):
            count = self.warned_by_code[code]
            self.warnings.append(f"{count} {'line' if count == 1 else 'lines'}, as line {line}: {warning.reason}")


def read_item(number: int, item: object) -> Sent:
    """Check one parsed object of the format `chat`."""
    try:
        return number, chat.read(item)
    except InvalidTrajectory as refusal:
        return number, refusal


def import_batch(
    session: Session,
    project_id: uuid.UUID,
    batch: Sequence[Sent],
    *,
    default_task: str | None,
    tokens: TokenLimit,
    advise: Advise = lambda trajectory: (),
) -> list[LineResult]:
    """Store a batch in the caller's transaction. One result for each line, in order.

    `default_task` is for lines that name none; `advise` is asked about every accepted one. Known trajectories are found
    before tokens are counted, the slowest part, so sending a file again is quick.
    """
    names = {sent.task or default_task for _, sent in batch if isinstance(sent, Draft)}
    tasks = find_tasks(session, project_id, [name for name in names if name is not None])
    placed: list[tuple[int, Task, Draft] | LineResult] = [
        _place(number, sent, tasks, default_task) for number, sent in batch
    ]
    stored = find_stored(session, [(p[1].id, p[2].content_hash) for p in placed if isinstance(p, tuple)])
    new: dict[Key, NewTrajectory] = {}
    results: list[LineResult | tuple[int, Key]] = []
    for place in placed:
        if isinstance(place, LineResult):
            results.append(place)
            continue
        number, task, draft = place
        key = (task.id, draft.content_hash)
        if key not in stored and key not in new:
            try:
                new[key] = _with_side(task, draft, _count(draft, tokens))
            except InvalidTrajectory as refusal:
                results.append(_refused(number, refusal))
                continue
        results.append((number, key))
    new = _beside_what_begins_alike(session, new)
    inserted = insert_trajectories(session, project_id, list(new.values()))
    # Another import may have been quicker with some of them.
    stored |= find_stored(session, [key for key, item in new.items() if item.id not in inserted])
    accepted = {key: item for key, item in new.items() if item.id in inserted}
    return [_result(entry, accepted, stored, advise) if isinstance(entry, tuple) else entry for entry in results]


def warn_of_shared_prefixes(session: Session, project_id: uuid.UUID, report: ImportReport) -> None:
    """Add what the sender should know of the tasks that got many: that most of one begins alike."""
    grown = [task for task, accepted in report.accepted_by_task.items() if accepted >= MIN_ALIKE]
    for task in find_tasks(session, project_id, grown).values():
        group = find_shared_prefix_group(session, task)
        if group is not None:
            report.warnings.append(str(group))


def _with_side(task: Task, draft: Draft, tokens: int) -> NewTrajectory:
    beginning = beginning_hash(draft.messages, task.shared_turns)
    side = held_out(task.name, beginning, task.holdout_share)
    return NewTrajectory(task, draft, tokens, uuid.uuid4(), beginning, side)


def _beside_what_begins_alike(session: Session, new: dict[Key, NewTrajectory]) -> dict[Key, NewTrajectory]:
    """Put each trajectory that begins like a stored one on the side of that one, whatever `held_out` says."""
    beginnings: dict[uuid.UUID, set[str | None]] = {}
    for item in new.values():
        beginnings.setdefault(item.task.id, set()).add(item.beginning_hash)
    sides = {task_id: stored_sides(session, task_id, found) for task_id, found in beginnings.items()}
    return {
        key: replace(item, held_out=sides[item.task.id].get(item.beginning_hash or "", item.held_out))
        for key, item in new.items()
    }


def _place(
    number: int, sent: Draft | InvalidTrajectory, tasks: dict[str, Task], default_task: str | None
) -> tuple[int, Task, Draft] | LineResult:
    if isinstance(sent, InvalidTrajectory):
        return _refused(number, sent)
    name = sent.task or default_task
    if name is None:
        return _refused(
            number,
            InvalidTrajectory("task_missing", "task: missing; name it here or for all lines with `?task=`"),
        )
    if name not in tasks:
        return _refused(
            number,
            InvalidTrajectory(
                "task_unknown", f"task: this project has no task {show(name)}; create it with POST /v1/tasks"
            ),
        )
    return number, tasks[name], sent


def _count(draft: Draft, tokens: TokenLimit) -> int:
    try:
        count = tokens.count(draft.messages, draft.tools)
    except ValueError as error:
        raise InvalidTrajectory("template_refused", f"messages: {error}") from error
    if count > tokens.max_tokens:
        raise InvalidTrajectory(
            "too_long",
            f"messages: {count} tokens of prompt and answer; the base model reads {tokens.max_tokens}. "
            "Shorten the conversation, or split it into several trajectories.",
        )
    return count


def _result(
    entry: tuple[int, Key], accepted: dict[Key, NewTrajectory], stored: dict[Key, uuid.UUID], advise: Advise
) -> LineResult:
    """The first line with a new content is accepted, later ones in the batch are its duplicates."""
    number, key = entry
    item = accepted.pop(key, None)
    if item is None:
        return LineResult(number, "duplicate", stored.get(key))
    stored[key] = item.id
    return LineResult(number, "accepted", item.id, item.held_out, item.task.name, warnings=tuple(advise(item)))


def _refused(number: int, refusal: InvalidTrajectory) -> LineResult:
    return LineResult(number, "refused", code=refusal.code, reason=str(refusal))
