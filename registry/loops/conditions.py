"""What stops a loop: for each state, when it holds, whether trainings are held, and what to do about it.

    paused                  somebody paused it, or its schedule, or deleted that                            held
    disk                    a disk of the service is almost full                                            held
    gate_rejected           so many versions in a row were rejected, stopped as worse, or rolled back       held
    training_failed         its newest training failed; held after so many in a row
    champion_lost           no training can go on from the champion: it was withdrawn, or its bytes removed held
    canary_stopped          the newest version that was tried was stopped as worse
    no_worker               a training waits in the queue, and no worker works on anything
    canary_without_traffic  a canary runs and gets no answers, or no rewards
    canary_undecided        a canary gets rewards, and they have said nothing for long
    no_traffic              nobody asks the adapter, and nothing of the task arrives
    no_rewards              runs are recorded, and nobody rewards them
    nothing_new             no training starts, because never is enough new

The first that holds is the loop's state. Where trainings are held, a person resumes (`registry.loops.loops`), which
counts anew; the others end by themselves as soon as they do not hold any more. Those of silence are in
`registry.loops.silence`.
"""

from collections.abc import Iterator, Sequence

from sqlalchemy.orm import Session

from registry.loops.attempts import (
    DECIDED,
    JudgedVersion,
    attempts,
    failed_in_a_row,
    failed_trainings_in_a_row,
)
from registry.loops.findings import RUNNING, Finding, Surroundings
from registry.loops.silence import find_silence
from registry.models import Loop
from registry.versions.champion import champion
from registry.versions.state import why_not_parent
from registry.wording import counted


def find_state(session: Session, loop: Loop, around: Surroundings) -> Finding:
    """The first condition that holds; `RUNNING` if none does."""
    return next(_holding(session, loop, around), RUNNING)


def find_hold(session: Session, loop: Loop, around: Surroundings) -> Finding | None:
    """The condition because of which no training may start; None if one may."""
    return next((found for found in _blocking(session, loop, around) if found.held), None)


def _holding(session: Session, loop: Loop, around: Surroundings) -> Iterator[Finding]:
    yield from _blocking(session, loop, around)
    yield from find_silence(session, loop, around.now)


def _blocking(session: Session, loop: Loop, around: Surroundings) -> Iterator[Finding]:
    """The conditions that hold trainings, or warn before they do."""
    yield from _paused(loop)
    for disk in around.full_disks:
        yield Finding(
            "disk",
            f"{disk.place} ({disk.path}) has {disk.free_bytes / 1e9:.1f} GB free of {disk.total_bytes / 1e9:.0f} GB",
            f"Free space: `memgen gc --apply` removes what no row names, `memgen versions prune {loop.adapter.name} "
            "--apply` the bytes of old versions. It goes on by itself then; MEMGEN_MIN_FREE_BYTES is the limit",
            held=True,
        )
    failures = failed_in_a_row(found := attempts(session, loop, since=loop.counted_from))
    if len(failures) >= loop.most_failures:
        yield _rejected(loop, failures)
    failed = failed_trainings_in_a_row(session, loop, since=loop.counted_from)
    if len(failed) >= loop.most_failures:
        yield _training_failed(loop, failed[0].error, len(failed), held=True, job=str(failed[0].id))
    lost = why_not_parent(session, champion(session, loop.adapter))
    if lost is not None:
        yield _champion_lost(loop, lost)
    decided = next((attempt for attempt in found if attempt.outcome in DECIDED), None)
    if decided is not None and decided.outcome == "stopped":
        yield _stopped(loop, decided, len(failures))
    if failed:
        yield _training_failed(loop, failed[0].error, len(failed), held=False, job=str(failed[0].id))


def _paused(loop: Loop) -> Iterator[Finding]:
    name, schedule = loop.adapter.name, loop.schedule
    if loop.paused_at is not None:
        yield Finding("paused", "paused by hand", f"`memgen loop resume {name}` lets it go on", held=True)
    elif schedule.deleted_at is not None:
        advice = f"`memgen loop create {name} --task {loop.task.name}` makes it anew"
        yield Finding("paused", f"its schedule {schedule.name} was deleted", advice, held=True)
    elif schedule.paused_at is not None:
        advice = f"`memgen loop resume {name}` lets both go on"
        yield Finding("paused", f"its schedule {schedule.name} is paused", advice, held=True)


def _rejected(loop: Loop, failures: Sequence[JudgedVersion]) -> Finding:
    newest = failures[0]
    name = f"{loop.adapter.name}@{newest.version}"
    return Finding(
        "gate_rejected",
        ("1 version was" if len(failures) == 1 else f"{len(failures)} versions in a row were")
        + f" rejected, stopped as worse or rolled back; the last is {name}: "
        + newest.reason.partition("; ")[0],
        f"Look at `memgen gate show {loop.adapter.name} {newest.version}` and at the rewards of these days "
        f"(`memgen trace`, `memgen delete-data` takes wrong ones out), then `memgen loop resume {loop.adapter.name}`",
        held=True,
    )


def _training_failed(loop: Loop, error: str | None, count: int, *, held: bool, job: str) -> Finding:
    advice = f"`memgen jobs show {job}` has its events. "
    if held:
        advice += f"Mend the cause, then `memgen loop resume {loop.adapter.name}`"
    else:
        advice += f"It is tried again; after {loop.most_failures} in a row the loop holds"
    line = (error or "no reason was recorded").partition("\n")[0]
    times = "its last training failed" if count == 1 else f"its last {count} trainings failed"
    return Finding("training_failed", f"{times}: {line}", advice, held)


def _champion_lost(loop: Loop, reason: str) -> Finding:
    name, task = loop.adapter.name, loop.task.name
    return Finding(
        "champion_lost",
        f"no training can go on from the champion: {reason.partition('. ')[0]}",
        f"`memgen versions states {name}` shows which versions may serve; `memgen promote {name} N` makes another the "
        f"champion, `memgen train {name} --task {task} --parent 0` begins anew. It goes on by itself then",
        held=True,
    )


def _stopped(loop: Loop, attempt: JudgedVersion, failures: int) -> Finding:
    name = loop.adapter.name
    return Finding(
        "canary_stopped",
        f"{name}@{attempt.version} passed its gate, but users' rewards were worse: {attempt.reason}",
        f"Look at `memgen route results {name}`, and at the rewards that it learned from. The champion answers all; "
        f"the loop goes on, and holds after {counted(loop.most_failures, 'failure')} in a row ({failures} so far)",
    )
