"""What was found of a loop: the name of a state, why, what to do, and whether trainings are held."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from registry.loops.disks import Disk
from registry.wording import counted


@dataclass(frozen=True)
class Finding:
    state: str
    reason: str = ""
    advice: str = ""
    held: bool = False


RUNNING = Finding("running")


@dataclass(frozen=True)
class Surroundings:
    """What a loop is looked at with."""

    now: datetime
    full_disks: Sequence[Disk] = ()


def say_span(span: timedelta) -> str:
    """`40 minutes`, `7 hours`, `5 days`."""
    hours = span.total_seconds() / 3600
    if hours < 2:
        return counted(round(60 * hours), "minute")
    return f"{hours:.0f} hours" if hours < 72 else f"{hours / 24:.0f} days"
