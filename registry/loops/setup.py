"""Setting a loop up: schedule, gate with canary, retention, recording, in the caller's transaction.

Doing it again changes what is given anew and leaves the rest as it is; each part says which it was.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.adapters import AdapterSettings, change_adapter
from registry.errors import Conflict, Invalid, InvalidSchedule
from registry.job_requests import GOOD_REWARD
from registry.loops.conditions import Surroundings, find_state
from registry.loops.recording import Outcome, RecordingWish, set_up_recording
from registry.loops.states import enter, record
from registry.models import Adapter, Loop, RetentionPolicy, Schedule, Task
from registry.names import is_valid_name
from registry.retention.policy import set_policy
from registry.schedules.cron import Cron
from registry.schedules.schedules import (
    Change,
    Idle,
    NewTrajectories,
    TrainingRequest,
    When,
    change_schedule,
    create_schedule,
    describe,
    when_of,
)

CANARY_SHARE = 0.2
"""Share of the sessions of a loop's canary, where neither the caller nor an earlier policy names one: with the 5% of
`AdapterSettings` most agents would wait months for a result."""
QUIET_HOURS = 24.0
MOST_FAILURES = 3
MOST_QUIET_HOURS = 24 * 366.0
FEWEST = 1


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
    """Fields of AdapterSettings: `canary_share`, `canary_promotion`, `canary_margin`, ..."""
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


def set_up_loop(
    session: Session,
    adapter: Adapter,
    task: Task,
    plan: LoopPlan,
    defaults: LoopDefaults,
    around: Surroundings,
    *,
    actor: str,
) -> tuple[Loop, list[SetUpPart]]:
    """Make a loop, or change it to what is given anew.

    Args:
        adapter: its row is locked by the caller, so that an adapter never gets two loops.

    Raises:
        InvalidSchedule, Invalid: a value out of range.
        Conflict: the adapter's loop learns another task.
    """
    _check(plan)
    loop = session.scalars(
        select(Loop).where(Loop.adapter_id == adapter.id, Loop.deleted_at.is_(None)).with_for_update()
    ).one_or_none()
    if loop is not None and loop.task_id != task.id:
        raise Conflict(
            f"the loop of {adapter.name} learns {loop.task.name}, not {task.name}; an adapter has one loop: delete "
            "that one, or make another adapter"
        )
    schedule, scheduled = _set_up_schedule(session, adapter, task, loop, plan, defaults, actor)
    parts = [
        scheduled,
        _set_up_gate(session, adapter, plan, actor),
        _set_up_retention(session, adapter, plan, defaults, actor),
    ]
    is_new = loop is None
    if loop is None:
        loop = Loop(
            project_id=adapter.project_id,
            adapter=adapter,
            task=task,
            schedule=schedule,
            quiet_hours=plan.quiet_hours or QUIET_HOURS,
            most_failures=plan.most_failures or MOST_FAILURES,
            setup={},
            since=around.now,
            counted_from=around.now,
        )
        session.add(loop)
        session.flush()
        parts.append(SetUpPart("loop", "made", _of_limits(loop)))
    else:
        parts.append(_change_limits(loop, schedule, plan))
    outcome, recorded = set_up_recording(session, loop, plan.recording, actor=actor)
    parts.append(SetUpPart("recording", outcome, recorded))
    changed = {part.part: part.text for part in parts if part.outcome != "kept"}
    if changed:
        record(session, loop, "created" if is_new else "changed", actor, evidence=changed)
    enter(session, loop, find_state(session, loop, around), around, actor=actor)
    return loop, [*parts, *_beside(session, adapter, schedule)]


def _check(plan: LoopPlan) -> None:
    if plan.idle_hours is not None and (plan.cron is not None or plan.time_zone is not None):
        raise InvalidSchedule("idle_hours beside every or time_zone; expected a clock or quiet, not both")
    if plan.quiet_hours is not None and not 0 < plan.quiet_hours <= MOST_QUIET_HOURS:
        raise Invalid(f"quiet_hours is {plan.quiet_hours}; expected more than 0 and at most {MOST_QUIET_HOURS:g}")
    if plan.most_failures is not None and not 1 <= plan.most_failures <= 20:
        raise Invalid(f"most_failures is {plan.most_failures}; expected 1 to 20")


def _set_up_schedule(
    session: Session,
    adapter: Adapter,
    task: Task,
    loop: Loop | None,
    plan: LoopPlan,
    defaults: LoopDefaults,
    actor: str,
) -> tuple[Schedule, SetUpPart]:
    present = loop.schedule if loop is not None and loop.schedule.deleted_at is None else None
    if present is not None:
        changes = Change(
            when=_changed_when(present, plan, defaults),
            training=None if plan.training is None else dict(plan.training),
            min_reward=plan.min_reward,
        )
        before = describe(present)
        schedule = change_schedule(session, adapter.project_id, present.name, changes, actor=actor)
        after = describe(schedule)
        return schedule, SetUpPart("schedule", "kept" if before == after else "changed", _of_schedule(schedule))
    request = TrainingRequest(
        dict(defaults.training if plan.training is None else plan.training),
        GOOD_REWARD if plan.min_reward is None else plan.min_reward,
    )
    schedule = create_schedule(
        session,
        adapter.project_id,
        _free_name(session, adapter),
        adapter=adapter,
        task=task,
        when=_when(plan, defaults),
        request=request,
        actor=actor,
    )
    return schedule, SetUpPart("schedule", "made", _of_schedule(schedule))


def _when(plan: LoopPlan, defaults: LoopDefaults) -> When:
    clock = plan.cron is not None or plan.time_zone is not None
    after = FEWEST if plan.after is None else plan.after
    if plan.idle_hours is not None and not clock:
        return Idle(plan.idle_hours, after)
    if plan.after is not None and not clock:
        return NewTrajectories(after)
    return Cron(plan.cron or defaults.cron, plan.time_zone or "UTC", after)


def _changed_when(schedule: Schedule, plan: LoopPlan, defaults: LoopDefaults) -> When | None:
    """The schedule's condition with what is given anew; None where nothing is."""
    before = when_of(schedule)
    count = (schedule.new_trajectories or FEWEST) if plan.after is None else plan.after
    after: When
    if plan.idle_hours is not None:
        after = Idle(plan.idle_hours, count)
    elif plan.cron is not None or plan.time_zone is not None or isinstance(before, Cron):
        clock = before if isinstance(before, Cron) else Cron(defaults.cron)
        after = Cron(plan.cron or clock.expression, plan.time_zone or clock.time_zone, count)
    elif isinstance(before, Idle):
        after = Idle(before.hours, count)
    else:
        after = NewTrajectories(count)
    return None if after == before else after


