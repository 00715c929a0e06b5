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
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from memgen.backbone.decoder import Decoder, DecoderPart
from memgen.backbone.kv_cache import Prefix, SlotCache, Window
from memgen.backbone.loading import Backbone
from memgen.backbone.lora import Lora, LoraTokens
from memgen.backbone.row_caches import CacheRow, RowCaches
from memgen.memory.cue_window import CuedWindow
from memgen.memory.host import AdapterHost
from memgen.memory.weights import Memory

_T = TypeVar("_T")
_K = TypeVar("_K", bound=Hashable)


def weave_into_cache(
    slots: SlotCache,
    places: Sequence[int],
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
    window: Window = slots.window(places, count + 1)
    if any(cue is not None for cue in cues):
        readers = torch.ones_like(window.positions, dtype=torch.bool)
        readers[:, count:] = False
        window = CuedWindow(window, cues, readers)
    return DecoderPart(torch.cat([woven, newest], dim=1), window, lora)


@dataclass
class _RowStream:
    """What one row's memory reads beside the reasoner."""

    memory: Memory
    unread: list[Tensor] = field(default_factory=list)
    """Input embeddings `(n, H)` that the weaver has not read yet."""
    unread_ids: list[int] = field(default_factory=list)
    """Token ids that the trigger has not read yet."""
    weaver: CacheRow | None = None
    trigger: CacheRow | None = None


class Streams:
    """What the memories of form `embedding` read beside the reasoner, for rows that join and leave.

    Each row has a list of input embeddings that its weaver has not read yet, and the token ids that its trigger has
    not. Both streams are caches under an adapter of the row's own, so they hold for that memory only.
    """

    def __init__(self, host: AdapterHost, most_bytes: int | None = None) -> None:
        """`most_bytes` as `RowCaches` takes it, for each of the caches."""
        self._host = host
        self._most_bytes = most_bytes
        self._streams: dict[int, _RowStream] = {}
        self._weavers: dict[str, RowCaches] = {}
        self._triggers = RowCaches(host.backbone.decoder.kv_shape, most_bytes)

    @property
    def bytes(self) -> int:
        """What the caches of all streams hold."""
        return self._triggers.bytes + sum(caches.bytes for caches in self._weavers.values())

    def open(self, row: int, memory: Memory) -> None:
        """Begin the streams of a row, by any number that is not in use."""
        self._streams[row] = _RowStream(memory)

    def close(self, row: int) -> None:
        """Drop a row's streams, if it has any."""
        stream = self._streams.pop(row, None)
        if stream is not None and stream.weaver is not None:
            self._weavers[self._weaver_base(stream).name].close(stream.weaver)
        if stream is not None and stream.trigger is not None:
            self._triggers.close(stream.trigger)

    def add_cue(self, row: int, ids: Sequence[int]) -> None:
        """Note tokens that the weaver alone reads."""
        self._streams[row].unread.append(self._embed(ids))

    def add_tokens(self, row: int, ids: Sequence[int]) -> None:
        """Note tokens that the reasoner reads."""
        self._streams[row].unread.append(self._embed(ids))
        self._streams[row].unread_ids.extend(ids)

    def add_latents(self, row: int, latents: Tensor) -> None:
        """Note latents `(_K, H)` that the reasoner reads."""
        self._streams[row].unread.append(latents)

    def behind(self, row: int) -> int:
        """Tokens that the streams are sure to read before the row's next decision is carried out."""
        stream = self._streams[row]
        weaver = sum(map(len, stream.unread)) if stream.memory.decides == "always" else 0
        return max(weaver, len(stream.unread_ids) if stream.memory.decides == "lora" else 0)

    def catch_up(self, row: int, most: int) -> None:
        """Read so many of the tokens that the streams are behind by."""
        stream = self._streams[row]
        if stream.memory.decides == "lora":
            ids, stream.unread_ids = stream.unread_ids[:most], stream.unread_ids[most:]
            stream.trigger = stream.trigger or self._triggers.open(len(ids) + len(stream.unread_ids))
            decoder = self._host.backbone.decoder
            embeds = decoder.embed(torch.tensor(ids, device=decoder.kv_shape.device))
            _read(decoder, self._triggers, [stream.trigger], [embeds], [_required(stream.memory.trigger)])
            stream.trigger.cache.advance([stream.trigger.place], [len(ids)])
        if stream.memory.decides == "always":
            caches, unread = self._weaver_caches(stream), torch.cat(stream.unread)
            stream.unread = [unread[most:]]
            stream.weaver = stream.weaver or caches.open(len(unread))
            projection = stream.memory.reasoner_to_weaver
            context = projection(unread[:most].to(projection.weight.dtype))
            _read(self._weaver_base(stream).decoder, caches, [stream.weaver], [context], [stream.memory.weaver])
            stream.weaver.cache.advance([stream.weaver.place], [len(context)])

    def weave(self, rows: Sequence[int], *, at_prompt_end: bool) -> list[Tensor]:
        """Latents `(_K, H)` for each row, as input embeddings of the reasoner."""
        latents: dict[int, Tensor] = {}
        for some in grouped(rows, lambda row: self._weaver_base(self._streams[row]).name).values():
            caches = self._weaver_caches(self._streams[some[0]])
            latents.update(zip(some, self._weave_on(caches, some, at_prompt_end), strict=True))
        return [latents[row] for row in rows]

    def trigger_states(self, rows: Sequence[int]) -> list[Tensor]:
        """The trigger's last hidden state `(H,)` at the newest token of each row."""
        decoder = self._host.backbone.decoder
        streams = [self._streams[row] for row in rows]
        for stream in streams:
            stream.trigger = stream.trigger or self._triggers.open(len(stream.unread_ids))
        places = [_required(stream.trigger) for stream in streams]
        ids = [torch.tensor(stream.unread_ids, device=decoder.kv_shape.device) for stream in streams]
        loras = [_required(stream.memory.trigger) for stream in streams]
        hidden = _read(decoder, self._triggers, places, [decoder.embed(some) for some in ids], loras)
        for stream, place in zip(streams, places, strict=True):
            place.cache.advance([place.place], [len(stream.unread_ids)])
            stream.unread_ids.clear()
        return [states[-1] for states in hidden]

    def _weave_on(self, caches: RowCaches, rows: Sequence[int], at_prompt_end: bool) -> list[Tensor]:
        streams = [self._streams[row] for row in rows]
        contexts, queries = [], []
        for stream in streams:
            memory = stream.memory
            context = torch.cat(stream.unread).to(memory.reasoner_to_weaver.weight.dtype)
            contexts.append(memory.reasoner_to_weaver(context))
            queries.append(memory.queries(at_prompt_end=at_prompt_end)())
            stream.weaver = stream.weaver or caches.open(len(context) + len(queries[-1]))
        places = [_required(stream.weaver) for stream in streams]
        embeds = [torch.cat(parts) for parts in zip(contexts, queries, strict=True)]
        decoder = self._weaver_base(streams[0]).decoder
        hidden = _read(decoder, caches, places, embeds, [stream.memory.weaver for stream in streams])
        latents = []
        for stream, place, context, states in zip(streams, places, contexts, hidden, strict=True):
            # The queries are temporary: only what the reasoner reads stays in the stream.
            place.cache.advance([place.place], [len(context)])
            stream.unread.clear()
            woven = stream.memory.weaver_to_reasoner(states[len(context) :].float())
            latents.append(woven.to(self._host.backbone.decoder.kv_shape.dtype))
        return latents

    def _embed(self, ids: Sequence[int]) -> Tensor:
        decoder = self._host.backbone.decoder
        return decoder.embed(torch.tensor([ids], device=decoder.kv_shape.device))[0]

    def _weaver_caches(self, stream: _RowStream) -> RowCaches:
        base = self._weaver_base(stream)
        if base.name not in self._weavers:
            self._weavers[base.name] = RowCaches(base.decoder.kv_shape, self._most_bytes)
        return self._weavers[base.name]

    def _weaver_base(self, stream: _RowStream) -> Backbone:
        return self._host.weaver_base(stream.memory.config)


def _read(
    decoder: Decoder, caches: RowCaches, rows: Sequence[CacheRow], embeds: Sequence[Tensor], loras: Sequence[Lora]
) -> list[Tensor]:
    """Hidden states `(n, H)` of each row's embeddings `(n, H)` behind what its cache holds. Rows of one cache that read
    as many are a part of the pass."""
    for row, part in zip(rows, embeds, strict=True):
        caches.reserve(row, row.length + len(part))
    groups = list(grouped(range(len(rows)), lambda n: (id(rows[n].cache), len(embeds[n]))).values())
    parts = []
    for group in groups:
        batch = torch.stack([embeds[n] for n in group]).to(caches.shape.dtype)
        adapters = LoraTokens.by_row([loras[n] for n in group], batch.shape[1], caches.shape.device)
        window = rows[group[0]].cache.window([rows[n].place for n in group], batch.shape[1])
        parts.append(DecoderPart(batch, window, adapters))
    hidden: dict[int, Tensor] = {}
    for group, states in zip(groups, decoder.forward_together(parts), strict=True):
        hidden.update(zip(group, states, strict=True))
    return [hidden[n] for n in range(len(rows))]


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
