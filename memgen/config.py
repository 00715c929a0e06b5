"""What a memory is and how it is trained: frozen values, checked when made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from memgen.config_mapping import FromMapping, require
from memgen.forms import FORMS, NOTHING_WOVEN, check_named, check_sizes, refuse_unless

LEARNED_TRIGGERS = ("lora", "head")
"""Triggers with weights of their own, which training changes."""
TRIGGERS = ("always", "never", *LEARNED_TRIGGERS)
REWARD_WEIGHTINGS = ("none", "reward")
QUERY_STARTS = ("answers", "words")


@dataclass(frozen=True)
class MemoryConfig(FromMapping):
    """Shape of a memory. Two memories with equal configs can start from one another."""

    form: str = "cache"
    """What an insertion leaves in the reasoner's context: `cache`, keys and values; `embedding`, input embeddings.
    `lora` is no memory but a plain LoRA of the base: on for every token of prompt and answer, with nothing woven. It
    has `rank`, `alpha` and `target_modules` alone; the other fields are then as `trigger` `never` and K = 0 say."""
    trigger: str = "always"
    """The trigger at a decision point: `always`, `never`, `lora` (adapter and head), `head` (the base's state)."""
    latents: int = 16
    """K, the number of latents, of the insertion at the prompt's end."""
    inference_latents: int = 4
    """K of an insertion while generating; these have queries of their own."""
    reread_tokens: int = 0
    """Number of tokens, the last in front of the prompt's newest one, that the weaver reads again with its LoRA on,
    before its queries of the prompt's end. What it makes of them stays with the latents. 0 lets the queries look at the
    bare base's reading only. Form `cache` only: form `embedding` reads the whole context for itself."""
    max_insertions: int = 5
    """How many insertions may follow the prompt's; 0 weaves at the prompt's end only."""
    delimiters: tuple[str, ...] = (",", ".", "\n")
    """Texts behind which memory may be woven. A point or comma behind a digit does not count
    (`memgen.text.delimiters`)."""
    rank: int = 16
    alpha: int = 32
    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Linear layers that carry the LoRA."""
    weaver_base: str = ""
    """Form `embedding` only: another base that the weaver runs on; empty is the reasoner's own."""
    cue_tokens: int = 0
    """Tokens, at most, of past experience that the weaver reads beside the context (`memgen.experience.recall`); 0 is
    none, and keeps no experience."""
    cue_states: bool = False
    """Search past experience by the base's hidden states too, not by words (BM25) alone."""
    cue_insights: int = 0
    """Insights, at most, that stand in a cue in front of past trajectories; 0 keeps none."""

    def as_form(self, form: str | None) -> "MemoryConfig":
        """The config of a version of this form beside those that have this config; None is the same form.

        Another form has the same rank, alpha and target modules, and what else it has by default.

        Raises:
            ConfigError: both are forms of a memory: one adapter has one kind of memory.
        """
        if form is None or form == self.form:
            return self
        require(
            "lora" in (form, self.form),
            f"form is {form!r}, but the adapter's memories have form {self.form!r}; expected that or 'lora'. Create an "
            f"adapter for memories of form {form!r}",
        )
        return MemoryConfig(form=form, rank=self.rank, alpha=self.alpha, target_modules=self.target_modules)

    def tokens_to_reread(self, prompt_ids: Sequence[int]) -> Sequence[int]:
        """The tokens of a prompt that the weaver reads again: the last in front of the newest one."""
        before = len(prompt_ids) - 1
        return prompt_ids[max(0, before - self.reread_tokens) : before]

    @classmethod
    def from_mapping(cls, values: dict[str, Any]) -> Self:
        """Raises ConfigError, for form `lora` also if a field is named that only a memory has."""
        found = super().from_mapping(values)
        if found.form == "lora":
            check_named(values)
        return found

    @property
    def most_latents(self) -> int:
        """Latents of one answer, at most."""
        return self.latents + self.max_insertions * self.inference_latents

    @property
    def most_woven(self) -> int:
        """Tokens, at most, that memory adds to the context of an answer."""
        return self.reread_tokens + self.most_latents

    def __post_init__(self) -> None:
        require(self.form in FORMS, f"memory form is {self.form!r}; expected one of {FORMS}")
        if self.form == "lora":
            defaults = {field.name: field.default for field in fields(self)}
            for name, nothing in NOTHING_WOVEN.items():
                refuse_unless(getattr(self, name) in (nothing, defaults[name]), name, getattr(self, name))
                object.__setattr__(self, name, nothing)
        require(self.trigger in TRIGGERS, f"trigger is {self.trigger!r}; expected one of {TRIGGERS}")
        check_sizes(self.form, vars(self))
        require(
            not self.reread_tokens or self.form == "cache",
            f"reread_tokens is {self.reread_tokens}, but a weaver of form {self.form!r} reads the whole context for "
            "itself; leave reread_tokens at 0",
        )
        require(
            all(isinstance(d, str) and d for d in self.delimiters),
            f"delimiters are {self.delimiters!r}; expected texts that are not empty",
        )
        require(len(self.target_modules) > 0, "target_modules is empty; name at least one linear layer")
        require(
            not self.weaver_base or self.form == "embedding",
            f"weaver_base is {self.weaver_base!r}, but form 'cache' weaves in the reasoner's own cache; use form "
            "'embedding' or leave weaver_base empty",
        )
        require(
            not self.cue_insights or self.cue_tokens > 0,
            f"cue_insights is {self.cue_insights}, but cue_tokens is 0, and no cue has room for one; set cue_tokens",
        )


@dataclass(frozen=True)
class TrainingConfig(FromMapping):
    """One run of weaver SFT. The defaults suit a base of some hundred million parameters (research/method.md)."""

    steps: int = 150
    """Optimizer steps."""
    batch_size: int = 8
    """Examples of an optimizer step, over all devices."""
    accumulate_steps: int = 1
    """Passes in which the examples of an optimizer step are computed: less memory, the same step."""
    devices: int = 1
    """Processes, each with a device of its own, that share the examples of an optimizer step."""
    learning_rate: float = 2e-3
    """Learning rate of the LoRA factors."""
    query_learning_rate: float = 2e-3
    """Learning rate of the query latents and their scale."""
    warmup_steps: int = 3
    query_start: str = "answers"
    """What the prompt's queries of a weaver of form `cache` that was never trained start as: `answers`, tokens of the
    training data's answers; `words`, as the memory was made."""
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 0
    max_example_tokens: int = 1024
    """Longer examples are skipped and counted."""
    prefix_cache_bytes: int = 4_000_000_000
    """Memory allowed for the frozen base's caches of prompts, kept for all epochs."""
    activation_checkpointing: bool = False
    """Keep only each layer's input and compute the rest again in the backward pass: less memory, more time."""
    reward_weighting: str = "none"
    """What an example's loss counts by: `none`, all alike; `reward`, the reward of its trajectory."""
    held_out_share: float = 0.0
    """Share of the trajectories that is not trained on but tells which weights are best; 0 is none."""
    validate_every: int = 10
    """Steps between two looks at the held-out examples."""
    patience: int = 0
    """Looks in a row without a lower held-out loss after which a run stops; 0 never stops early."""

    def __post_init__(self) -> None:
        require(self.steps >= 1, f"steps is {self.steps}; expected at least 1")
        require(self.batch_size >= 1, f"batch_size is {self.batch_size}; expected at least 1")
        for name in ("learning_rate", "query_learning_rate", "max_grad_norm"):
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}; expected more than 0")
        require(self.warmup_steps >= 0, f"warmup_steps is {self.warmup_steps}; expected 0 or more")
        require(self.max_example_tokens >= 8, f"max_example_tokens is {self.max_example_tokens}; expected 8+")
        require(self.prefix_cache_bytes >= 0, "prefix_cache_bytes is negative; 0 turns the cache off")
        for name in ("accumulate_steps", "devices", "validate_every"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; expected at least 1")
        require(
            self.accumulate_steps * self.devices <= self.batch_size,
            f"accumulate_steps {self.accumulate_steps} x devices {self.devices} is more than batch_size "
            f"{self.batch_size}; each pass of each device needs an example",
        )
        require(
            self.reward_weighting in REWARD_WEIGHTINGS,
            f"reward_weighting is {self.reward_weighting!r}; expected one of {REWARD_WEIGHTINGS}",
        )
        require(
            self.query_start in QUERY_STARTS,
            f"query_start is {self.query_start!r}; expected one of {QUERY_STARTS}",
        )
        require(0.0 <= self.held_out_share < 1.0, f"held_out_share is {self.held_out_share}; expected 0 to below 1")
        require(self.patience >= 0, f"patience is {self.patience}; expected 0 or more")


POLICY_LOSSES = ("grpo", "bnpo", "dr_grpo")


@dataclass(frozen=True)
class RewardConfig(FromMapping):
    """What training from reward by GRPO has in common, of a weaver (`GrpoConfig`) or of a trigger (`TriggerConfig`)."""

    steps: int = 100
    """Batches of rollouts, each followed by `iterations` optimizer steps."""
    items_per_step: int = 8
    devices: int = 1
    """Processes, each with a device of its own, that share the items of a step."""
    group_size: int = 8
    """Rollouts of each item."""
    iterations: int = 1
    """Optimizer steps on each batch of rollouts; those after the first are what clipping is for."""
    loss: str = "bnpo"
    """How tokens (weaver) or decisions (trigger) are averaged: `grpo`, `bnpo`, `dr_grpo`
    (`memgen.training.reward.losses`)."""
    eps_low: float = 0.2
    eps_high: float = 0.2
    """The ratio of new to old probability is clipped to `1 - eps_low`, `1 + eps_high`."""
    temperature: float = 1.0
    max_new_tokens: int = 256
    """Most tokens of one turn."""
    rollout_batch_size: int = 64
    """Answers generated at once."""
    batch_size: int = 8
    """Turns read and differentiated at once; gradients of all are summed before a step."""
    learning_rate: float = 1e-4
    """Learning rate of the LoRA factors."""
    warmup_steps: int = 5
    """Optimizer steps in which the learning rates rise; then they stay, for the data change with the policy."""
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 0
    prompt_cache_bytes: int = 4_000_000_000
    """Memory allowed for the frozen base's caches of a step's prompts, shared by rollouts and training."""
    activation_checkpointing: bool = False
    """Keep only each layer's input and compute the rest again in the backward pass: less memory, more time."""

    _FOLLOWS: ClassVar[Mapping[str, str]] = {}
    """Fields that a subclass adds, each with the field that it follows in a mapping."""
    _ABOVE_ZERO: ClassVar[tuple[str, ...]] = ()
    _NOT_NEGATIVE: ClassVar[tuple[str, ...]] = ()

    def to_mapping(self) -> dict[str, Any]:
        values = super().to_mapping()
        names = [name for name in values if name not in self._FOLLOWS]
        for name, before in self._FOLLOWS.items():
            names.insert(names.index(before) + 1, name)
        return {name: values[name] for name in names}

    def __post_init__(self) -> None:
        for name in ("steps", "items_per_step", "iterations", "max_new_tokens", "rollout_batch_size", "batch_size"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; expected at least 1")
        require(self.group_size >= 2, f"group_size is {self.group_size}; expected at least 2, to compare rewards")
        require(
            1 <= self.devices <= self.items_per_step,
            f"devices is {self.devices}; expected 1 to items_per_step, {self.items_per_step}, for each plays an item",
        )
        require(self.loss in POLICY_LOSSES, f"loss is {self.loss!r}; expected one of {POLICY_LOSSES}")
        require(0 < self.eps_low < 1, f"eps_low is {self.eps_low}; expected more than 0 and less than 1")
        for name in self._ABOVE_ZERO:
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}; expected more than 0")
        for name in self._NOT_NEGATIVE:
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}; expected 0 or more")