def _free_name(session: Session, adapter: Adapter) -> str:
    """`loop.support-bot`, or a name that nobody has where that is too long or taken."""
    wanted = f"loop.{adapter.name}"
    taken = select(Schedule.id).where(
        Schedule.project_id == adapter.project_id, Schedule.name == wanted, Schedule.deleted_at.is_(None)
    )
    if is_valid_name(wanted) and session.scalar(taken) is None:
        return wanted
    return f"loop.{uuid.uuid4().hex[:12]}"


def _set_up_gate(session: Session, adapter: Adapter, plan: LoopPlan, actor: str) -> SetUpPart:
    # A champion at its ceiling must not reject every night's version: that one may not drop, and the canary decides.
    wanted: dict[str, Any] = {"gate_policy": "canary", "gate_settled": True, "gate_gain": False, **plan.settings}
    if adapter.gate_policy != "canary":
        wanted.setdefault("canary_share", max(adapter.canary_share, CANARY_SHARE))
    change = change_adapter(session, adapter, wanted, actor=actor, reason="its loop was set up")
    text = _of_gate(AdapterSettings.of(adapter))
    return SetUpPart("gate", "kept" if change is None else "changed", text)


def _set_up_retention(
    session: Session, adapter: Adapter, plan: LoopPlan, defaults: LoopDefaults, actor: str
) -> SetUpPart:
    policy = session.get(RetentionPolicy, adapter.id)
    if policy is None or plan.keep_last not in (None, policy.keep_last):
        outcome: Outcome = "made" if policy is None else "changed"
        wanted = defaults.keep_last if plan.keep_last is None else plan.keep_last
        kept = set_policy(session, adapter, wanted, actor=actor).keep_last
    else:
        outcome, kept = "kept", policy.keep_last
    return SetUpPart("retention", outcome, f"the newest {kept} versions keep their bytes, and each that is needed")


def _change_limits(loop: Loop, schedule: Schedule, plan: LoopPlan) -> SetUpPart:
    before = loop.quiet_hours, loop.most_failures, loop.schedule_id
    loop.quiet_hours = plan.quiet_hours or loop.quiet_hours
    loop.most_failures = plan.most_failures or loop.most_failures
    loop.schedule = schedule
    kept = before == (loop.quiet_hours, loop.most_failures, schedule.id)
    return SetUpPart("loop", "kept" if kept else "changed", _of_limits(loop))


def _beside(session: Session, adapter: Adapter, schedule: Schedule) -> list[SetUpPart]:
    """Further schedules of the adapter, which the loop does not hold."""
    others = select(Schedule).where(
        Schedule.adapter_id == adapter.id, Schedule.deleted_at.is_(None), Schedule.id != schedule.id
    )
    return [
        SetUpPart("other schedule", "kept", f"{other.name} trains {adapter.name} too, and no loop holds it")
        for other in session.scalars(others.order_by(Schedule.name))
    ]


def _of_schedule(schedule: Schedule) -> str:
    when = when_of(schedule)
    if isinstance(when, NewTrajectories):
        return f"{schedule.name}: once {when.count} new wait"
    enough = f", if {when.at_least} new wait" if when.at_least > 1 else ""
    if isinstance(when, Idle):
        return f"{schedule.name}: after {when.hours:g} quiet hours{enough}"
    return f"{schedule.name}: at {when.expression} ({when.time_zone}){enough}"


def _of_gate(settings: AdapterSettings) -> str:
    share = f"{100 * settings.canary_share:g}% of the sessions try a version that passed"
    if settings.canary_promotion == "never":
        return f"{share}; a person moves the champion"
    rule = "shown to be better"
    if settings.canary_promotion == "non_inferior":
        rule += f", or not worse by {100 * settings.canary_margin:g} points"
    return f"{share}; it becomes the champion once it is {rule}"


def _of_limits(loop: Loop) -> str:
    return (
        f"held after {loop.most_failures} failures in a row; {loop.quiet_hours:g} hours without traffic or rewards are "
        "a state of their own"
    )
