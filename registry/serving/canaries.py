"""Automatic end of a canary: it is stopped if it is worse, or promoted if its rewards allow it.

The route's `promotion` says when it is promoted: if it is `better` than the champion, or `non_inferior`, which means
shown not to be worse by the route's margin. Both are read off the interval of `registry.serving.confidence_sequence`,
which holds at all looks together: a canary that is worse by the margin or more is promoted with probability level / 2
at most, however often the results are read. The first result decides.

Versions that pass under policy `canary` while another canary runs wait. If that canary is stopped, the newest of them
is tried next. If it is promoted, none of them is, because their gates compared them with the former champion.
"""

from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from registry import jobs
from registry.models import Adapter, AliasMove, Feedback, Gate, Job, Route, RouteArm, Version
from registry.names import CHAMPION
from registry.serving.aliases import promote, why_not_promotable
from registry.serving.confidence_sequence import Floats, block_differences, block_sizes, is_non_inferior, verdict_of
from registry.serving.results import compare_arm, rewards_of, say_difference
from registry.serving.routes import Terms, close_route, start_canary
from registry.versions.state import why_not_servable

MONITOR = "canary monitor"
"""The actor of changes that follow from a canary's rewards."""

Shown = Literal["worse", "better", "non_inferior"]
Outcome = Literal["stopped", "promoted", "ended"]
"""New state of a route. `ended` means that it should have been promoted, but the promotion was refused."""


def start_by_policy(session: Session, adapter: Adapter, version: Version, *, actor: str, reason: str) -> Route:
    """Try a version as the adapter's settings say. Raises as `start_canary`."""
    margin = adapter.canary_margin if adapter.canary_promotion == "non_inferior" else None
    terms = Terms(promotion=adapter.canary_promotion, margin=margin)
    return start_canary(session, adapter, version.number, adapter.canary_share, terms, actor=actor, reason=reason)


def judge_canary(session: Session, route: Route, last: Feedback) -> Outcome | None:
    """End a live canary if its rewards say so, the newest being `last`; None if it goes on.

    The caller holds the locks of the route and, before it, of the adapter (`registry.serving.routes.lock_route`).
    """
    if route.kind != "canary" or route.state != "live":
        return None
    stable, canary = route.arms
    rewards = rewards_of(session, route)
    control, treatment = rewards[stable.version_id], rewards[canary.version_id]
    shown = _shown(route, block_differences(control, treatment, block_sizes(stable.weight, canary.weight)))
    if shown is None:
        return None
    found = compare_arm(route, canary, rewards)
    evidence = {
        "verdict": found.verdict,
        "non_inferior": found.non_inferior,
        "margin": route.margin,
        "difference": found.estimate,
        "interval": [found.interval.low, found.interval.high],
        "level": route.level,
        "blocks": found.blocks,
        "means": {
            str(stable.version.number): float(control.mean()),
            str(canary.version.number): float(treatment.mean()),
        },
        "sessions": {str(stable.version.number): len(control), str(canary.version.number): len(treatment)},
        "last_feedback": last.seq,
    }
    reason = f"{_in_words(route, shown)}: {say_difference(found)}"
    if shown == "worse":
        close_route(session, route, "stopped", actor=MONITOR, reason=reason, evidence=evidence)
        _try_next(session, route)
        return "stopped"
    return _promote(session, route, reason, evidence)


def _shown(route: Route, differences: Floats) -> Shown | None:
    """The result that ends the route, from the differences of its blocks, shape (m,); None if there is none yet."""
    verdict = verdict_of(differences, route.level)
    if verdict == "worse":
        return "worse"
    if route.promotion == "never":
        return None
    if verdict == "better":
        return "better"
    if route.margin is not None and is_non_inferior(differences, route.margin, route.level):
        return "non_inferior"
    return None


def _in_words(route: Route, shown: Shown) -> str:
    stable, canary = (arm.version.number for arm in route.arms)
    if shown == "non_inferior":
        return f"version {canary} is not worse than {stable} by {100 * (route.margin or 0):g} points"
    return f"version {canary} is {shown} than {stable}"


def _promote(session: Session, route: Route, reason: str, evidence: dict[str, Any]) -> Outcome:
    """Move `champion` to the canary, only from the version that it was compared with."""
    adapter = route.adapter
    stable, canary = (arm.version for arm in route.arms)
    waited = _waiting(session, route)
    refusal = why_not_promotable(session, adapter, CHAMPION, canary, expected=stable.number)
    if refusal is not None:
        why = f"{reason}; it was not promoted: {refusal}"
        close_route(session, route, "ended", actor=MONITOR, reason=why, evidence=evidence)
        return "ended"
    # Closed first: moving the champion ends a live route, for another reason.
    close_route(session, route, "promoted", actor=MONITOR, reason=reason, evidence=evidence)
    promote(
        session,
        adapter,
        CHAMPION,
        canary,
        actor=MONITOR,
        reason=reason,
        expected=stable.number,
        evidence={"route": route.number, **evidence},
    )
    for version in waited:
        text = (
            f"{adapter.name}@{version.number} is not tried: its gate compared it with version {stable.number}, and "
            f"version {canary.number} is the champion now. Start a canary by hand, or train on from the champion"
        )
        jobs.add_event(session, version.job_id, "warning", text, {"route": route.number})
    return "promoted"


def _try_next(session: Session, route: Route) -> None:
    """Start the canary of the newest version that waited for this one, if the policy is still to try versions."""
    adapter = route.adapter
    if adapter.gate_policy != "canary" or why_not_servable(session, route.arms[0].version) is not None:
        return
    for version in _waiting(session, route):
        if why_not_servable(session, version) is not None:
            continue
        reason = f"passed its gate, and waited until route {route.number} was stopped"
        following = start_by_policy(session, adapter, version, actor=MONITOR, reason=reason)
        share = f"{100 * adapter.canary_share:g}% of the sessions"
        text = f"route {following.number} gives it {share}, because route {route.number} was stopped"
        jobs.add_event(session, version.job_id, "info", text, {"route": following.number})
        return


def _waiting(session: Session, route: Route) -> Sequence[Version]:
    """Versions that passed against this route's champion under policy `canary` and were never tried, newest first."""
    stable = route.arms[0].version_id
    query = (
        select(Version)
        .join(Gate, Gate.version_id == Version.id)
        .join(Job, Job.id == Version.job_id)
        .where(Version.adapter_id == route.adapter_id, Gate.passed, Gate.policy == "canary")
        .where(Gate.champion_id == stable, jobs.may_promote())
        .where(~exists().where(RouteArm.version_id == Version.id))
        .where(~exists().where(AliasMove.to_version_id == Version.id))
    )
    return session.scalars(query.order_by(Version.number.desc())).all()
