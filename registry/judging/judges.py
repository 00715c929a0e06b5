"""Judges: models with a rubric, whose scores of trajectories are rewards of a source of their own.

What a judge judges by never changes, so that `judge:strict` means one thing in all rewards: another rubric is another
judge. Only what it may spend a day by itself can be changed.
"""

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from registry.clock import utc_now
from registry.errors import Invalid, InvalidJson, JudgeNotFound, NameTaken, UpstreamNotFound
from registry.json_text import canonical_json, show
from registry.judging.prompts import MAX_GROUP
from registry.models import JUDGE_KINDS, TOO_LONG, Adapter, Judge, Project, Task, TaskJudge, Version
from registry.names import BASE, check_name, is_valid_name
from registry.rewards.rewards import JUDGE_PREFIX
from registry.serving.resolution import resolve
from registry.settings import Settings
from registry.upstreams import Upstream, find_upstream, is_upstream_model, load_upstreams

RELATIVE = "relative"
MAX_RUBRIC = 20_000
"""Characters."""
MAX_DAILY_CALLS = 1_000_000


def reward_source(judge: Judge) -> str:
    """Source of a judge's rewards; no name that feedback may send has a colon."""
    return f"{JUDGE_PREFIX}{judge.name}"


def _setting(default: Any, meaning: str) -> Any:
    return field(default=default, metadata={"meaning": meaning})


@dataclass(frozen=True)
class JudgeSettings:
    """How a judge judges, beside its model and rubric. The API's bodies are made from these fields."""

    scale: int = _setting(10, "pointwise: the best score; scores are whole numbers from 0, rewards score / scale")
    group_size: int = _setting(4, f"relative: runs that are ranked together at most, 2 to {MAX_GROUP}")
    temperature: float | None = _setting(
        None, "Temperature of the first try; null is 0 for our own models, and the upstream's default"
    )
    max_answer_tokens: int = _setting(600, "Tokens of one answer at most, thoughts included")
    max_characters: int = _setting(60_000, "Characters of recordings in one prompt; fewer where the model takes less")
    too_long: str = _setting("truncate", f"What becomes of longer runs: {', '.join(TOO_LONG)}")
    daily_calls: int = _setting(1_000, "Calls in 24 hours that jobs may make which start by themselves; 0 for none")

    @classmethod
    def of(cls, judge: Judge) -> Self:
        return cls(**{each.name: getattr(judge, each.name) for each in fields(cls)})

    def check(self) -> None:
        """Raises Invalid."""
        ranges = {
            "scale": (1, 100),
            "group_size": (2, MAX_GROUP),
            "max_answer_tokens": (64, 32_768),
            "max_characters": (1_000, 4_000_000),
            "daily_calls": (0, MAX_DAILY_CALLS),
        }
        for name, (least, most) in ranges.items():
            if not least <= getattr(self, name) <= most:
                raise Invalid(f"{name} is {getattr(self, name)}; expected {least} to {most}")
        if self.temperature is not None and not 0.0 <= self.temperature <= 2.0:
            raise Invalid(f"temperature is {self.temperature}; expected 0 to 2, or null")
        if self.too_long not in TOO_LONG:
            raise Invalid(f"too_long is {show(self.too_long)}; expected one of {list(TOO_LONG)}")


@dataclass(frozen=True)
class JudgingModel:
    """The model of a judge at one moment."""

    label: str
    """`base`, `adapter@7` or `upstream/model`."""
    adapter: Adapter | None = None
    version: Version | None = None


def create_judge(
    session: Session, project_id: uuid.UUID, *, name: str, kind: str, model: str, rubric: str, settings: JudgeSettings
) -> tuple[Judge, bool]:
    """The judge, and whether it is new: creating an equal one again is harmless.

    Whether an upstream is configured is the caller's to check.

    Raises:
        InvalidName, Invalid: a name, a text or a setting.
        AdapterNotFound, AliasNotFound, VersionNotFound, VersionNotServable: the model.
        NameTaken: a judge of that name differs.
    """
    check_name("judge", name)
    if kind not in JUDGE_KINDS:
        raise Invalid(f"kind is {show(kind)}; expected one of {list(JUDGE_KINDS)}")
    if not rubric.strip() or len(rubric) > MAX_RUBRIC:
        raise Invalid(f"rubric has {len(rubric)} characters; expected 1 to {MAX_RUBRIC}, not all of them blank")
    try:
        canonical_json([rubric, model])
    except InvalidJson as error:
        raise Invalid(str(error)) from error
    settings.check()
    find_model(session, project_id, model)
    spec = {"kind": kind, "model": model, "rubric": rubric, **asdict(settings)}
    created = session.scalars(
        insert(Judge)
        .values(id=uuid.uuid4(), project_id=project_id, name=name, created_at=utc_now(), **spec)
        .on_conflict_do_nothing(index_elements=["project_id", "name"])
        .returning(Judge)
    ).one_or_none()
    if created is not None:
        return created, True
    found = get_judge(session, project_id, name)
    different = [each for each, value in spec.items() if getattr(found, each) != value]
    if different:
        raise NameTaken(
            f"the project already has a judge {name!r} with another {', '.join(different)}; use another name: rewards "
            f"of {reward_source(found)} must mean one thing"
        )
    return found, False


