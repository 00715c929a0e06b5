"""Routes: how an adapter's traffic is shared among versions, and what that has shown."""

from datetime import datetime
from typing import ClassVar

from memgen_client.json_values import JsonObject
from memgen_client.models.model import Model
from memgen_client.pictures.arms import Measured, intervals, shares
from memgen_client.pictures.tables import table


class Arm(Model):
    version: int
    weight: float

    def __str__(self) -> str:
        return f"{self.version}: {100 * self.weight:g}%"


class Route(Model):
    shown: ClassVar[tuple[str, ...]] = ("number", "kind", "state", "arms_text", "created_at", "ended_at")

    adapter: str
    number: int
    kind: str
    state: str
    """`live`, `ended` by a person or a move of the champion, `stopped` or `promoted` by the canary's own test."""
    arms: list[Arm]
    """The others are compared with the first; a shadow has weight 0."""
    shadow_share: float | None
    level: float
    smallest_effect: float
    reward_source: str | None
    promotion: str
    """What a canary's rewards must show for it to become the champion by itself: never, better or non_inferior."""
    margin: float | None
    """Margin of non_inferior; None for other promotions."""
    created_at: datetime
    ended_at: datetime | None

    @property
    def arms_text(self) -> str:
        """`6: 95%, 7: 5%`."""
        return ", ".join(map(str, self.arms))

    def _repr_html_(self) -> str:
        picture = shares([(f"version {arm.version}", arm.weight) for arm in self.arms])
        row = [self.number, self.kind, self.state, self.created_at, self.ended_at]
        return picture + table([f"route of {self.adapter}", "kind", "state", "created", "ended"], [row])


class RouteChange(Model):
    kind: str
    actor: str
    reason: str
    evidence: JsonObject
    at: datetime


class RouteDetail(Route):
    history: list[RouteChange]
    """Oldest first: who, when, why, on what evidence."""


class Interval(Model):
    low: float
    high: float


class Difference(Model):
    verdict: str
    """`better`, `worse` or `not yet`."""
    estimate: float | None
    interval: Interval
    """Valid at all times at once, however often one looks."""
    non_inferior: bool | None
    """Whether the interval lies above minus the route's margin; None where the route has none."""


class ArmResult(Model):
    version: int
    weight: float
    exposures: int
    feedback: int
    sessions: int
    """Number of rewarded sessions; each counts once, by its first feedback."""
    mean: float | None
    interval: Interval
    difference: Difference | None
    """Difference from the first arm; None for that arm itself."""
    sessions_needed: int
    """Further rewarded sessions until a verdict, or non-inferiority, can be expected."""


class ReturnedAndShadow(Model):
    returned: float
    shadow: float


class ShadowResult(Model):
    answers: int
    failed: int
    same: float | None
    same_interval: Interval
    similarity: float | None
    seconds: ReturnedAndShadow | None
    tokens: ReturnedAndShadow | None
    last_error: str | None


class RouteResults(Model):
    """May be looked at at any time: the intervals and verdicts hold for all looks together."""

    route: Route
    arms: list[ArmResult]
    shadow: ShadowResult | None

    def _repr_html_(self) -> str:
        measured = [Measured(f"version {a.version}", a.mean, a.interval.low, a.interval.high) for a in self.arms]
        columns = ("version", "weight", "answers", "rewarded", "mean", "verdict", "sessions needed")
        rows = [
            [a.version, a.weight, a.exposures, a.sessions, a.mean, _verdict(a.difference), a.sessions_needed]
            for a in self.arms
        ]
        beside = "" if self.shadow is None else self.shadow._repr_html_()
        return intervals(measured) + table(columns, rows) + beside


def _verdict(found: Difference | None) -> str:
    if found is None:
        return "compared with"
    return f"{found.verdict}, non-inferior" if found.non_inferior else found.verdict
