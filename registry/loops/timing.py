"""The schedule of a loop: made, changed where something is given anew, and said in words."""

import uuid

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.job_requests import GOOD_REWARD
from registry.loops.plan import LoopDefaults, LoopPlan, SetUpPart
from registry.models import Adapter, Loop, Schedule, Task
from registry.names import is_valid_name
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
    training_request,
    when_of,
)
from registry.wording import counted

FEWEST = 1


def set_up_schedule(
    session: Session,
    adapter: Adapter,
    task: Task,
    loop: Loop | None,
    plan: LoopPlan,
    defaults: LoopDefaults,
    actor: str,
) -> tuple[Schedule, SetUpPart]:
    former = None if loop is None else loop.schedule
    training = None if plan.training is None else dict(plan.training)
    if former is not None and former.deleted_at is None:
        changes = Change(_changed_when(former, plan, defaults), training, plan.min_reward)
        before = describe(former)
        schedule = change_schedule(session, adapter.project_id, former.name, changes, actor=actor)
        after = describe(schedule)
        return schedule, SetUpPart("schedule", "kept" if before == after else "changed", _of_schedule(schedule))
    if former is not None:  # somebody deleted it: what it was stays as well
        when, request = _changed_when(former, plan, defaults) or when_of(former), training_request(former)
    else:
        when, request = _when(plan, defaults), TrainingRequest(dict(defaults.training), GOOD_REWARD)
    given = {"training": training, "min_reward": plan.min_reward}
    request = request.changed(**{name: value for name, value in given.items() if value is not None})
    schedule = create_schedule(
        session,
        adapter.project_id,
        _free_name(session, adapter),
        adapter=adapter,
        task=task,
        when=when,
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


def _of_schedule(schedule: Schedule) -> str:
    when = when_of(schedule)
    if isinstance(when, NewTrajectories):
        return f"{schedule.name}: once {when.count} new wait"
    enough = f", if {when.at_least} new wait" if when.at_least > 1 else ""
    if isinstance(when, Idle):
        return f"{schedule.name}: after {counted(when.hours, 'quiet hour')}{enough}"
    return f"{schedule.name}: at {when.expression} ({when.time_zone}){enough}"
