"""The seam between a job and the ways to train a weaver: what is trained, how, and a training that is ready to run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from memgen.artifacts.report import Report
from memgen.config import GrpoConfig, MemoryConfig, TrainingConfig
from memgen.experience.insights import written_insights
from memgen.experience.pool import Insight
from memgen.training.examples import Example
from memgen.training.reward.rollouts import Failures
from memgen.training.run_control import RunControl
from memgen.training.several_devices import Training, train_on_devices
from registry.job_requests import Method, PlayedEnvironment, TrainWeaver
from registry.models import Adapter, Task, Version
from registry.wording import counted
from workers.checkpoints import Checkpoint
from workers.model import Model
from workers.runner import Running
from workers.workspace import Workspace

CONFIGS: Mapping[Method, type[TrainingConfig | GrpoConfig]] = {
    Method.SFT: TrainingConfig,
    Method.GRPO: GrpoConfig,
    Method.GRPO_RECORDED: GrpoConfig,
}
"""What reads the settings of a training, by its method."""

_Report = TypeVar("_Report")


@dataclass(frozen=True)
class WeaverTarget:
    """What a job trains: by its row and the lineage of its parent."""

    adapter: Adapter
    memory: MemoryConfig
    """The version's: the adapter's, or one of another form."""
    task: Task
    parent: Version | None
    start: Version | None
    """The version whose weights and optimizer the training goes on from: the parent or, with strategy `isolated`, the
    newest ancestor that learned this very task; of the same form, or none."""
    earlier_tasks: tuple[Task, ...]
    """Tasks whose items may be replayed."""


@dataclass(frozen=True)
class WeaverRecipe:
    """How a job trains: method, settings, and which data the dataset is made of."""

    method: Method
    config: TrainingConfig | GrpoConfig
    replay_share: float
    min_reward: float
    environment: PlayedEnvironment | None
    insights: tuple[Insight, ...]
    """Insights that a person wrote, for the weaver's cues."""

    @classmethod
    def of(cls, request: TrainWeaver, adapter: Adapter) -> "WeaverRecipe":
        """Raises ConfigError: an unknown field of the config, or a value out of range."""
        return cls(
            method=request.method,
            config=CONFIGS[request.method].from_mapping(request.training),
            replay_share=adapter.replay_share if request.replay_share is None else request.replay_share,
            min_reward=request.min_reward,
            environment=request.environment,
            insights=written_insights(request.task, request.insights),
        )


@dataclass(frozen=True)
class TrainingMethod:
    """One method with a dataset, ready to be trained."""

    examples: tuple[Example, ...]
    """Turns of the dataset: their prompts say where in the base's states the task lies."""
    train: Callable[[Workspace, Checkpoint], Report]
    """Trains the workspace's memory, for hours; may leave files in the folder of the artifact."""


def warn_of_failures(running: Running, failures: Failures) -> None:
    """Record a warning if the environment or the grader of some rollouts failed."""
    if failures.count:
        data = {"failed": failures.count, "last": failures.last}
        running.event(
            f"{counted(failures.count, 'rollout')} failed; the last at {failures.last}", data, level="warning"
        )


def warn_of_long(running: Running, too_long: str, count: int) -> None:
    """Record a warning if some turns are too long to be learned; `too_long` says so in words."""
    if too_long:
        running.event(too_long, {"skipped_long": count}, level="warning")


def train_watched(
    running: Running,
    model: Model,
    memory: str,
    train: Training[_Report],
    checkpoint: Checkpoint,
    *,
    devices: int,
    on_step: Callable[[Any], None],
) -> _Report:
    """Train a memory of the model's host. Checkpoints go to the store; a cancelled job stops the training.

    Args:
        memory: the memory's name.
        train: as `train_on_devices` takes it.
        devices: number of devices to train on.
    """
    settings = running.services.settings
    control: RunControl[Any] = RunControl(
        checkpoint=checkpoint.path,
        checkpoint_interval_seconds=settings.checkpoint_interval_seconds,
        on_checkpoint=checkpoint.upload,
        on_step=on_step,
        should_stop=running.stop.is_set,
    )
    return train_on_devices(train, devices, model.host, memory, cache_dir=settings.models_dir, control=control)
