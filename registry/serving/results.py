"""Results of a route so far: each arm's rewards with intervals, the verdicts, and how its shadow compares."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session

from registry.models import Exposure, Feedback, Route, RouteArm, ShadowAnswer
from registry.serving.confidence_sequence import Difference, Floats, Interval, block_sizes, compare_means, mean_interval


@dataclass(frozen=True)
class ArmResult:
    version: int
    weight: float
    exposures: int
    """Number of its answers."""
    feedback: int
    """Number of reported rewards, counted or not."""
    sessions: int
    """Number of rewards that count: one for each session, and for each answer without a session."""
    mean: float | None
    interval: Interval
    """Interval of the mean reward, at the route's level."""
    difference: Difference | None
    """Difference from the first arm; None for the first itself, and for a shadow."""
    sessions_needed: int
    """Number of further rewarded sessions of this arm until a verdict can be expected; 0 if none is to come."""


@dataclass(frozen=True)
class ShadowResult:
    answers: int
    """Number of compared answers, without the failed ones."""
    failed: int
    same: float | None
    """Share of answers equal to the returned ones."""
    same_interval: Interval
    similarity: float | None
    """Mean share of words in common, in order."""
    seconds: tuple[float, float] | None
    """Mean generation times: of the returned answers and of the shadow's."""
    tokens: tuple[float, float] | None
    """Mean lengths, likewise."""
    last_error: str | None


@dataclass(frozen=True)
class RouteResults:
    arms: list[ArmResult]
    shadow: ShadowResult | None


def results_of(session: Session, route: Route) -> RouteResults:
    rewards = rewards_of(session, route)
    exposures = _counts(session, route, Exposure)
    feedback = _counts(session, route, Feedback)
    differences = {arm.place: compare_arm(route, arm, rewards) for arm in _treatments(route)}
    needed = {0: 0}
    for place, found in differences.items():
        sizes = block_sizes(route.arms[0].weight, route.arms[place].weight)
        needed[0], needed[place] = max(needed[0], found.needed * sizes[0]), found.needed * sizes[1]
    arms = [
        ArmResult(
            arm.version.number,
            arm.weight,
            exposures.get(arm.version_id, 0),
            feedback.get(arm.version_id, 0),
            len(rewards[arm.version_id]),
            float(rewards[arm.version_id].mean()) if len(rewards[arm.version_id]) else None,
            mean_interval(rewards[arm.version_id], route.level),
            differences.get(arm.place),
            needed.get(arm.place, 0),
        )
        for arm in route.arms
    ]
    return RouteResults(arms, _shadow_result(session, route) if route.kind == "shadow" else None)


def rewards_of(session: Session, route: Route) -> dict[uuid.UUID, Floats]:
    """The rewards that count in order of arrival, by version."""
    rewards = func.array_agg(aggregate_order_by(Feedback.reward, Feedback.seq))
    counted = select(Feedback.version_id, rewards).where(Feedback.route_id == route.id, Feedback.counted)
    found = {row[0]: row[1] for row in session.execute(counted.group_by(Feedback.version_id))}
    return {arm.version_id: np.asarray(found.get(arm.version_id, ()), dtype=np.float64) for arm in route.arms}


def compare_arm(route: Route, arm: RouteArm, rewards: Mapping[uuid.UUID, Floats]) -> Difference:
    """Comparison of an arm with the first; the route's level is shared equally among all such comparisons."""
    control = route.arms[0]
    return compare_means(
        rewards[control.version_id],
        rewards[arm.version_id],
        blocks=block_sizes(control.weight, arm.weight),
        level=route.level / len(_treatments(route)),
        smallest_effect=route.smallest_effect,
        margin=route.margin,
    )


def say_difference(found: Difference) -> str:
    """The difference in words, in points of a hundred: `-20.1 points, between -33.0 and -5.2`."""
    bounds = f"between {100 * found.interval.low:+.1f} and {100 * found.interval.high:+.1f}"
    return bounds if found.estimate is None else f"{100 * found.estimate:+.1f} points, {bounds}"


def _treatments(route: Route) -> list[RouteArm]:
    return [] if route.kind == "shadow" else route.arms[1:]


def _counts(session: Session, route: Route, kind: type[Exposure] | type[Feedback]) -> dict[uuid.UUID, int]:
    query = select(kind.version_id, func.count()).where(kind.route_id == route.id).group_by(kind.version_id)
    return {version_id: count for version_id, count in session.execute(query) if version_id is not None}


def _shadow_result(session: Session, route: Route) -> ShadowResult:
    query = select(ShadowAnswer).where(ShadowAnswer.route_id == route.id)
    rows = list(session.scalars(query.order_by(ShadowAnswer.at, ShadowAnswer.completion_id)))
    answered = [row for row in rows if row.error is None]
    failures = [row.error for row in rows if row.error is not None]
    same = np.array([float(row.same or 0) for row in answered])

    def means(first: str, second: str) -> tuple[float, float] | None:
        if not answered:
            return None
        return tuple(float(np.mean([getattr(row, name) for row in answered])) for name in (first, second))  # type: ignore[return-value]  # two names, two means

    return ShadowResult(
        answers=len(answered),
        failed=len(failures),
        same=float(same.mean()) if answered else None,
        same_interval=mean_interval(same, route.level),
        similarity=float(np.mean([row.similarity or 0.0 for row in answered])) if answered else None,
        seconds=means("seconds", "shadow_seconds"),
        tokens=means("tokens", "shadow_tokens"),
        last_error=failures[-1] if failures else None,
    )
