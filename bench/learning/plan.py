"""What is compared: tasks in their order, and every number that a result depends on.

Two runs of one plan may share results; so seeds, methods and budgets are no part of it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from memgen.config import GrpoConfig, MemoryConfig, TrainingConfig, TriggerConfig
from memgen.errors import ConfigError


@dataclass(frozen=True)
class TaskChoice:
    """A task of the catalogue with its options."""

    label: str
    """Short name; it is part of keys of cells."""
    domain: str
    name: str
    """Name in the catalogue, for `memgen.tasks.catalogue.make_task`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    training_items: int = 400


CHOICES = {
    choice.label: choice
    for choice in (
        TaskChoice(
            "bfcl",
            "tool use",
            "bfcl",
            {
                "categories": ["simple_python", "live_simple", "multiple"],
                "max_characters": 1200,
                "one_in": 3,
                "max_new_tokens": 80,
            },
            training_items=360,
        ),
        TaskChoice("textworld", "embodied", "textworld", {"level": 2, "theme": "basic"}, training_items=150),
        TaskChoice(
            "needle",
            "reasoning",
            "reasoning-gym:needle_haystack",
            {"options": {"min_num_statements": 4, "max_num_statements": 7}, "max_new_tokens": 12},
        ),
        TaskChoice("family", "reasoning", "reasoning-gym:family_relationships", {"max_new_tokens": 12}),
        TaskChoice(
            "number-filtering",
            "reasoning",
            "reasoning-gym:number_filtering",
            {"options": {"min_numbers": 3, "max_numbers": 5}, "max_new_tokens": 40},
        ),
        TaskChoice(
            "spell-backward",
            "reasoning",
            "reasoning-gym:spell_backward",
            {"options": {"min_word_len": 3, "max_word_len": 5}, "max_new_tokens": 12},
        ),
        TaskChoice(
            "number-format", "reasoning", "reasoning-gym:number_format", {"max_new_tokens": 24}, training_items=200
        ),
    )
}
"""Tasks that a plan can take, with prompts of about 40 to 250 tokens. Of the default ones the most frequent answer is
right for one item in seven at most (family; of 400 training items)."""
DEFAULT_TASKS = ("bfcl", "textworld", "needle", "family")
_RECIPE = (
    "memory",
    "reread_tokens",
    "weaver_sft",
    "weaver_grpo",
    "grpo_steps",
    "grpo_items",
    "group_size",
    "trigger_grpo",
    "trigger",
    "trigger_steps",
    "trigger_items",
    "outside",
)
"""Fields of a plan that concern memories alone."""


