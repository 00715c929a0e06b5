"""Bodies that ask for a job, and the typed request that each becomes. Everything is decided when a job is made, so that
it means the same whenever it runs, and what could not run is refused at once.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from sqlalchemy.orm import Session

from api.endpoints.analysis_bodies import AnalysisIn, analyze_request, with_judge
from api.http.schemas import Strict
from api.http.values import Number
from memgen.config import LEARNED_TRIGGERS, GrpoConfig, MemoryConfig, TrainingConfig, TriggerConfig
from memgen.forms import check_settings
from memgen.tasks.environments import GAMES_FOLDER, open_environment
from memgen.tasks.graders import LIKELIHOOD
from registry.adapters import get_adapter
from registry.datasets.reward_snapshots import has_comparison, no_comparison
from registry.errors import Invalid
from registry.job_requests import (
    GOOD_REWARD,
    AnalyzeVersion,
    Evaluate,
    JobKind,
    JobRequest,
    Method,
    PlayedEnvironment,
    TrainTrigger,
    TrainWeaver,
)
from registry.judging.judges import check_upstream
from registry.judging.ticks import JudgingOrder, judging_request
from registry.keys import Principal
from registry.models import Adapter, Task
from registry.settings import Settings
from registry.tasks import get_task
from registry.versions.ancestry import learned_tasks
from registry.versions.champion import champion
from registry.versions.records import get_version
from registry.versions.state import check_parent


class EnvironmentIn(Strict):
    name: Annotated[str, Field(description="bfcl, textworld, or reasoning-gym:<dataset>")]
    options: Annotated[dict[str, Any], Field(default_factory=dict)]
    items: Annotated[int, Field(ge=1, le=100_000, description="How many to draw from")] = 256


class JobIn(Strict):
    kind: Literal[JobKind.TRAIN_WEAVER, JobKind.TRAIN_TRIGGER, JobKind.EVALUATE, JobKind.JUDGE, JobKind.ANALYZE]
    adapter: Annotated[str | None, Field(description="Every kind needs one, but a judge")] = None
    task: Annotated[
        str | None, Field(description="train_weaver: the task to learn; judge: the task whose trajectories are judged")
    ] = None
    tasks: Annotated[
        list[str] | None,
        Field(
            description="train_trigger: tasks to play; analyze: tasks whose held-out items are answered. Default: "
            "those that the memory has learned"
        ),
    ] = None
    method: Annotated[
        Literal[Method.SFT, Method.GRPO, Method.GRPO_RECORDED],
        Field(
            description="train_weaver: from demonstrations; from the grader's reward for answers of its own; from "
            "uploaded answers to the same prompts with different rewards"
        ),
    ] = Method.SFT
    environment: Annotated[
        EnvironmentIn | None, Field(description="Where items to play come from, instead of the task's trajectories")
    ] = None
    version: Annotated[Number | None, Field(description="evaluate, analyze: which version")] = None
    parent: Annotated[
        Number | None,
        Field(
            description="train_weaver: version to go on from, 0 for none; default: the champion. train_trigger: the "
            "version whose trigger is trained"
        ),
    ] = None
    training: Annotated[
        dict[str, Any],
        Field(
            default_factory=dict,
            description="Fields of TrainingConfig (sft), GrpoConfig (grpo, grpo_recorded) or TriggerConfig "
            "(train_trigger): steps, ...",
        ),
    ]
    min_reward: Annotated[
        float, Field(description="Trajectories with a lower reward are not trained on; grpo_recorded takes all")
    ] = GOOD_REWARD
    insights: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=2000)]] | None,
        Field(
            description="train_weaver: rules in words for the weaver's cue, if the adapter's memory has cue_insights",
            max_length=200,
        ),
    ] = None
    promote: Annotated[bool, Field(description="Move `champion` to the version if it passes its gate")] = True
    judge: Annotated[
        str | None,
        Field(description="judge: name of the judge; analyze: that of one which names the kinds of wrong answers"),
    ] = None
    max_calls: Annotated[Number, Field(description="judge, analyze: calls of the judge's model at most")] = (
        JudgingOrder.max_calls
    )
    max_tokens: Annotated[
        Number | None,
        Field(description="judge: tokens of prompts and answers at most"),
    ] = None
    unrewarded: Annotated[bool, Field(description="judge: only trajectories that have no reward")] = False
    held_out: Annotated[bool, Field(description="judge: those that are kept for evaluation, too")] = False
    again: Annotated[bool, Field(description="judge: those that got no score before, too")] = False
    form: Annotated[
        Literal["cache", "embedding", "lora"] | None,
        # Left out where it is not sent, as is `analysis`.
        Field(
            description="train_weaver: lora for a plain LoRA of the base, or the form of a memory. Default: as the "
            "adapter's memory says",
            exclude_if=lambda sent: sent is None,
        ),
    ] = None
    analysis: Annotated[
        AnalysisIn | None,
        # Left out where it is not sent: a body without it has the hash for `Idempotency-Key` that it always had.
        Field(description="analyze: how much is looked at", exclude_if=lambda sent: sent is None),
    ] = None


def job_request(
    session: Session, caller: Principal, body: JobIn, settings: Settings
) -> tuple[Adapter | None, JobRequest]:
    """The adapter of a job, and what the job is to do.

    Raises:
        Invalid, NotFound: something is missing, or not there.
        JudgeBusy: the judge has the task in hand already.
        VersionNotServable: the parent was withdrawn, or its bytes are gone.
        ConfigError: a setting is unknown or out of range.
        EmptyDataset: there is nothing to compare.
    """
    if body.analysis is not None and body.kind != JobKind.ANALYZE:
        raise Invalid(f"a job of kind {body.kind.value} takes no `analysis`")
    if body.form is not None and body.kind != JobKind.TRAIN_WEAVER:
        raise Invalid(f"a job of kind {body.kind.value} takes no `form`")
    if body.kind == JobKind.JUDGE:
        return _judge_request(session, caller, body, settings)
    if body.adapter is None:
        raise Invalid(f"a job of kind {body.kind.value} needs `adapter`, the name of an adapter")
    if body.judge is not None and body.kind != JobKind.ANALYZE:
        raise Invalid(f"a job of kind {body.kind.value} takes no `judge`")
    adapter = get_adapter(session, caller.project_id, body.adapter)
    _check_environment(adapter, body, settings.models_dir / GAMES_FOLDER)
    request = READERS[body.kind](session, caller, adapter, body)
    if isinstance(request, AnalyzeVersion) and body.judge is not None:
        request = with_judge(session, adapter, settings, request, body.judge, body.max_calls)
    return adapter, request


def _judge_request(
    session: Session, caller: Principal, body: JobIn, settings: Settings
) -> tuple[Adapter | None, JobRequest]:
    if body.judge is None or body.task is None or body.adapter is not None:
        raise Invalid("a judge job needs `judge` and `task`, two names, and takes no `adapter`")
    order = JudgingOrder(body.max_calls, body.max_tokens, body.unrewarded, body.held_out, body.again)
    task = get_task(session, caller.project_id, body.task)
    adapter, request = judging_request(session, caller.project_id, body.judge, task, order)
    check_upstream(session, settings, caller.project_id, request.model)
    return adapter, request


def _evaluate_request(session: Session, caller: Principal, adapter: Adapter, body: JobIn) -> Evaluate:
    if body.version is None:
        raise Invalid("an evaluate job needs `version`, the number of the version to evaluate")
    return Evaluate(get_version(session, adapter, body.version).number)


def _analyze_request(session: Session, caller: Principal, adapter: Adapter, body: JobIn) -> AnalyzeVersion:
    return analyze_request(session, adapter, body.version, body.tasks, body.analysis)


def _weaver_request(session: Session, caller: Principal, adapter: Adapter, body: JobIn) -> TrainWeaver:
    if body.task is None or body.tasks is not None:
        raise Invalid("a train_weaver job needs `task`, the name of the task to learn, and takes no `tasks`")
    own = MemoryConfig.from_mapping(adapter.memory)
    memory = own.as_form(body.form)
    if body.insights and not memory.cue_insights:
        raise Invalid(
            f"the memory of adapter {adapter.name!r} shows its weaver no insights; create an adapter with cue_tokens "
            "and cue_insights, or leave `insights` out"
        )
    check_settings(memory.form, body.training)
    task = get_task(session, caller.project_id, body.task)
    config = CONFIGS[body.method].from_mapping(body.training)
    if body.method == Method.GRPO and body.environment is None:
        _check_rewards(task)
    if body.method == Method.GRPO_RECORDED and not has_comparison(session, task):
        raise no_comparison(task)
    if body.parent is None:
        parent = champion(session, adapter)
    else:
        parent = get_version(session, adapter, body.parent) if body.parent else None
    check_parent(session, parent)
    return TrainWeaver(
        task=task.name,
        parent=parent.number if parent else None,
        method=body.method,
        training=_json(config),
        min_reward=body.min_reward,
        promote=body.promote,
        environment=_environment(body),
        insights=tuple(body.insights or ()),
        form=memory.form if memory != own else None,
    )


def _trigger_request(session: Session, caller: Principal, adapter: Adapter, body: JobIn) -> TrainTrigger:
    if not body.parent:
        raise Invalid("a train_trigger job needs `parent`, the number of the version whose trigger is to be trained")
    if body.task is not None or body.method != Method.SFT or body.insights:
        raise Invalid(
            "a train_trigger job takes neither `task` nor `method` nor `insights`; `tasks` lists the tasks to play"
        )
    trigger = MemoryConfig.from_mapping(adapter.memory).trigger
    if trigger not in LEARNED_TRIGGERS:
        raise Invalid(
            f"the trigger of adapter {adapter.name!r} is {trigger!r} and has nothing to learn; create an adapter whose "
            "memory has trigger 'lora' or 'head'"
        )
    parent = get_version(session, adapter, body.parent)
    if parent.form == "lora":
        raise Invalid(
            f"{adapter.name}@{parent.number} is a plain LoRA of the base (form 'lora') and has no trigger; name a "
            "version that is a memory"
        )
    check_parent(session, parent)
    if body.tasks is not None:
        tasks = [get_task(session, caller.project_id, name) for name in dict.fromkeys(body.tasks)]
        for task in tasks:
            _check_rewards(task)
    else:
        tasks = [task for task in learned_tasks(session, parent) if task.grader.get("kind") != LIKELIHOOD]
    if not tasks and body.environment is None:
        raise Invalid(
            f"no task that {adapter.name}@{parent.number} has learned has a grader that gives a reward; name others "
            "in `tasks`"
        )
    config = TriggerConfig.from_mapping(body.training)
    return TrainTrigger(
        tasks=tuple(task.name for task in tasks),
        parent=parent.number,
        training=_json(config),
        min_reward=body.min_reward,
        promote=body.promote,
        environment=_environment(body),
    )


READERS: Mapping[JobKind, Callable[[Session, Principal, Adapter, JobIn], JobRequest]] = {
    JobKind.TRAIN_WEAVER: _weaver_request,
    JobKind.TRAIN_TRIGGER: _trigger_request,
    JobKind.EVALUATE: _evaluate_request,
    JobKind.ANALYZE: _analyze_request,
}
"""What reads the body of each kind that may be asked for over REST and works on an adapter."""
CONFIGS: Mapping[Method, type[TrainingConfig | GrpoConfig]] = {
    Method.SFT: TrainingConfig,
    Method.GRPO: GrpoConfig,
    Method.GRPO_RECORDED: GrpoConfig,
}
"""What reads the fields of `training`, by method of train_weaver."""


def _environment(body: JobIn) -> PlayedEnvironment | None:
    return PlayedEnvironment(**body.environment.model_dump()) if body.environment else None


def _check_environment(adapter: Adapter, body: JobIn, folder: Path) -> None:
    if body.environment is None or body.kind in (JobKind.EVALUATE, JobKind.ANALYZE):
        return
    if body.kind == JobKind.TRAIN_WEAVER and body.method != Method.GRPO:
        raise Invalid(
            f"method {body.method.value!r} plays nothing; `environment` is for method 'grpo' and for train_trigger"
        )
    if body.kind == JobKind.TRAIN_WEAVER and adapter.strategy == "isolated":
        raise Invalid(
            f"adapter {adapter.name!r} has strategy 'isolated', which knows a task by the prompts of its trajectories; "
            "an environment has none. Leave `environment` out, or use another adapter"
        )
    if body.tasks is not None:
        raise Invalid("`tasks` and `environment` both say what to play; give one")
    open_environment(body.environment.name, body.environment.options, folder=folder)


def _check_rewards(task: Task) -> None:
    if task.grader.get("kind") == LIKELIHOOD:
        raise Invalid(
            f"task {task.name!r} has grader {LIKELIHOOD!r}, which scores recorded answers and gives no reward to new "
            "ones; use a task with another grader"
        )


def _json(config: TrainingConfig | GrpoConfig | TriggerConfig) -> dict[str, Any]:
    return dict(json.loads(json.dumps(config.to_mapping())))
