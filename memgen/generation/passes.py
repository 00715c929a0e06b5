"""One pass over the base's weights for all rows: those that weave, those that do not, and texts that are being read.

And what comes in front of it: the triggers of the rows at a decision point, which may need a pass of their own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from memgen.backbone.decoder import Decoder, DecoderPart
from memgen.backbone.kv_cache import SlotCache
from memgen.backbone.lora import LoraTokens
from memgen.backbone.row_caches import RowCaches
from memgen.errors import ConfigError
from memgen.generation.reading import Chunk, Readings
from memgen.generation.requests import Decision
from memgen.generation.row import InsertionKind, Row
from memgen.generation.sampling import decide
from memgen.memory.weaving import Streams, grouped, weave_into_cache

_MOST_RUNS = 3
"""Rows of a cache that stand apart are as many parts of a pass as they have gaps between them, up to so many: more cost
more than copying what the rows hold."""


@dataclass(frozen=True)
class Held:
    """What the rows of one decoding hold on the device."""

    decoder: Decoder
    caches: RowCaches
    streams: Streams
    readings: Readings

    @property
    def bytes(self) -> int:
        return self.caches.bytes + self.streams.bytes


def decide_rows(held: Held, rows: Sequence[Row]) -> list[Row]:
    """The rows that weave now; every decision is noted."""
    deciding = [row for row in rows if row.at_decision_point()]
    forced = {row.number: row.forced_decision() for row in deciding}
    free = [row for row in deciding if forced[row.number] is None]
    logits = _trigger_logits(held, free) if free else {}
    invoked = []
    for row in deciding:
        if (answer := forced[row.number]) is not None:
            yes, probability = answer, float(answer)
        elif row.number in logits:
            yes, probability = decide(logits[row.number], row.request.sampling.trigger_temperature, row.draws.generator)
        else:
            yes, probability = True, 1.0
        behind = row.form == "embedding"
        row.decisions.append(Decision(len(row.context) - (not behind), probability, yes, 0))
        if yes:
            invoked.append(row)
    return invoked


def read_together(held: Held, rows: Sequence[Row], invoked: Sequence[Row], chunks: Sequence[Chunk]) -> None:
    """Encode every row's newest token, with memory woven in the rows `invoked`, and read the chunks beside them.

    Afterwards each row's state is that of its newest token.
    """
    if in_part := [row for row in invoked if row.weaves_in_part]:
        _weave_in_part(held, in_part)
    woven = _weave_streams(held.streams, invoked)
    weaving = {row.number for row in invoked if not row.weaves_in_part}
    kinds = grouped(rows, lambda row: _kind(row, woven) if row.number in weaving else None)
    # All at once, for a window knows its cache's slots and rows as they were when it was made.
    held.readings.prepare(chunks)
    for kind, some in kinds.items():
        for row in some:
            held.caches.reserve(row.cache_row, row.cache_row.length + (kind.woven if kind else 0) + 1)
    groups = [(kind, group) for kind, some in kinds.items() for group in _groups(some, apart=kind is None)]
    parts = [_part(held, kind, group, woven) for kind, group in groups]
    parts += [held.readings.part(chunk) for chunk in chunks]
    states = held.decoder.forward_together(parts)
    for (kind, group), hidden in zip(groups, states[: len(groups)], strict=True):
        _cache(group).advance([row.cache_row.place for row in group], [hidden.shape[1]] * len(group))
        for place, row in enumerate(group):
            row.state = hidden[place, -1]
            if kind is not None:
                _note_insertion(row, kind, woven.get(row.number, hidden[place, kind.reread : -1]))
    for chunk, hidden in zip(chunks, states[len(groups) :], strict=True):
        held.readings.note(chunk, hidden)


def _trigger_logits(held: Held, rows: Sequence[Row]) -> dict[int, Tensor]:
    """`(2,)` for each row, by number, whose trigger is learned."""
    states: dict[int, Tensor] = {}
    for (kind, form), some in grouped(rows, lambda row: row.kind_of_trigger).items():
        if kind == "head":
            states.update((row.number, row.state) for row in some if row.state is not None)
        elif kind == "lora" and form == "cache":
            states.update(_states_of_loras(held, some))
        elif kind == "lora":
            numbers = [row.number for row in some]
            states.update(zip(numbers, held.streams.trigger_states(numbers), strict=True))
    return {
        row.number: row.woven_memory.trigger_head(states[row.number].float()) for row in rows if row.number in states
    }


def _states_of_loras(held: Held, rows: Sequence[Row]) -> dict[int, Tensor]:
    """What triggers of form `cache` make of their rows' newest tokens. They read without counting it: the slots are
    written over by what comes next."""
    for row in rows:
        held.caches.reserve(row.cache_row, row.cache_row.length + 1)
    groups, parts = list(_groups(rows, apart=False)), []
    for group in groups:
        loras = [trigger for row in group if (trigger := row.woven_memory.trigger) is not None]
        adapters = LoraTokens.by_row(loras, 1, held.caches.shape.device)
        window = _cache(group).window([row.cache_row.place for row in group], 1)
        parts.append(DecoderPart(_newest(held, group), window, adapters))
    found: dict[int, Tensor] = {}
    for group, hidden in zip(groups, held.decoder.forward_together(parts), strict=True):
        found.update((row.number, hidden[place, -1]) for place, row in enumerate(group))
    return found


def _weave_in_part(held: Held, rows: Sequence[Row]) -> None:
    """Insertions of form `cache` of which an intervention keeps some latents only. What stays follows from what was
    woven, and the newest token must see no other: so it is read anew behind them, as if nothing were woven now."""
    for row in rows:
        held.caches.reserve(row.cache_row, row.cache_row.length + row.kind_of_insertion.woven + 1)
    kinds = grouped(rows, lambda row: row.kind_of_insertion)
    groups = [(kind, group) for kind, some in kinds.items() for group in _groups(some, apart=False)]
    states = held.decoder.forward_together([_part(held, kind, group, {}) for kind, group in groups])
    for (kind, group), hidden in zip(groups, states, strict=True):
        for row, latents in zip(group, hidden[:, kind.reread : -1], strict=True):
            stays = _stays(row, latents)
            kept = latents[stays]
            # Behind the last that stays none is counted, and so none is there.
            inserted = max((place + 1 for place, stay in enumerate(stays.tolist()) if stay), default=0)
            first, cache = row.cache_row.length + kind.reread, row.cache_row.cache
            cache.advance([row.cache_row.place], [kind.reread + inserted])
            cache.hide(row.cache_row.place, [first + place for place in range(inserted) if not stays[place]])
            _note_insertion(row, kind._replace(latents=len(kept)), kept)


def _stays(row: Row, latents: Tensor) -> Tensor:
    """Which of the latents `(K, H)` of a row's newest insertion stay, `(K,)` bool."""
    keep = row.request.intervention.keep
    if keep is None:
        return torch.ones(len(latents), dtype=torch.bool, device=latents.device)
    number = sum(decision.invoked for decision in row.decisions) - 1
    stays = keep(number, latents)
    if len(stays) != len(latents):
        raise ConfigError(f"an intervention says of {len(stays)} latents whether they stay; expected {len(latents)}")
    return torch.tensor(stays, dtype=torch.bool, device=latents.device)


