"""How the rows of a batch choose their next tokens.

Each row draws from a generator of its own, one number a token, so what is drawn does not depend on the batch around it.
What it is drawn from does, a little, in bfloat16: logits are rounded otherwise in other company, or behind a prompt
that was read before, and where two tokens are nearly equal the answer may turn, greedy ones too.

Order of work: bias, repetition penalty, frequency and presence penalties, end tokens that come too early, what the
constraint allows; then, as in `transformers`, temperature, top-k, top-p. A row pays for what it uses only.
"""

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from memgen.generation.constraints import Matcher
from memgen.generation.sampling import (
    Sampling,
    apply_count_penalties,
    apply_repetition_penalty,
    draw,
    make_generator,
    probabilities,
    uniform,
)


class Alternative(NamedTuple):
    """A token that could have stood at a place, and its log probability."""

    token: int
    logprob: float


class Chosen(NamedTuple):
    """A row's next token."""

    token: int
    logprob: float | None
    """Natural, under the model itself: of the logits in float32 over `logprob_temperature`, before bias, penalties,
    constraint, temperature, top-k and top-p. None where it was not requested."""
    alternatives: tuple[Alternative, ...] = ()
    """As many as `top_logprobs` of the likeliest tokens under the model itself, likeliest first."""
    drawn_logprob: float | None = None
    """Natural, under the distribution that the token was drawn from. None where that is the model's own, where nothing
    was drawn (temperature 0), and where it is not to be recorded."""


class Draws:
    """What one row chooses its tokens by, and what of its answer so far counts for that."""

    def __init__(
        self,
        sampling: Sampling,
        prompt_ids: Sequence[int] = (),
        *,
        stops: Collection[int] = (),
        matcher: Matcher | None = None,
    ) -> None:
        """
        Args:
            stops: the tokens that end an answer.
            matcher: what holds the answer to `sampling.constraint`.
        """
        self.sampling = sampling
        self.generator = make_generator(sampling)
        self.matcher = matcher
        self._stops = list(stops)
        self._seen = set(prompt_ids) if sampling.repetition_penalty != 1.0 else None
        self._counts: Tensor | None = None
        self._bias: tuple[Tensor, Tensor] | None = None
        self._tokens = 0

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is the one that is chosen now."""
        free = self.matcher is None and not self.early
        return free and not self.weighs and not self.counts_tokens and self.sampling.temperature == 0.0

    @property
    def failed(self) -> bool:
        """Whether the answer can't go on within its constraint, though it is not whole."""
        return self.matcher is not None and self.matcher.failed

    @property
    def weighs(self) -> bool:
        """Whether a bias or the repetition penalty moves its logits."""
        return bool(self.sampling.logit_bias) or self.sampling.repetition_penalty != 1.0

    @property
    def counts_tokens(self) -> bool:
        return self.sampling.frequency_penalty != 0.0 or self.sampling.presence_penalty != 0.0

    @property
    def early(self) -> bool:
        """Whether an end token would come too early."""
        return self._tokens < self.sampling.min_tokens

    def weigh(self, logits: Tensor) -> Tensor:
        """The logits `(V,)` with bias and repetition penalty."""
        if self.sampling.logit_bias:
            if self._bias is None:
                inside = [(token, bias) for token, bias in self.sampling.logit_bias if token < len(logits)]
                ids = torch.tensor([token for token, _ in inside], dtype=torch.long, device=logits.device)
                self._bias = ids, logits.new_tensor([bias for _, bias in inside])
            logits = logits.index_add(0, *self._bias)
        if self._seen is not None:
            logits = apply_repetition_penalty(logits, self._seen, self.sampling.repetition_penalty)
        return logits

    def counts(self, logits: Tensor) -> Tensor:
        """How often each token stands in the answer so far, `(V,)`."""
        if self._counts is None:
            self._counts = torch.zeros_like(logits)
        return self._counts

    def close_ends(self, logits: Tensor) -> None:
        """Write -inf over the logits `(V,)` of end tokens."""
        logits[self._stops] = -math.inf

    def take(self, token: int) -> None:
        """Count the token that was chosen."""
        self._tokens += 1
        if self._seen is not None:
            self._seen.add(token)
        if self._counts is not None:
            self._counts[token] += 1
        if self.matcher is not None:
            self.matcher.take(token)


