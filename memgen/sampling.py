"""From logits to the next token. Pure functions; each row draws from its own generator."""

from dataclasses import dataclass

import torch
from torch import Tensor

from memgen.errors import ConfigError


@dataclass(frozen=True)
class Sampling:
    """How one answer is drawn. Temperature 0 is greedy."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens is {self.max_new_tokens}; expected at least 1")
        if self.temperature < 0:
            raise ConfigError(f"temperature is {self.temperature}; expected 0 or more")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}; expected more than 0 and at most 1")


def next_token(logits: Tensor, sampling: Sampling, generator: torch.Generator | None) -> int:
    """Choose a token from the logits `(V,)` of one row."""
    if sampling.temperature == 0.0:
        return int(logits.argmax())
    probabilities = nucleus(torch.softmax(logits.float() / sampling.temperature, dim=-1), sampling.top_p)
    return int(torch.multinomial(probabilities.cpu(), 1, generator=generator))


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Keep the smallest set of most likely tokens whose mass reaches `top_p`; `(V,)`, renormalised.

    For `[0.5, 0.3, 0.2]` and `top_p=0.6`: `[0.625, 0.375, 0]`.
    """
    if top_p >= 1.0:
        return probabilities
    ordered, order = probabilities.sort(descending=True)
    before = ordered.cumsum(dim=-1) - ordered
    ordered = ordered.masked_fill(before >= top_p, 0.0)
    kept = torch.zeros_like(probabilities).scatter(0, order, ordered)
    return kept / kept.sum()
