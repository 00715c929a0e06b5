"""How an answer is drawn: its settings, and pure functions from logits to distributions and decisions.

`memgen.generation.draws` puts them together for the rows of a batch.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from memgen.errors import ConfigError
from memgen.text.answer_grammars import Constraint

_SEEDS = range(-(2**63), 2**64)
"""Seeds that `torch.Generator.manual_seed` takes."""


@dataclass(frozen=True)
class Sampling:
    """How one answer is drawn. Temperature 0 is greedy.

    Raises:
        ConfigError: a value is outside its range.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    """Texts that end the answer; they are not part of it."""
    seed: int | None = None
    """Seed of all draws; None draws anew each time. With a seed, as with temperature 0, an answer repeats in float32,
    and in bfloat16 if its batch and what is known of its prompt are the same."""
    _: KW_ONLY
    top_k: int = 0
    """0 is off."""
    repetition_penalty: float = 1.0
    """Applies to tokens in the prompt and the answer so far; 1 is off, more than 1 makes them less likely."""
    logprobs: bool = False
    """Report the log probability of each token."""
    logprob_temperature: float = 1.0
    """Log probabilities are those of `softmax(logits / logprob_temperature)`; 1 is the model itself."""
    trigger_temperature: float = 0.0
    """Temperature of the decisions to weave memory; 0 takes the likelier one."""
    frequency_penalty: float = 0.0
    """Taken from a token's logit for each time that it stands in the answer so far; 0 is off."""
    presence_penalty: float = 0.0
    """Taken from the logit of each token that stands in the answer so far; 0 is off."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """(token id, what is added to its logit) each."""
    top_logprobs: int = 0
    """With `logprobs`, report so many of the likeliest tokens at each place too."""
    min_tokens: int = 0
    """No end token is drawn before the answer has so many tokens, and no stop string among them ends it."""
    constraint: Constraint | None = None
    """What the answer must be; None leaves it free."""
    record: bool = False
    """Keep how each token was drawn, the end token too: `Generation.drawn`."""

    def __post_init__(self) -> None:
        _require(self.max_new_tokens >= 1, "max_new_tokens", self.max_new_tokens, "at least 1")
        for name in ("temperature", "trigger_temperature"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value >= 0, name, value, "0 or more")
        _require(0 < self.top_p <= 1, "top_p", self.top_p, "more than 0 and at most 1")
        _require(self.top_k >= 0, "top_k", self.top_k, "0 (off) or more")
        heat = self.logprob_temperature
        _require(math.isfinite(heat) and heat > 0, "logprob_temperature", heat, "more than 0 (1 is the model itself)")
        penalty = self.repetition_penalty
        _require(math.isfinite(penalty) and penalty > 0, "repetition_penalty", penalty, "more than 0 (1 is off)")
        for name in ("frequency_penalty", "presence_penalty"):
            _require(math.isfinite(getattr(self, name)), name, getattr(self, name), "a finite number (0 is off)")
        for token, bias in self.logit_bias:
            _require(token >= 0 and math.isfinite(bias), "logit_bias", (token, bias), "token ids and finite numbers")
        _require(self.top_logprobs >= 0, "top_logprobs", self.top_logprobs, "0 (none) or more")
        _require(self.logprobs or not self.top_logprobs, "top_logprobs", self.top_logprobs, "0 without logprobs")
        tokens = self.min_tokens
        _require(0 <= tokens <= self.max_new_tokens, "min_tokens", tokens, "0 to max_new_tokens")
        _require(isinstance(self.stop, tuple) and all(self.stop), "stop", self.stop, "a tuple of texts, none empty")
        _require(self.seed is None or self.seed in _SEEDS, "seed", self.seed, "-2**63 to 2**64 - 1, or None")

    @property
    def is_neutral(self) -> bool:
        """Whether tokens are drawn from the model's own distribution."""
        moved = self.logit_bias or self.top_k or self.min_tokens or self.frequency_penalty or self.presence_penalty
        return (
            not moved
            and self.constraint is None
            and (self.temperature, self.top_p, self.repetition_penalty) == (1.0, 1.0, 1.0)
        )


def _require(condition: bool, name: str, value: object, expected: str) -> None:
    if not condition:
        raise ConfigError(f"{name} is {value!r}; expected {expected}")


def make_generator(sampling: Sampling) -> torch.Generator | None:
    """The generator (CPU) that one answer draws from; None if nothing is drawn."""
    if sampling.temperature == 0.0 and sampling.trigger_temperature == 0.0:
        return None
    generator = torch.Generator()
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed)
    return generator


def decide(logits: Tensor, trigger_temperature: float, generator: torch.Generator | None) -> tuple[bool, float]:
    """Whether to weave memory, from a trigger's logits `(2,)`: SKIP, INVOKE.

    At temperature 0 the likelier one, SKIP if they are equal. Otherwise INVOKE is drawn with the probability
    `softmax(logits / trigger_temperature)[1]`.

    Returns:
        The decision, and `softmax(logits)[1]` whatever the temperature. For `[0, log 3]`: `(True, 0.75)` at
        temperature 0; at temperature 1 true three times in four.

    Raises:
        ConfigError: a temperature above 0 without a generator.
    """
    skip, invoke = logits.tolist()
    margin = invoke - skip
    probability = _sigmoid(margin)
    if trigger_temperature == 0.0:
        return margin > 0, probability
    return uniform(generator) < _sigmoid(margin / trigger_temperature), probability