def choose(logits: Tensor, rows: Sequence[Draws]) -> list[Chosen]:
    """Choose a token for each row of the logits `(B, V)`, any float type, and count it.

    All rows are chosen together and read back from the device once. Rows with a repetition penalty, top-k or top-p
    cost work of their own, rows that only have a temperature are drawn as one.

    Raises:
        ConfigError: a row that samples has no generator.
    """
    # The first of the largest, as by argmax, which is several times slower in bfloat16 on a CPU.
    chosen = logits.max(dim=-1).indices
    changed = [n for n, row in enumerate(rows) if not row.greedy]
    drawn: dict[int, float] = {}
    if changed:
        chosen[changed], known = _chosen(logits[changed].float(), [rows[n] for n in changed])
        drawn = {changed[place]: value for place, value in known.items()}
    tokens = chosen.tolist()
    reports = _logprobs(logits, chosen, rows)
    for row, token in zip(rows, tokens, strict=True):
        row.take(token)
    unknown: tuple[None, tuple[Alternative, ...]] = (None, ())
    found = [reports.get(n, unknown) for n in range(len(tokens))]
    return [Chosen(token, found[n][0], found[n][1], drawn.get(n)) for n, token in enumerate(tokens)]


def _chosen(logits: Tensor, rows: Sequence[Draws]) -> tuple[Tensor, dict[int, float]]:
    """Tokens `(B,)` of rows that are not simply greedy, and by place the log probabilities that some were drawn with,
    which are to be recorded and not the model's own. Writes over the logits `(B, V)`, float32."""
    for row, own in zip(logits, rows, strict=True):
        if own.weighs:
            row.copy_(own.weigh(row))
    counting = [n for n, row in enumerate(rows) if row.counts_tokens]
    if counting:
        counts = torch.stack([rows[n].counts(logits[n]) for n in counting])
        samplings = [rows[n].sampling for n in counting]
        frequency = logits.new_tensor([s.frequency_penalty for s in samplings])
        presence = logits.new_tensor([s.presence_penalty for s in samplings])
        logits[counting] = apply_count_penalties(logits[counting], counts, frequency, presence)
    _restrict(logits, rows)
    chosen = logits.argmax(dim=-1)
    drawn = [n for n, row in enumerate(rows) if row.sampling.temperature > 0]
    if drawn:
        distributions = probabilities(logits[drawn], [rows[n].sampling for n in drawn])
        chosen[drawn] = draw(distributions, [uniform(rows[n].generator) for n in drawn])
        return chosen, _drawn_logprobs(distributions, chosen, rows, drawn)
    return chosen, {}


def _drawn_logprobs(
    distributions: Tensor, chosen: Tensor, rows: Sequence[Draws], drawn: Sequence[int]
) -> dict[int, float]:
    """Log probabilities `distributions` (a row for each of `drawn`) give the tokens chosen, where it is recorded."""
    samplings = [rows[n].sampling for n in drawn]
    recorded = [(place, drawn[place]) for place, one in enumerate(samplings) if one.record and not one.is_neutral]
    if not recorded:
        return {}
    places, numbers = [place for place, _ in recorded], [n for _, n in recorded]
    mass = distributions[places]
    shares = mass.gather(1, chosen[numbers, None]).squeeze(1) / mass.sum(dim=-1)
    return dict(zip(numbers, shares.double().log().tolist(), strict=True))


def _restrict(logits: Tensor, rows: Sequence[Draws]) -> None:
    """Write -inf over the logits of tokens that can't come next: ends too early, and what a constraint forbids.

    An end that comes too early stands where the constraint allows nothing else.
    """
    held = [n for n, row in enumerate(rows) if row.matcher is not None]
    if held:
        forbidden = torch.stack([matcher.forbidden(logits.shape[1]) for n in held if (matcher := rows[n].matcher)])
        logits[held] = logits[held].masked_fill(forbidden.to(logits.device), -math.inf)
    for n, row in enumerate(rows):
        if not row.early:
            continue
        before = logits[n].clone()
        row.close_ends(logits[n])
        if row.matcher is not None and bool(logits[n].isneginf().all()):
            logits[n] = before


def _logprobs(
    logits: Tensor, chosen: Tensor, rows: Sequence[Draws]
) -> dict[int, tuple[float, tuple[Alternative, ...]]]:
    """Log probability and alternatives of each row that reports them, by its place."""
    reporting = [n for n, row in enumerate(rows) if row.sampling.logprobs or row.sampling.record]
    if not reporting:
        return {}
    scales = torch.tensor([rows[n].sampling.logprob_temperature for n in reporting], device=logits.device)
    of_all = torch.log_softmax(logits[reporting].float() / scales[:, None], dim=-1)
    values = of_all.gather(1, chosen[reporting, None]).squeeze(1).tolist()
    most = min(max(rows[n].sampling.top_logprobs for n in reporting), logits.shape[1])
    reports: dict[int, tuple[float, tuple[Alternative, ...]]] = {
        n: (v, ()) for n, v in zip(reporting, values, strict=True)
    }
    if most:
        top = of_all.topk(most, dim=-1)
        for n, value, ids, found in zip(reporting, values, top.indices.tolist(), top.values.tolist(), strict=True):
            shown = rows[n].sampling.top_logprobs
            reports[n] = value, tuple(map(Alternative, ids[:shown], found[:shown]))
    return reports
