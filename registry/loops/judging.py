"""The judge of a loop whose agent gets no rewards from elsewhere, and what a deletion of the loop takes back.

The task names the judge, and its scores are rewards where no other source gave one. The beat lets it judge what is
recorded as it comes, so that a training that is due finds it judged.
"""

import uuid

from sqlalchemy.orm import Session

from registry.errors import Invalid
from registry.judging.judges import RELATIVE, get_judge, name_judge
from registry.loops.plan import LoopPlan, SetUpPart
from registry.models import Judge, Loop, TaskJudge
from registry.rewards.rewards import set_judge_rewards
from registry.wording import counted

FILL = "fill"


def set_up_judge(session: Session, loop: Loop, plan: LoopPlan) -> list[SetUpPart]:
    """Let the plan's judge judge the loop's task; nothing if it names none and the task has none.

    Raises:
        JudgeNotFound: no such judge.
        Invalid: it ranks runs, which says nothing of whether any is good.
    """
    task, present = loop.task, judge_of(session, loop)
    if plan.judge is None:
        return [] if present is None else [SetUpPart("judge", "kept", _in_words(loop, present))]
    judge = get_judge(session, loop.project_id, plan.judge)
    if judge.kind == RELATIVE:
        raise Invalid(
            f"judge {judge.name!r} ranks runs of one prompt, and half of each group would count as good; expected a "
            "pointwise judge"
        )
    if present is not None and present.id == judge.id and task.judge_rewards == FILL:
        return [SetUpPart("judge", "kept", _in_words(loop, judge))]
    before, former = None if present is None else str(present.id), loop.setup.get("judge")
    if before != str(judge.id):
        first = former["before"] if former is not None and former["after"] == before else before
        loop.setup = {**loop.setup, "judge": {"before": first, "after": str(judge.id)}}
    name_judge(session, task, judge)
    set_judge_rewards(session, task, FILL)
    return [SetUpPart("judge", "made" if present is None else "changed", _in_words(loop, judge))]


def judge_of(session: Session, loop: Loop) -> Judge | None:
    """The judge that the loop's task names."""
    named = session.get(TaskJudge, loop.task_id, populate_existing=True)
    return None if named is None else session.get_one(Judge, named.judge_id)


def say_judge(session: Session, loop: Loop) -> str | None:
    """Who judges what is recorded, and whether that counts, for people; None if nobody does."""
    judge = judge_of(session, loop)
    return None if judge is None else _in_words(loop, judge)


def restore_judge(session: Session, loop: Loop) -> list[str]:
    """Take back the judge that the loop named, if the task still names it. Returns what stays, for people."""
    mine, present = loop.setup.get("judge"), judge_of(session, loop)
    if present is None:
        return []
    if mine is None or mine["after"] != str(present.id):
        return [f"judge {present.name} of task {loop.task.name}, whom the loop did not name"]
    before = None if mine["before"] is None else session.get(Judge, uuid.UUID(mine["before"]))
    name_judge(session, loop.task, before)
    return [f"the rewards of judge {present.name}, which still count where nobody else gave one"]


def _in_words(loop: Loop, judge: Judge) -> str:
    if loop.task.judge_rewards != FILL:
        command = f"memgen judge attach {judge.name} --task {loop.task.name} --rewards fill"
        return f"{judge.name} judges, but its scores are no rewards (`{command}`)"
    return f"{judge.name} rewards what nobody else does, within {counted(judge.daily_calls, 'call')} a day"
