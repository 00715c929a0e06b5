"""Items to play, by task: what a training from reward reads of a dataset."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from memgen.errors import Cancelled, ConfigError
from memgen.evaluation.accuracy import item_of
from memgen.tasks.environments import GAMES_FOLDER, open_environment
from memgen.tasks.graders import LIKELIHOOD, make_grader, why_unfit
from memgen.tasks.task import SingleTurn, TaskItem
from registry.datasets.manifest import JudgingTask, Manifest
from registry.models import Task
from registry.trajectories.holdout import beginning_hash, held_out
from workers.runner import Running


def gives_reward(task: Task) -> bool:
    """Whether the task's grader judges answers, and not only the probability of the recorded ones."""
    return bool(task.grader.get("kind") != LIKELIHOOD)


def with_reward(running: Running, tasks: Sequence[Task]) -> tuple[Task, ...]:
    """The tasks whose answers can be rewarded; an event of the job names each of the others."""
    for task in tasks:
        if not gives_reward(task):
            running.event(
                f"task {task.name!r} is left out: its grader 'likelihood' rewards no answers", level="warning"
            )
    return tuple(task for task in tasks if gives_reward(task))


def games_folder(running: Running) -> Path:
    return running.services.settings.models_dir / GAMES_FOLDER


def warn_of_unfit(running: Running, manifest: Manifest, lines: Sequence[dict[str, Any]]) -> None:
    """Record a warning of the lines whose grader can't judge by their reference; `items_of` leaves them out."""
    unfit = [reason for line in lines if (reason := _why_unfit(manifest, line))]
    if unfit:
        data = {"left_out": len(unfit)}
        running.event(f"{len(unfit)} of {len(lines)} lines are not played: {unfit[0]}", data, level="warning")


def _why_unfit(manifest: Manifest, line: Mapping[str, Any]) -> str:
    spec = (manifest.graders or {}).get(line["task"], {})
    item = item_of(line["messages"], line["tools"], line["metadata"])
    return why_unfit(spec, item.reference.message)


def items_of(
    manifest: Manifest,
    lines: Sequence[dict[str, Any]],
    folder: Path,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, list[TaskItem]]:
    """Items by task: the environment's, without those that the gate asks, or one for each different question of the
    lines, with its task's grader.

    Args:
        folder: where an environment keeps what it generates.
        should_stop: called before each of the environment's items is read, which may have to be generated first.

    Raises:
        Cancelled: `should_stop` returned True.
        ConfigError: the dataset has no item to play, or the environment is unknown.
        UnknownGrader: a task's grader is unknown.
    """
    environment = manifest.environment
    if environment is not None:
        made = open_environment(environment.name, environment.options, folder=folder)
        drawn = made.training_items(environment.items, seed=manifest.seed)
        found: dict[str, list[TaskItem]] = {made.name: _not_judged_on(drawn, manifest.held_out, should_stop)}
    else:
        fit = [line for line in lines if not _why_unfit(manifest, line)]
        found = _stored_items(manifest.graders or {}, fit)
    if not any(found.values()):
        raise ConfigError(f"no item to play came of the dataset of task {manifest.task!r}")
    return found


def _not_judged_on(
    items: Sequence[TaskItem], judges: Sequence[JudgingTask], should_stop: Callable[[], bool]
) -> list[TaskItem]:
    kept = []
    for item in items:
        if should_stop():
            raise Cancelled("stopped while items were drawn")
        if not _is_judged_on(item, judges):
            kept.append(item)
    return kept


def _is_judged_on(item: TaskItem, judges: Sequence[JudgingTask]) -> bool:
    """Whether the item's conversation is held out of a task that judges what is trained, if it was uploaded there."""
    messages = list(item.expert or (*_opening(item), {"role": "assistant", "content": ""}))
    return any(held_out(judge.task, beginning_hash(messages, judge.shared_turns), judge.share) for judge in judges)


def _opening(item: TaskItem) -> Sequence[Any]:
    """The messages in front of the first answer."""
    environment = item.open()
    try:
        return environment.reset().messages
    finally:
        environment.close()


def _stored_items(graders: Mapping[str, dict[str, Any]], lines: Sequence[dict[str, Any]]) -> dict[str, list[TaskItem]]:
    """One item for each question. The best of several answers is its reference, and an answer without a reward is the
    best: it was sent as a demonstration."""
    made = {task: make_grader(spec) for task, spec in graders.items()}
    items: dict[str, dict[str, TaskItem]] = {}
    for line in sorted(lines, key=lambda line: -math.inf if line["reward"] is None else -line["reward"]):
        item = item_of(line["messages"], line["tools"], line["metadata"])
        question = json.dumps([item.messages, item.tools], sort_keys=True)
        single = SingleTurn(line["id"], item.messages, made[line["task"]], item.reference, item.tools)
        items.setdefault(line["task"], {}).setdefault(question, single)
    return {task: list(found.values()) for task, found in items.items()}
