"""What a memory is and how it is trained: frozen values, checked when made."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from memgen.errors import ConfigError


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


class _FromMapping:
    """Builds the dataclass from a JSON object, refusing names it does not know."""

    @classmethod
    def from_mapping(cls, values: dict[str, Any]) -> Self:
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]  # every subclass is a dataclass
        unknown = sorted(set(values) - known)
        _require(not unknown, f"unknown {cls.__name__} fields {unknown}; known: {sorted(known)}")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    def to_mapping(self) -> dict[str, Any]:
        return asdict(self)  # type: ignore[call-overload, no-any-return]  # as above


FORMS = ("cache", "embedding")
TRIGGERS = ("always", "never", "lora", "head")


@dataclass(frozen=True)
class MemoryConfig(_FromMapping):
    """Shape of a memory. Two memories with equal configs can start from one another."""

    form: str = "cache"
    """What an insertion leaves in the reasoner's context: `cache`, keys and values; `embedding`, input embeddings."""
    trigger: str = "always"
    """Who decides at a decision point: `always`, `never`, `lora` (adapter and head), `head` (the base's state)."""
    latents: int = 8
    """K of the insertion at the prompt's end."""
    inference_latents: int = 8
    """K of an insertion while generating; these have queries of their own."""
    max_insertions: int = 0
    """How many insertions may follow the prompt's; 0 weaves at the prompt's end only."""
    delimiters: tuple[str, ...] = (",", ".", "\n")
    """Texts behind which memory may be woven. A point or comma behind a digit does not count (`memgen.delimiters`)."""
    rank: int = 16
    alpha: int = 32
    target_modules: tuple[str, ...] = ("q_proj", "v_proj")
    """Linear layers that carry the LoRA, of weaver and trigger."""
    weaver_base: str = ""
    """Form `embedding` only: another base that the weaver runs on; empty is the reasoner's own."""

    def __post_init__(self) -> None:
        _require(self.form in FORMS, f"memory form is {self.form!r}; expected one of {FORMS}")
        _require(self.trigger in TRIGGERS, f"trigger is {self.trigger!r}; expected one of {TRIGGERS}")
        for name in ("latents", "inference_latents"):
            _require(1 <= getattr(self, name) <= 256, f"{name} is {getattr(self, name)}; expected 1 to 256")
        _require(0 <= self.max_insertions <= 1000, f"max_insertions is {self.max_insertions}; expected 0 to 1000")
        _require(
            all(isinstance(d, str) and d for d in self.delimiters),
            f"delimiters are {self.delimiters!r}; expected texts that are not empty",
        )
        _require(1 <= self.rank <= 512, f"rank is {self.rank}; expected 1 to 512")
        _require(self.alpha >= 1, f"alpha is {self.alpha}; expected at least 1")
        _require(len(self.target_modules) > 0, "target_modules is empty; name at least one linear layer")
        _require(
            not self.weaver_base or self.form == "embedding",
            f"weaver_base is {self.weaver_base!r}, but form 'cache' weaves in the reasoner's own cache; use form "
            "'embedding' or leave weaver_base empty",
        )


@dataclass(frozen=True)
class TrainingConfig(_FromMapping):
    """One run of weaver SFT. The defaults were measured on the 135M base (docs/method.md)."""

    steps: int = 150
    """Optimizer steps."""
    batch_size: int = 8
    learning_rate: float = 4e-3
    """Of the LoRA factors."""
    query_learning_rate: float = 4e-3
    """Of the query latents and their scale."""
    warmup_steps: int = 10
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 0
    max_example_tokens: int = 1024
    """Longer examples are skipped and counted."""
    prefix_cache_bytes: int = 4_000_000_000
    """Memory allowed for the frozen base's caches of prompts, kept for all epochs."""
    activation_checkpointing: bool = False
    """Keep only each layer's input and compute the rest again in the backward pass: less memory, more time."""

    def __post_init__(self) -> None:
        _require(self.steps >= 1, f"steps is {self.steps}; expected at least 1")
        _require(self.batch_size >= 1, f"batch_size is {self.batch_size}; expected at least 1")
        for name in ("learning_rate", "query_learning_rate", "max_grad_norm"):
            _require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}; expected more than 0")
        _require(self.warmup_steps >= 0, f"warmup_steps is {self.warmup_steps}; expected 0 or more")
        _require(self.max_example_tokens >= 8, f"max_example_tokens is {self.max_example_tokens}; expected 8+")
        _require(self.prefix_cache_bytes >= 0, "prefix_cache_bytes is negative; 0 turns the cache off")