@dataclass(frozen=True)
class LearningPlan:
    """Steps, batch, data and order of examples are the same for the memory and for LoRA SFT of the base."""

    tasks: tuple[TaskChoice, ...] = tuple(CHOICES[label] for label in DEFAULT_TASKS)
    """In the order in which they are learned."""
    model: str = "smollm2-135m-instruct"
    dtype: str = "bfloat16"
    """Type of the base's weights, `bfloat16` or `float32`; a part of the plan and not the machine's choice, so that
    results of two number formats never stand together."""
    items: int = 200
    """Held-out items of a task."""
    steps: int = 60
    """Optimizer steps of SFT on each task."""
    batch_size: int = 8
    max_example_tokens: int = 640
    replay_share: float = 0.5
    """Share of a stage's examples that are of earlier tasks, where a method replays."""
    replay_examples: int = 200
    """Examples kept of each earlier task."""
    lora_rates: tuple[float, ...] = (2e-3,)
    """Learning rates of LoRA SFT; of several, the best on validation items of the first task is used. Both sides'
    rates were chosen on another task: this one in learning_speed.json; the memory's is `TrainingConfig`'s default."""
    validation_items: int = 60
    demonstrations: int = 4
    """Most demonstrations in a prompt of few-shot and of retrieval."""
    demonstration_tokens: int = 400
    """Most tokens of all demonstrations of a prompt together."""
    router_prompts: int = 100
    """Prompts of a task that the router learns its region from."""
    reread_tokens: int = 512
    """Tokens of the prompt that a weaver reads again, where it does; the default tasks' training prompts have fewer."""
    grpo_steps: int = 24
    grpo_items: int = 8
    """Items of one GRPO step."""
    group_size: int = 8
    """Rollouts of an item, in GRPO of weaver and trigger."""
    trigger: str = "lora"
    trigger_steps: int = 24
    trigger_items: int = 8
    outside: TaskChoice | None = CHOICES["number-format"]
    """A task that nobody learns, on which the trigger may see where memory does not help."""
    texts: int = 60
    """Pieces of ordinary text whose loss is measured."""
    text_tokens: int = 192
    """Tokens of a piece: the first half is read, the second predicted."""
    memory: Mapping[str, Any] = field(default_factory=lambda: MemoryConfig().to_mapping())
    """This and the following: a config's fields as they are where the plan does not say them itself. They stand here in
    full, so that a plan with other defaults is another plan."""
    weaver_sft: Mapping[str, Any] = field(default_factory=lambda: TrainingConfig().to_mapping())
    weaver_grpo: Mapping[str, Any] = field(default_factory=lambda: GrpoConfig().to_mapping())
    trigger_grpo: Mapping[str, Any] = field(default_factory=lambda: TriggerConfig().to_mapping())

    def __post_init__(self) -> None:
        labels = [task.label for task in self.tasks]
        if not labels or len(set(labels)) < len(labels):
            raise ConfigError(f"tasks are {labels}; expected one or more, each once")
        if not 0 <= self.replay_share < 1:
            raise ConfigError(f"replay_share is {self.replay_share}; expected 0 to below 1")
        if not self.lora_rates:
            raise ConfigError("lora_rates is empty; give at least one learning rate")

    @property
    def labels(self) -> list[str]:
        return [task.label for task in self.tasks]

    @property
    def recipe(self) -> dict[str, Any]:
        """How memories are shaped and trained, as far as no other system is concerned."""
        return {name: value for name, value in asdict(self).items() if name in _RECIPE}

    @property
    def recipe_digest(self) -> str:
        """Equal for plans whose results of memories may stand together, if their `digest` is equal."""
        return _digest(self.recipe)

    @property
    def digest(self) -> str:
        """Equal for plans whose results of systems without memory may stand together."""
        return _digest({name: value for name, value in asdict(self).items() if name not in _RECIPE})

    def memory_config(self, *, rereads: bool = False, with_trigger: bool = False) -> MemoryConfig:
        fields = dict(self.memory)
        if rereads:
            fields["reread_tokens"] = self.reread_tokens
        if with_trigger:
            fields["trigger"] = self.trigger
        return MemoryConfig.from_mapping(fields)

    def sft_config(self, seed: int, times: int = 1) -> TrainingConfig:
        """The config of SFT in `times` the plan's steps."""
        return replace(
            TrainingConfig.from_mapping(dict(self.weaver_sft)),
            steps=times * self.steps,
            batch_size=self.batch_size,
            warmup_steps=min(10, self.steps // 2),
            seed=seed,
            max_example_tokens=self.max_example_tokens,
            prefix_cache_bytes=2_000_000_000,
        )

    def grpo_config(self, seed: int, max_new_tokens: int) -> GrpoConfig:
        return replace(
            GrpoConfig.from_mapping(dict(self.weaver_grpo)),
            steps=self.grpo_steps,
            items_per_step=self.grpo_items,
            group_size=self.group_size,
            max_new_tokens=max_new_tokens,
            warmup_steps=min(5, self.grpo_steps // 2),
            seed=seed,
            prompt_cache_bytes=1_000_000_000,
        )

    def trigger_config(self, seed: int, max_new_tokens: int) -> TriggerConfig:
        return replace(
            TriggerConfig.from_mapping(dict(self.trigger_grpo)),
            steps=self.trigger_steps,
            items_per_step=self.trigger_items,
            group_size=self.group_size,
            max_new_tokens=max_new_tokens,
            seed=seed,
            prompt_cache_bytes=1_000_000_000,
        )


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def plan_from(values: Mapping[str, Any]) -> LearningPlan:
    """The plan that `asdict` gave, also through JSON."""
    tasks = tuple(TaskChoice(**task) for task in values["tasks"])
    outside = TaskChoice(**values["outside"]) if values["outside"] else None
    return LearningPlan(**{**values, "tasks": tasks, "outside": outside, "lora_rates": tuple(values["lora_rates"])})
