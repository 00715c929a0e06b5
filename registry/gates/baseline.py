"""The baseline of a gate: the version that a new one is compared with, and the tasks that they are compared on.

The baseline is the champion. A champion that may not serve any more is none: users get no answer from it that they
could lose, and the version that is to replace it would have to beat it. The bare base is the baseline then.
"""

import uuid
from collections.abc import Container, Iterable
from dataclasses import dataclass

from sqlalchemy.orm import Session

from registry.models import Adapter, Task, Version, VersionImport
from registry.versions.ancestry import learned_tasks
from registry.versions.champion import champion
from registry.versions.state import why_not_servable


@dataclass(frozen=True)
class Baseline:
    version: Version | None
    """The champion; None for the bare base."""
    unservable: Version | None = None
    """The unservable champion: the one that may not serve any more; None if there is none."""
    reason: str = ""
    """Why the champion may not serve; empty if it may."""

    @property
    def version_id(self) -> uuid.UUID | None:
        return self.version.id if self.version else None


def baseline_of(session: Session, adapter: Adapter) -> Baseline:
    best = champion(session, adapter)
    if best is None:
        return Baseline(None)
    reason = why_not_servable(session, best)
    return Baseline(best) if reason is None else Baseline(None, best, reason)


def tasks_to_judge(session: Session, version: Version, baseline: Version | None) -> list[Task]:
    """The version's tasks, then those that only the baseline learned, which a version of another branch would lose."""
    return _each_once([*learned_tasks(session, version), *learned_tasks(session, baseline)])


def tasks_at_stake(session: Session, adapter: Adapter, parent: Version | None, task: Task) -> list[Task]:
    """Tasks that a version which goes on from `parent` and learns `task` will be judged on, if the champion stays."""
    baseline = baseline_of(session, adapter).version
    return _each_once([task, *learned_tasks(session, parent), *learned_tasks(session, baseline)])


def not_judged(session: Session, version: Version, baseline: Baseline, suites: Container[uuid.UUID]) -> list[str]:
    """Sentences for people on what the gate did not compare, and why.

    Args:
        suites: ids of the tasks that have a suite.
    """
    remarks = []
    if baseline.unservable is not None:
        name = f"{baseline.unservable.adapter.name}@{baseline.unservable.number}"
        remarks.append(f"compared with the bare base, because the champion may not serve: {baseline.reason}")
        own = {task.id for task in learned_tasks(session, version)}
        remarks += [
            f"{task.name}: not compared; only {name}, the unservable champion, has learned it"
            for task in learned_tasks(session, baseline.unservable)
            if task.id not in own
        ]
    if is_imported(session, version):
        remarks += [
            f"{task.name}: not compared; this installation has no held-out items of it"
            for task in tasks_to_judge(session, version, baseline.version)
            if task.id not in suites
        ]
    return remarks


def is_imported(session: Session, version: Version) -> bool:
    return session.get(VersionImport, version.id) is not None


def _each_once(tasks: Iterable[Task]) -> list[Task]:
    return list({task.id: task for task in tasks}.values())
