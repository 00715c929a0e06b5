"""What a loop is to be, as somebody asks for it, and what became of each of its parts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from registry.loops.recording import Outcome, RecordingWish


@dataclass(frozen=True)
class SetUpPart:
    """One part of a loop, and whether it was made, changed or left as it was."""

    part: str
    outcome: Outcome
    text: str
    """For people."""


@dataclass(frozen=True)
class LoopPlan:
    """What a loop is to be. None leaves what is there, or takes the default for what is not."""

    cron: str | None = None
    time_zone: str | None = None
    idle_hours: float | None = None
    """Hours without trajectories and requests, in place of a clock."""
    after: int | None = None
    """New trajectories that must wait."""
    training: Mapping[str, Any] | None = None
    """Fields of the training's config; opaque here."""
    min_reward: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of AdapterSettings: `gate_margin`, `canary_share`, `canary_promotion`, `canary_margin`, ..."""
    judge: str | None = None
    """Name of the judge that rewards what nobody else rewards."""
    keep_last: int | None = None
    quiet_hours: float | None = None
    most_failures: int | None = None
    recording: RecordingWish = field(default_factory=RecordingWish)


@dataclass(frozen=True)
class LoopDefaults:
    """What the caller takes from elsewhere."""

    cron: str
    keep_last: int
    training: Mapping[str, Any]