def find_model(session: Session, project_id: uuid.UUID, model: str) -> JudgingModel:
    """The model that a name stands for now. Names of upstreams' models are taken as they are.

    Raises:
        AdapterNotFound, AliasNotFound, VersionNotFound, VersionNotServable: as `resolve`.
    """
    if model == BASE or is_upstream_model(model):
        return JudgingModel(model)
    found = resolve(session, project_id, model)
    return JudgingModel(found.label, found.adapter, found.version)


def check_upstream(session: Session, settings: Settings, project_id: uuid.UUID, model: str) -> None:
    """Raise UpstreamNotFound if the model is an upstream's that this project may not ask."""
    if is_upstream_model(model):
        usable_upstream(session, settings, project_id, model)


def usable_upstream(session: Session, settings: Settings, project_id: uuid.UUID, model: str) -> tuple[Upstream, str]:
    """The upstream of `strong/gpt-5`, and `gpt-5`. Raises UpstreamNotFound, also if it is for other projects."""
    upstream, name = find_upstream(load_upstreams(settings), model)
    if upstream.projects and session.get_one(Project, project_id).name not in upstream.projects:
        raise UpstreamNotFound(f"model {show(model)}: upstream {upstream.name!r} is not for this project")
    return upstream, name


def get_judge(session: Session, project_id: uuid.UUID, name: str, *, lock: bool = False) -> Judge:
    """Raises JudgeNotFound. `lock` keeps two jobs from being started for it at once."""
    query = select(Judge).where(Judge.project_id == project_id, Judge.name == name)
    found = session.scalars(query.with_for_update() if lock else query).one_or_none() if is_valid_name(name) else None
    if found is None:
        raise JudgeNotFound(f"no judge named {show(name)} in this project; `GET /v1/judges` lists them")
    return found


def list_judges(session: Session, project_id: uuid.UUID) -> list[Judge]:
    """All judges of a project, by name."""
    return list(session.scalars(select(Judge).where(Judge.project_id == project_id).order_by(Judge.name)))


def change_daily_calls(judge: Judge, daily_calls: int) -> None:
    """Raises Invalid."""
    if not 0 <= daily_calls <= MAX_DAILY_CALLS:
        raise Invalid(f"daily_calls is {daily_calls}; expected 0 to {MAX_DAILY_CALLS}")
    judge.daily_calls = daily_calls


def name_judge(session: Session, task: Task, judge: Judge | None) -> None:
    """Let a judge judge the task's new trajectories by itself; None ends that."""
    known = session.get(TaskJudge, task.id)
    if known is not None and judge is not None and known.judge_id == judge.id:
        return
    if known is not None:
        session.delete(known)
        session.flush()
    if judge is not None:
        session.add(TaskJudge(task_id=task.id, judge_id=judge.id))
        session.flush()


def judges_of_tasks(session: Session, task_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, str]:
    """Names of the tasks' judges, by task; tasks without one are left out."""
    query = select(TaskJudge.task_id, Judge.name).join(Judge).where(TaskJudge.task_id.in_(task_ids))
    return {row[0]: row[1] for row in session.execute(query)}


def tasks_of_judges(session: Session, judge_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, list[str]]:
    """Names of the tasks that name each judge, sorted."""
    found: dict[uuid.UUID, list[str]] = {judge_id: [] for judge_id in judge_ids}
    query = select(TaskJudge.judge_id, Task.name).join(Task).where(TaskJudge.judge_id.in_(judge_ids))
    for judge_id, name in session.execute(query.order_by(Task.name)):
        found[judge_id].append(name)
    return found