def _kind(row: Row, woven: dict[int, Tensor]) -> InsertionKind:
    """The kind of a row's insertion, with as many latents as it leaves."""
    kind = row.kind_of_insertion
    return kind._replace(latents=len(woven[row.number])) if row.number in woven else kind


def _weave_streams(streams: Streams, invoked: Sequence[Row]) -> dict[int, Tensor]:
    """Latents `(K, H)` of form `embedding` by row, which the reasoner has yet to read."""
    latents: dict[int, Tensor] = {}
    for kind, rows in grouped(invoked, lambda row: row.kind_of_insertion).items():
        if kind.form == "embedding":
            numbers = [row.number for row in rows]
            found = streams.weave(numbers, at_prompt_end=kind.at_prompt_end)
            for row, part in zip(rows, found, strict=True):
                latents[row.number] = part[_stays(row, part)]
    for number, part in latents.items():
        streams.add_latents(number, part)
    return latents


def _part(held: Held, kind: InsertionKind | None, rows: Sequence[Row], woven: dict[int, Tensor]) -> DecoderPart:
    """What rows of one cache read that make the same kind of insertion, or none: their newest tokens last with form
    `cache`, and first with form `embedding`."""
    newest, cache, places = _newest(held, rows), _cache(rows), [row.cache_row.place for row in rows]
    if kind is None:
        readers = LoraTokens.by_row([row.reader for row in rows], 1, held.caches.shape.device)
        return DecoderPart(newest, cache.window(places, 1), readers)
    if kind.form == "cache":
        memories, cues = [row.woven_memory for row in rows], [row.cue for row in rows]
        reread = _embed(held, [row.reread for row in rows])
        return weave_into_cache(cache, places, memories, cues, reread, newest, at_prompt_end=kind.at_prompt_end)
    latents = torch.stack([woven[row.number] for row in rows])
    return DecoderPart(torch.cat([newest, latents], dim=1), cache.window(places, kind.woven + 1))


def _note_insertion(row: Row, kind: InsertionKind, latents: Tensor) -> None:
    kept = latents.clone() if row.request.return_latents else None
    row.decisions[-1] = replace(row.decisions[-1], latents=kind.latents, reread=kind.reread, states=kept)


def _groups(rows: Iterable[Row], *, apart: bool) -> Iterable[list[Row]]:
    """Rows by their cache, in the order they stand there; those that stand apart by themselves if that is worth it."""
    for some in grouped(rows, lambda row: id(row.cache_row.cache)).values():
        ordered = sorted(some, key=lambda row: row.cache_row.place)
        runs = list(grouped(enumerate(ordered), lambda each: each[1].cache_row.place - each[0]).values())
        if apart and len(runs) <= _MOST_RUNS:
            yield from ([row for _, row in run] for run in runs)
        else:
            yield ordered


def _cache(rows: Sequence[Row]) -> SlotCache:
    return rows[0].cache_row.cache


def _newest(held: Held, rows: Sequence[Row]) -> Tensor:
    return _embed(held, [[row.context[-1]] for row in rows])


def _embed(held: Held, ids: Sequence[Sequence[int]]) -> Tensor:
    return held.decoder.embed(torch.tensor(ids, dtype=torch.long, device=held.caches.shape.device))