def apply_repetition_penalty(logits: Tensor, token_ids: Collection[int], penalty: float) -> Tensor:
    """Make tokens that were seen less likely (`penalty` above 1) or more; `(V,)`, a new tensor.

    A positive logit is divided by the penalty and a negative one multiplied, once however often the token was seen.
    Ids outside the vocabulary are passed over. A finite logit stays finite, however small the penalty: two infinite
    ones would make a softmax NaN. For `[2, -2, 2]`, seen `[0, 1, 0]`, penalty 2: `[1, -4, 2]`.

    Source: CTRL (Keskar et al., 2019), section 4.1, as in `transformers.RepetitionPenaltyLogitsProcessor`.
    """
    ids = torch.tensor([i for i in set(token_ids) if i < len(logits)], dtype=torch.long, device=logits.device)
    seen, bounds = logits[ids], torch.finfo(logits.dtype)
    moved = torch.where(seen < 0, seen * min(penalty, bounds.max), seen / max(penalty, bounds.tiny))
    finite = moved.clamp(bounds.min, bounds.max)
    return logits.index_put((ids,), torch.where(seen.isinf(), seen, finite))


def apply_count_penalties(logits: Tensor, counts: Tensor, frequency: Tensor, presence: Tensor) -> Tensor:
    """Make tokens that stand in the answers so far less likely; `(B, V)`, a new tensor.

    Args:
        counts: `(B, V)`, how often each token does.
        frequency: `(B,)`, taken for each time.
        presence: `(B,)`, taken once.

    For `[2, 2, 2]`, counts `[3, 1, 0]`, frequency 0.5 and presence 1: `[-0.5, 0.5, 2]`.

    Source: OpenAI's API reference, "frequency and presence penalties".
    """
    return logits - frequency[:, None] * counts - presence[:, None] * (counts > 0)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Set all but the `k` largest logits `(V,)` to -inf; 0 keeps all. Ties with the k-th are kept.

    For `[1, 3, 2]` and `k=2`: `[-inf, 3, 2]`.
    """
    if k == 0 or k >= len(logits):
        return logits
    return logits.masked_fill(logits < logits.topk(k).values[-1], -math.inf)


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Keep the smallest set of most likely tokens whose mass reaches `top_p`; `(V,)`, renormalised.

    Of equally likely tokens the one with the smaller id comes first. For `[0.5, 0.3, 0.2]` and `top_p=0.6`:
    `[0.625, 0.375, 0]`.
    """
    if top_p >= 1.0:
        return probabilities
    # V tokens below (1 - top_p) / V have less mass than may be left out, so only the others need sorting: a few
    # hundred of 50,000, as a rule. The 2 keeps rounding on the safe side.
    candidates = (probabilities >= (1.0 - top_p) / (2 * len(probabilities))).nonzero().squeeze(1)
    ordered, order = probabilities[candidates].sort(descending=True, stable=True)
    before = ordered.cumsum(dim=-1) - ordered
    ordered = ordered.masked_fill(before >= top_p, 0.0)
    kept = torch.zeros_like(probabilities).scatter(0, candidates[order], ordered)
    return kept / kept.sum()


def draw(probabilities: Tensor, uniforms: Sequence[float]) -> Tensor:
    """Tokens `(B,)` at which the running sums of the probabilities `(B, V)` pass `uniforms`, each 0 to below 1.

    For `[0.25, 0, 0.75]`: 0 below 0.25, else 2; an impossible token never. `torch.multinomial` would draw a number per
    entry of the vocabulary, row by row and on the CPU.
    """
    sums = probabilities.cumsum(dim=-1, dtype=torch.float64)
    targets = sums.new_tensor(uniforms)[:, None] * sums[:, -1:]
    tokens = torch.searchsorted(sums, targets, right=True).squeeze(1)
    # NaN logits must not become an id outside the vocabulary: embedding it on CUDA ends the process.
    return tokens.clamp(max=probabilities.shape[1] - 1)


def probabilities(logits: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    """Distributions that rows draw from, `(B, V)`: temperature, top-k and top-p applied to the logits `(B, V)`."""
    smallest = torch.finfo(logits.dtype).tiny
    temperatures = logits.new_tensor([max(s.temperature, smallest) for s in samplings])
    # The largest logit becomes 0 first: divided by a tiny temperature it would be infinite, and softmax NaN.
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / temperatures[:, None]
    for row, sampling in zip(logits, samplings, strict=True):
        if sampling.top_k:
            row.copy_(keep_top_k(row, sampling.top_k))
    probabilities = torch.softmax(logits, dim=-1)
    for row, sampling in zip(probabilities, samplings, strict=True):
        if sampling.top_p < 1.0:
            row.copy_(nucleus(row, sampling.top_p))
    return probabilities


def uniform(generator: torch.Generator | None) -> float:
    if generator is None:
        raise ConfigError("a row that samples has no generator; expected one from make_generator(sampling)")
    return torch.rand((), dtype=torch.float64, generator=generator).item()


def _sigmoid(x: float) -> float:
    """1 / (1 + e^-x), without overflow and exact for small results."""
    return math.exp(min(x, 0.0)) / (1.0 + math.exp(-abs(x)))