@dataclass(frozen=True)
class GrpoConfig(RewardConfig):
    """One run of weaver GRPO. Defaults of the algorithm are those of TRL's `GRPOConfig`.

    The learning rates are a twentieth of SFT's, because a reward is a noisier teacher than a demonstration
    (research/method.md).
    """

    kl_coefficient: float = 0.0
    """Weight of the KL divergence from the memory as it was at the start; 0 does not compute it."""
    temperature: float = 1.0
    """Tokens are drawn from, and learned as, `softmax(logits / temperature)`."""
    trigger_temperature: float = 1.0
    """Temperature of a learned trigger's decisions. At 0 an untrained one never weaves, and its weaver can't learn."""
    query_learning_rate: float = 1e-4
    """Learning rate of everything else that weaver training changes."""

    _FOLLOWS: ClassVar[Mapping[str, str]] = {
        "kl_coefficient": "eps_high",
        "trigger_temperature": "temperature",
        "query_learning_rate": "learning_rate",
    }
    _ABOVE_ZERO = ("eps_high", "temperature", "learning_rate", "query_learning_rate", "max_grad_norm")
    _NOT_NEGATIVE = ("kl_coefficient", "trigger_temperature", "warmup_steps", "weight_decay", "prompt_cache_bytes")


@dataclass(frozen=True)
class TriggerConfig(RewardConfig):
    """One run of trigger GRPO."""

    steps: int = 60
    penalty: float = 0.1
    """Lambda, what a needless insertion costs in reward (`memgen.training.trigger.penalty`); 0 is no penalty."""
    entropy_coefficient: float = 0.0
    """Weight of the decisions' entropy (nats) in the objective; more than 0 keeps an early habit from setting."""
    temperature: float = 0.0
    """Temperature of the tokens. At 0 two rollouts of an item differ by their decisions alone, and so do their
    rewards."""
    batch_size: int = 32
    learning_rate: float = 2e-4
    """Learning rate of the LoRA factors (trigger `lora`). A much higher one may end in a trigger that
    never fires (research/method.md)."""
    head_learning_rate: float = 5e-4
    """Learning rate of the two-way head. A step may move the logits of all points together by twice this rate times the
    sum of the absolute values of a hidden state. With much more, a few early rewards settle it for good: a trigger that
    never hesitates draws no more experiments."""
    warmup_steps: int = 2

    _FOLLOWS: ClassVar[Mapping[str, str]] = {
        "penalty": "group_size",
        "entropy_coefficient": "penalty",
        "head_learning_rate": "learning_rate",
    }
    _ABOVE_ZERO = ("eps_high", "learning_rate", "head_learning_rate", "max_grad_norm")
    _NOT_NEGATIVE = (
        "penalty",
        "entropy_coefficient",
        "temperature",
        "warmup_steps",
        "weight_decay",
        "prompt_cache_bytes",
    )
