"""Generation with memory woven in: one static batch, each row with its own memory version or none.

A prompt is encoded by the bare base up to its last token; the memories of the rows put their latents there; the last
prompt token and the answer follow. No token is encoded twice. Rows that end leave the batch once half of it is done.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from memgen.errors import PromptTooLong
from memgen.kv_cache import SlotCache, encode_prefixes
from memgen.sampling import Sampling, next_token
from memgen.weaver import AdapterHost


@dataclass(frozen=True)
class GenerationRequest:
    prompt_ids: tuple[int, ...]
    sampling: Sampling = field(default_factory=Sampling)
    memory: str | None = None
    """Name of a memory loaded in the host; None is the bare base."""


@dataclass(frozen=True)
class Insertion:
    """Memory woven in front of the prompt token at `position` (0-based, counting prompt tokens)."""

    position: int
    latents: int


@dataclass(frozen=True)
class Generation:
    token_ids: tuple[int, ...]
    """Without the token that ended the answer."""
    text: str
    finish_reason: str
    """`stop` (end of turn or stop string) or `length`."""
    insertions: tuple[Insertion, ...]
    prompt_tokens: int
    seconds: float


@dataclass
class _Row:
    number: int
    request: GenerationRequest
    generator: torch.Generator | None
    token: int
    tokens: list[int] = field(default_factory=list)
    insertions: tuple[Insertion, ...] = ()
    finish_reason: str | None = None


@torch.inference_mode()
def generate(host: AdapterHost, requests: Sequence[GenerationRequest]) -> list[Generation]:
    """Answer a batch of requests.

    Raises:
        PromptTooLong: prompt, latents and answer of a request exceed the model's context.
    """
    started = time.perf_counter()
    for request in requests:
        check_fits(host, request)
    rows = [_Row(n, r, _generator(r.sampling), r.prompt_ids[-1]) for n, r in enumerate(requests)]
    cache = encode_prefixes(host.backbone, [r.prompt_ids[:-1] for r in requests])
    weave_rows(host, cache, [r.memory for r in requests])
    for row in rows:
        if row.request.memory is not None:
            latents = host.memories[row.request.memory].config.latents
            row.insertions = (Insertion(len(row.request.prompt_ids) - 1, latents),)
    _decode(host, cache, rows)
    return [_result(host, row, time.perf_counter() - started) for row in rows]


def generate_all(
    host: AdapterHost,
    requests: Sequence[GenerationRequest],
    *,
    batch_size: int = 16,
    on_done: Callable[[int], None] | None = None,
) -> list[Generation]:
    """Answer any number of requests in batches of similar length; results in the order of `requests`."""
    order = sorted(range(len(requests)), key=lambda n: len(requests[n].prompt_ids))
    results: dict[int, Generation] = {}
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        results.update(zip(batch, generate(host, [requests[n] for n in batch]), strict=True))
        if on_done:
            on_done(len(results))
    return [results[n] for n in range(len(requests))]


def weave_rows(host: AdapterHost, cache: SlotCache, memories: Sequence[str | None]) -> None:
    """Put each row's memory into its cache. Rows without memory keep every token where it was.

    Rows of one memory are woven together. Differentiable in the memories' parameters.
    """
    for name in dict.fromkeys(m for m in memories if m is not None):
        memory = host.memories[name]
        indices = [n for n, m in enumerate(memories) if m == name]
        group = cache.rows(indices)
        host.weave(memory, group.kv, group.mask, group.positions)
        cache.append(indices, group.last(memory.config.latents), memory.config.latents)


def check_fits(host: AdapterHost, request: GenerationRequest) -> None:
    """Raise PromptTooLong unless prompt, latents and answer fit the model's context."""
    latents = host.memories[request.memory].config.latents if request.memory is not None else 0
    needed = len(request.prompt_ids) + latents + request.sampling.max_new_tokens
    if needed > host.backbone.max_tokens:
        raise PromptTooLong(
            f"the prompt has {len(request.prompt_ids)} tokens; with {latents} latents and "
            f"{request.sampling.max_new_tokens} new tokens that is {needed}, more than the model's "
            f"{host.backbone.max_tokens}. Shorten the messages or lower max_tokens."
        )


def _decode(host: AdapterHost, cache: SlotCache, rows: list[_Row]) -> None:
    """Decode greedily or by sampling until every row has finished."""
    model = host.backbone.model
    stops = host.backbone.stop_token_ids
    active = rows
    while active:
        mask, positions = cache.forward_inputs(1)
        ids = torch.tensor([[row.token] for row in active], device=host.backbone.device)
        logits: Tensor = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache.kv,
            use_cache=True,
        ).logits[:, -1]
        cache.mark_used(1)
        for row, row_logits in zip(active, logits, strict=True):
            if row.finish_reason is None:
                _advance(host, row, next_token(row_logits, row.request.sampling, row.generator), stops)
        going = [n for n, row in enumerate(active) if row.finish_reason is None]
        if len(going) <= len(active) // 2:
            if going:
                cache = cache.rows(going)
            active = [active[n] for n in going]


def _advance(host: AdapterHost, row: _Row, token: int, stops: frozenset[int]) -> None:
    row.token = token
    if token in stops:
        row.finish_reason = "stop"
        return
    row.tokens.append(token)
    sampling = row.request.sampling
    if sampling.stop:
        # A stop string can begin inside an earlier token, so a tail long enough to hold it is read.
        tail = str(host.backbone.tokenizer.decode(row.tokens[-2 - max(map(len, sampling.stop)) :]))
        if any(stop in tail for stop in sampling.stop):
            row.finish_reason = "stop"
            return
    if len(row.tokens) >= sampling.max_new_tokens:
        row.finish_reason = "length"


def _result(host: AdapterHost, row: _Row, seconds: float) -> Generation:
    text = str(host.backbone.tokenizer.decode(row.tokens, skip_special_tokens=True))
    cuts = [text.index(stop) for stop in row.request.sampling.stop if stop in text]
    return Generation(
        token_ids=tuple(row.tokens),
        text=text[: min(cuts)] if cuts else text,
        finish_reason=row.finish_reason or "length",
        insertions=row.insertions,
        prompt_tokens=len(row.request.prompt_ids),
        seconds=seconds,
    )


def _generator(sampling: Sampling) -> torch.Generator | None:
    if sampling.temperature == 0.0:
        return None
    generator = torch.Generator()
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed)
    return generator
