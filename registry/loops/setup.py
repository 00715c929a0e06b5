"""Setting a loop up: schedule, gate with canary, retention, recording, in the caller's transaction.

Doing it again changes what is given anew and leaves the rest as it is; each part says which it was.
"""

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.adapters import AdapterSettings, change_adapter
from registry.errors import Conflict, Invalid, InvalidSchedule
from registry.loops.conditions import find_state
from registry.loops.findings import Surroundings
from registry.loops.judging import set_up_judge
from registry.loops.plan import LoopDefaults, LoopPlan, SetUpPart
from registry.loops.recording import Outcome, set_up_recording
from registry.loops.states import enter, record
from registry.loops.timing import set_up_schedule
from registry.models import Adapter, Loop, RetentionPolicy, Schedule, Task
from registry.retention.policy import set_policy
from registry.wording import counted

CANARY_SHARE = 0.2
"""Share of the sessions of a loop's canary, where neither the caller nor an earlier policy names one: with the 5% of
`AdapterSettings` most agents would wait months for a result."""
QUIET_HOURS = 24.0
MOST_FAILURES = 3
MOST_QUIET_HOURS = 24 * 366.0


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
    schedule, scheduled = set_up_schedule(session, adapter, task, loop, plan, defaults, actor)
    parts = [
        scheduled,
        _set_up_gate(session, adapter, plan, actor, is_new=loop is None),
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
    parts += [SetUpPart("recording", outcome, recorded), *set_up_judge(session, loop, plan)]
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


def _set_up_gate(session: Session, adapter: Adapter, plan: LoopPlan, actor: str, *, is_new: bool) -> SetUpPart:
    wanted = dict(plan.settings)
    if is_new:
        # A champion at its ceiling must not reject every night's version: that one may not drop, and the canary decides
        wanted = {"gate_policy": "canary", "gate_settled": True, "gate_gain": False, **wanted}
        if adapter.gate_policy != "canary":
            wanted.setdefault("canary_share", max(adapter.canary_share, CANARY_SHARE))
    change = change_adapter(session, adapter, wanted, actor=actor, reason="its loop was set up")
    return SetUpPart("gate", "kept" if change is None else "changed", say_gate(AdapterSettings.of(adapter)))


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
    newest = "the newest version keeps its" if kept == 1 else f"the newest {kept} versions keep their"
    return SetUpPart("retention", outcome, f"{newest} bytes, and so does each that is needed")


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


def say_gate(settings: AdapterSettings) -> str:
    """What a version must pass to become the champion, for people."""
    drop = f"a drop of {counted(100 * settings.gate_margin, 'point')} at most"
    if settings.gate_policy == "manual":
        return f"{drop}; a person approves what passed"
    if settings.gate_policy == "automatic":
        return f"{drop}; what passed is the champion at once"
    share = f"{drop}; {100 * settings.canary_share:g}% of the sessions try a version that passed"
    if settings.canary_promotion == "never":
        return f"{share}; a person moves the champion"
    rule = "shown to be better"
    if settings.canary_promotion == "non_inferior":
        rule += f", or not worse by {counted(100 * settings.canary_margin, 'point')}"
    return f"{share}; it becomes the champion once it is {rule}"


def _of_limits(loop: Loop) -> str:
    return (
        f"held after {counted(loop.most_failures, 'failure')} in a row; {counted(loop.quiet_hours, 'hour')} without "
        "traffic or without rewards count as a state of their own"
    )
