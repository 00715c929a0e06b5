"""Insertions: the weaver turns the reasoner's state into K latents (MemGen, section 3.3).

Form `cache`: the queries run with the weaver's LoRA over the reasoner's own cache, in front of the newest token, and
the keys and values they produce in every layer simply stay. There is no projection, because weaver and reasoner are
the same network. Nor is the context encoded again, unless `reread_tokens` asks for the prompt's last tokens:
their keys and values then stay in front of the queries'.

Form `embedding`, the public code's: the weaver has a stream of its own that reads the reasoner's input embeddings;
its last K hidden states, projected, enter the reasoner's context as input embeddings behind the newest token. The
stream keeps its cache, so each token is encoded once in it.

A row may have a cue, retrieved text that the weaver reads and the reasoner does not. Form `cache`: the queries see the
cue's own prefix, which the bare base has read, beside the row's cache. Form `embedding`: the cue's input embeddings
stand at the start of the weaver's stream. No trigger sees it.

Rows that weave as many tokens at the same time weave together, whatever memory each of them has. Prompts of unequal
lengths that are read again whole are parts of one pass.

The parts that this module makes are computed by `Decoder.forward_together`, which writes keys and values through
`memgen.backbone.kv_cache`. Training computes the same latents elsewhere, in one causal pass: `memgen.training.forward`,
for triggers `memgen.training.trigger.forward`, for form `embedding` `memgen.training.embedding_latents`. The golden
tests hold them to one another.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from memgen.backbone.decoder import DecoderPart
from memgen.backbone.kv_cache import Prefix, SlotCache, Window
from memgen.backbone.loading import Backbone
from memgen.backbone.lora import Lora, LoraTokens
from memgen.memory.cue_window import CuedWindow
from memgen.memory.host import AdapterHost
from memgen.memory.weights import Memory

_T = TypeVar("_T")
_K = TypeVar("_K", bound=Hashable)


def weave_into_cache(
    slots: SlotCache,
    rows: Sequence[int],
    memories: Sequence[Memory],
    cues: Sequence[Prefix | None],
    reread: Tensor,
    newest: Tensor,
    *,
    at_prompt_end: bool,
) -> DecoderPart:
    """Form `cache`: each row's queries over its cache and over its cue if it has one, then its newest token.

    Args:
        reread: `(R, W, H)`, prompt tokens that the weaver reads again in front of its queries; W may be 0.
        newest: `(R, 1, H)`, read by the bare base behind the latents, in the same pass.

    Returns:
        `W + _K + 1` tokens of each row. All `memories` must have the same K here.
    """
    queries = torch.stack([m.queries(at_prompt_end=at_prompt_end)() for m in memories]).to(newest.dtype)
    woven = torch.cat([reread, queries], dim=1)
    count = woven.shape[1]
    lora = LoraTokens.by_row([m.weaver for m in memories], count + 1, newest.device, adapted=count)
    window: Window = slots.window(rows, count + 1)
    if any(cue is not None for cue in cues):
        readers = torch.ones_like(window.positions, dtype=torch.bool)
        readers[:, count:] = False
        window = CuedWindow(window, cues, readers)
    return DecoderPart(torch.cat([woven, newest], dim=1), window, lora)


class Streams:
    """What the memories of form `embedding` read beside the reasoner, for the rows of one batch.

    Each row has a list of input embeddings that its weaver has not read yet, and the token ids that its trigger has
    not. Both streams are caches under an adapter of the row's own, so they hold for that memory only.
    """

    def __init__(self, host: AdapterHost, memories: Sequence[Memory | None]) -> None:
        self._host = host
        self._memories = list(memories)
        self._unread: list[list[Tensor]] = [[] for _ in memories]
        self._unread_ids: list[list[int]] = [[] for _ in memories]
        self._weavers: dict[str, SlotCache] = {}
        self._triggers: SlotCache | None = None

    def add_cue(self, row: int, ids: Sequence[int]) -> None:
        """Note tokens that the weaver alone reads."""
        self._unread[row].append(self._embed(ids))

    def add_tokens(self, row: int, ids: Sequence[int]) -> None:
        """Note tokens that the reasoner reads."""
        self._unread[row].append(self._embed(ids))
        self._unread_ids[row].extend(ids)

    def add_latents(self, row: int, latents: Tensor) -> None:
        """Note latents `(_K, H)` that the reasoner reads."""
        self._unread[row].append(latents)

    def weave(self, rows: Sequence[int], *, at_prompt_end: bool) -> list[Tensor]:
        """Latents `(_K, H)` for each row, as input embeddings of the reasoner."""
        latents: dict[int, Tensor] = {}
        for base, some in grouped(rows, lambda row: self._weaver_base(row).name).items():
            cache = self._weavers.get(base)
            if cache is None:
                cache = SlotCache(self._weaver_base(some[0]).decoder.kv_shape, len(self._memories))
                self._weavers[base] = cache
            latents.update(zip(some, self._weave_on(cache, some, at_prompt_end), strict=True))
        return [latents[row] for row in rows]

    def trigger_states(self, rows: Sequence[int]) -> list[Tensor]:
        """The trigger's last hidden state `(H,)` at the newest token of each row."""
        decoder = self._host.backbone.decoder
        if self._triggers is None:
            self._triggers = SlotCache(decoder.kv_shape, len(self._memories))
        embeds = [decoder.embed(torch.tensor(self._unread_ids[row], device=decoder.kv_shape.device)) for row in rows]
        loras = [_required(self._memory(row).trigger) for row in rows]
        hidden = _read(self._host.backbone, self._triggers, rows, embeds, loras)
        counts = [len(part) for part in embeds]
        self._triggers.advance(rows, counts)
        for row in rows:
            self._unread_ids[row].clear()
        return [states[count - 1] for states, count in zip(hidden, counts, strict=True)]

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these."""
        for cache in [*self._weavers.values(), *([self._triggers] if self._triggers else [])]:
            cache.keep(rows)
        self._memories = [self._memories[row] for row in rows]
        self._unread = [self._unread[row] for row in rows]
        self._unread_ids = [self._unread_ids[row] for row in rows]

    def _weave_on(self, cache: SlotCache, rows: Sequence[int], at_prompt_end: bool) -> list[Tensor]:
        base = self._weaver_base(rows[0])
        contexts, queries = [], []
        for row in rows:
            memory = self._memory(row)
            context = torch.cat(self._unread[row]).to(memory.reasoner_to_weaver.weight.dtype)
            contexts.append(memory.reasoner_to_weaver(context))
            queries.append(memory.queries(at_prompt_end=at_prompt_end)())
        embeds = [torch.cat(parts) for parts in zip(contexts, queries, strict=True)]
        hidden = _read(base, cache, rows, embeds, [self._memory(row).weaver for row in rows])
        # The queries are temporary: only what the reasoner reads stays in the stream.
        cache.advance(rows, [len(context) for context in contexts])
        latents = []
        for row, context, query, states in zip(rows, contexts, queries, hidden, strict=True):
            self._unread[row].clear()
            memory = self._memory(row)
            woven = memory.weaver_to_reasoner(states[len(context) : len(context) + len(query)].float())
            latents.append(woven.to(self._host.backbone.decoder.kv_shape.dtype))
        return latents

    def _embed(self, ids: Sequence[int]) -> Tensor:
        decoder = self._host.backbone.decoder
        return decoder.embed(torch.tensor([ids], device=decoder.kv_shape.device))[0]

    def _memory(self, row: int) -> Memory:
        return _required(self._memories[row])

    def _weaver_base(self, row: int) -> Backbone:
        return self._host.weaver_base(self._memory(row).config)


def _read(
    base: Backbone, cache: SlotCache, rows: Sequence[int], embeds: Sequence[Tensor], loras: Sequence[Lora]
) -> Tensor:
    """Hidden states `(R, N, H)` of unequal numbers of embeddings `(n, H)` behind each row's cache, right-padded."""
    width = max(len(part) for part in embeds)
    batch = embeds[0].new_zeros(len(embeds), width, embeds[0].shape[1])
    for number, part in enumerate(embeds):
        batch[number, : len(part)] = part
    shape = base.decoder.kv_shape
    adapters = LoraTokens.by_row(loras, width, shape.device)
    return base.decoder.forward(batch.to(shape.dtype), cache.window(rows, width), adapters)


def grouped(items: Iterable[_T], key: Callable[[_T], _K]) -> dict[_K, list[_T]]:
    """Items by key, in order of first appearance."""
    groups: dict[_K, list[_T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def _required(value: _T | None) -> _T:
    if value is None:
        raise RuntimeError("a row without memory, or without a learned trigger, can neither weave nor decide")
    return value
