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


@dataclass(frozen=True)
class MemoryConfig(_FromMapping):
    """Shape of a memory. Two memories with equal configs can start from one another."""

    form: str = "cache"
    insertion: str = "prompt_end"
    trigger: str = "always"
    latents: int = 8
    """K, latent tokens per insertion."""
    rank: int = 16
    alpha: int = 32
    target_modules: tuple[str, ...] = ("q_proj", "v_proj")

    def __post_init__(self) -> None:
        _require(self.form == "cache", f"memory form {self.form!r} is not built; expected 'cache'")
        _require(
            self.insertion == "prompt_end",
            f"insertion {self.insertion!r} is not built; expected 'prompt_end'",
        )
        _require(self.trigger == "always", f"trigger {self.trigger!r} is not built; expected 'always'")
        _require(1 <= self.latents <= 256, f"latents is {self.latents}; expected 1 to 256")
        _require(1 <= self.rank <= 512, f"rank is {self.rank}; expected 1 to 512")
        _require(self.alpha >= 1, f"alpha is {self.alpha}; expected at least 1")
        _require(len(self.target_modules) > 0, "target_modules is empty; name at least one linear layer")


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

    def __post_init__(self) -> None:
        _require(self.steps >= 1, f"steps is {self.steps}; expected at least 1")
        _require(self.batch_size >= 1, f"batch_size is {self.batch_size}; expected at least 1")
        for name in ("learning_rate", "query_learning_rate", "max_grad_norm"):
            _require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}; expected more than 0")
        _require(self.warmup_steps >= 0, f"warmup_steps is {self.warmup_steps}; expected 0 or more")
        _require(self.max_example_tokens >= 8, f"max_example_tokens is {self.max_example_tokens}; expected 8+")
        _require(self.prefix_cache_bytes >= 0, "prefix_cache_bytes is negative; 0 turns the cache off")
