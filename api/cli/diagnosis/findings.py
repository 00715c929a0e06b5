"""What a check of `memgen doctor` looks at, and what it finds. Knows no check."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from registry.settings import Settings

CheckState = Literal["ok", "warn", "fail", "skip"]


@dataclass(frozen=True)
class Diagnosis:
    """A line of the report. `skip` is for what can't be looked at from here, and is no fault."""

    check: str
    state: CheckState
    found: str
    advice: str = ""
    """What mends it; empty where nothing has to be."""


@dataclass(frozen=True)
class Installation:
    """What is examined: the settings as every command reads them, and as the user set them."""

    settings: Settings
    """With the URLs that `memgen up` wrote."""
    chosen: Settings
    """Without them: a server that is named here is the user's own."""

    def mend_server(self, setting: str, advice: str) -> str:
        """How a server comes back: one of `memgen up`'s by that, one of the user's own by `advice`."""
        is_own = getattr(self.chosen, setting) is not None
        return advice if is_own else "`memgen up` starts it; `memgen status` says more"


@dataclass(frozen=True)
class Check:
    name: str
    look: Callable[[Installation], Iterable[Diagnosis]]
    """What it finds, line by line: lines of before it hangs or breaks are kept."""


def ok(check: str, found: str) -> Diagnosis:
    return Diagnosis(check, "ok", found)


def warn(check: str, found: str, advice: str) -> Diagnosis:
    return Diagnosis(check, "warn", found, advice)


def fail(check: str, found: str, advice: str) -> Diagnosis:
    return Diagnosis(check, "fail", found, advice)


def skip(check: str, found: str) -> Diagnosis:
    return Diagnosis(check, "skip", found)
