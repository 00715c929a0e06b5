"""The trigger asked again at the decision points of recorded turns, differentiable in its own parameters alone.

What the trigger reads is made by frozen parts: the base, and the weaver whose latents were woven before. So it is
computed once without gradient (`read_points`), whatever the number of updates that learn from it (`trigger_logits`):

- `head`: the base's hidden states at the points. Its training costs no pass of the base at all.
- `lora`, form `cache`: the newest token of each point, read with the trigger's LoRA over the frozen cache. All points
  of a turn are one pass, in which none sees another, for in generation each was read and dropped.
- `lora`, form `embedding`: its stream holds token ids only, no latents. One causal pass reads a turn.

Samples of one item share their prompt, and with it the first decision: turns that read the same are read once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from memgen.config import MemoryConfig
from memgen.errors import ConfigError
from memgen.host import AdapterHost
from memgen.kv_cache import Prefix, Tape
from memgen.lora import Lora, LoraTokens
from memgen.memory import Memory
from memgen.prompts import PromptCache, read_prompts
from memgen.training.rollouts import RolledTurn
from memgen.weaving import Streams


class _Reading(Protocol):
    """What the trigger reads at the points of some rows."""

    def states(self, host: AdapterHost, memory: Memory, *, checkpointing: bool) -> Tensor:
        """`(D, H)`: the state that the trigger's head reads at each point, row by row."""
        ...


@dataclass(frozen=True)
class Points:
    """The decision points of recorded turns. Good as long as base and weaver stay what they are."""

    reading: _Reading
    order: Tensor
    """`(D,)`: for each decision, turn by turn, which of the points that were read it is."""


def read_points(
    host: AdapterHost, memory: str, turns: Sequence[RolledTurn], *, prompts: PromptCache | None = None
) -> Points:
    """Compute what the trigger of `memory` reads at every decision of `turns`.

    Args:
        prompts: prompts already read; None reads each distinct prompt once.

    Raises:
        ConfigError: the memory's trigger is not learned, or no turn has a decision.
    """
    woven = host.memories[memory]
    if not woven.trigger_parameters():
        raise ConfigError(f"the trigger of {memory!r} is {woven.config.trigger!r}; only 'lora' and 'head' are learned")
    wanted = [_row(turn, woven.config) for turn in turns if turn.decisions]
    if not wanted:
        raise ConfigError("no turn has a decision; the trigger learns from turns that asked it")
    rows = list(dict.fromkeys(wanted))
    starts, total = {}, 0
    for row in rows:
        starts[row] = total
        total += len(row.points)
    order = [starts[row] + n for row in wanted for n in range(len(row.points))]
    with torch.no_grad():
        reading = _read(host, woven, rows, prompts)
    return Points(reading, torch.tensor(order, device=host.backbone.device))


def trigger_logits(host: AdapterHost, memory: str, points: Points, *, checkpointing: bool = False) -> Tensor:
    """`(D, 2)` float32: SKIP and INVOKE at each decision of the turns read, turn by turn.

    Args:
        checkpointing: keep only each layer's input for the backward pass (trigger `lora`).
    """
    woven = host.memories[memory]
    states = points.reading.states(host, woven, checkpointing=checkpointing)
    logits: Tensor = woven.trigger_head(states.float())
    return logits[points.order]


def recorded_decisions(turns: Sequence[RolledTurn], device: torch.device) -> Tensor:
    """`(D,)`: 1 where a decision was INVOKE, else 0; in the order of `trigger_logits`, whose columns these are."""
    return torch.tensor([int(d.invoked) for turn in turns for d in turn.decisions], device=device)


@dataclass(frozen=True)
class _Row:
    """What decides about the trigger's reading of a turn; equal rows are read once."""

    ids: tuple[int, ...]
    """Prompt and answer up to the newest token of the last point."""
    prompt: int
    """How many of them are the prompt."""
    points: tuple[int, ...]
    """Index of the newest token at each point, rising."""
    woven: frozenset[int]
    """Those of `points`, but for the last, at which memory was woven."""


def _row(turn: RolledTurn, config: MemoryConfig) -> _Row:
    """A decision's `position` counts the tokens in front of it: form `cache` weaves in front of the newest token."""
    behind = config.form == "embedding"
    points = [decision.position - behind for decision in turn.decisions]
    context = (*turn.prompt_ids, *turn.token_ids)
    prompt = len(turn.prompt_ids)
    if points != sorted(set(points)) or points[0] < prompt - 1 or points[-1] >= len(context):
        raise ConfigError(
            f"decisions stand at {[d.position for d in turn.decisions]} in a turn of {prompt} prompt tokens and "
            f"{len(turn.token_ids)} more; expected rising positions within the turn, of form {config.form!r}"
        )
    woven = [point for point, decision in zip(points, turn.decisions, strict=True) if decision.invoked]
    return _Row(context[: points[-1] + 1], prompt, tuple(points), frozenset(woven) - {points[-1]})


def _read(host: AdapterHost, memory: Memory, rows: Sequence[_Row], prompts: PromptCache | None) -> _Reading:
    if memory.config.trigger == "lora" and memory.config.form == "embedding":
        return _Stream(rows)
    cache = prompts if prompts is not None else PromptCache(host.backbone.decoder, max_bytes=0)
    prefixes = cache.read([row.ids[: row.prompt - 1] for row in rows])
    # A copy, because what the engine has read is an inference tensor, and those can't be trained on.
    prefixes = [replace(prefix, state=prefix.state.clone()) for prefix in prefixes]
    tape, hidden, seen = _replay(host, memory, rows, prefixes)
    if memory.config.trigger == "head":
        states = [
            hidden[row, entries - 1] if entries else prefixes[row].state
            for row, some in enumerate(seen)
            for entries in some
        ]
        return _States(torch.stack(states))
    return _Newest(tape, rows, [[prefixes[row].tokens + n for n in some] for row, some in enumerate(seen)])


def _replay(
    host: AdapterHost, memory: Memory, rows: Sequence[_Row], prefixes: Sequence[Prefix]
) -> tuple[Tape, Tensor, list[list[int]]]:
    """Let the reasoner read the rows again, with latents where they were woven, up to the last point's newest token.

    Returns:
        (its cache; its last hidden states `(R, N, H)` behind the prefixes; for each row's points, how many of the N
        stand in front of the newest token and of what is woven there).
    """
    decoder, device = host.backbone.decoder, host.backbone.device
    entries = [_entries(row, memory.config) for row in rows]
    width = max(len(ids) for ids, _, _ in entries)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    stays = torch.zeros(len(rows), width, dtype=torch.bool)
    places: list[int] = []
    for number, (row_ids, latents, _) in enumerate(entries):
        ids[number, : len(row_ids)] = torch.tensor(row_ids)
        stays[number, : len(row_ids)] = True
        places.extend(number * width + place for place in latents)
    tape, embeds, lora = Tape(prefixes), decoder.embed(ids.to(device)), None
    if places:
        index = torch.tensor(places, device=device)
        woven = _latents(host, memory, rows).to(embeds.dtype)
        embeds = embeds.flatten(0, 1).index_copy(0, index, woven).view_as(embeds)
        lora = LoraTokens(((memory.weaver, index),)) if memory.config.form == "cache" else None
    if width:
        lengths = torch.tensor([prefix.tokens for prefix in prefixes], device=device)
        positions = lengths[:, None] + torch.arange(width, device=device)
        stays = stays.to(device)
        embeds = decoder.forward(embeds, tape.window(positions, stays), lora, present=stays)
    return tape, embeds, [seen for _, _, seen in entries]


def _entries(row: _Row, config: MemoryConfig) -> tuple[list[int], list[int], list[int]]:
    """(ids of what stands behind the prefix, 0 for a latent; places of the latents; for each point the places seen)."""
    ids: list[int] = []
    latents: list[int] = []
    seen: list[int] = []
    for token in range(row.prompt - 1, row.points[-1]):
        if token in row.points:
            seen.append(len(ids))
        count = config.latents if token == row.prompt - 1 else config.inference_latents
        woven = [0] * count if token in row.woven else []
        if config.form == "embedding":
            ids.append(row.ids[token])
        latents.extend(range(len(ids), len(ids) + len(woven)))
        ids.extend(woven)
        if config.form == "cache":
            ids.append(row.ids[token])
    return ids, latents, [*seen, len(ids)]


def _latents(host: AdapterHost, memory: Memory, rows: Sequence[_Row]) -> Tensor:
    """What the reasoner reads as latents, `(M, H)`, row by row: queries (form `cache`) or input embeddings."""
    woven = [sorted(row.woven) for row in rows]
    if memory.config.form == "cache":
        return torch.cat(
            [
                memory.queries(at_prompt_end=token == row.prompt - 1)()
                for row, tokens in zip(rows, woven, strict=True)
                for token in tokens
            ]
        )
    streams = Streams(host, [memory] * len(rows))
    found: list[list[Tensor]] = [[] for _ in rows]
    for ordinal in range(max(map(len, woven))):
        going = [number for number, tokens in enumerate(woven) if ordinal < len(tokens)]
        for number in going:
            start = woven[number][ordinal - 1] + 1 if ordinal else 0
            streams.add_tokens(number, rows[number].ids[start : woven[number][ordinal] + 1])
        for at_prompt_end in (True, False):
            some = [n for n in going if (woven[n][ordinal] == rows[n].prompt - 1) == at_prompt_end]
            for number, latents in zip(some, streams.weave(some, at_prompt_end=at_prompt_end), strict=True):
                streams.add_latents(number, latents)
                found[number].append(latents)
    return torch.cat([latents for some in found for latents in some])


@dataclass(frozen=True)
class _States:
    """Trigger `head`: hidden states of the base."""

    found: Tensor
    """`(D, H)`."""

    def states(self, host: AdapterHost, memory: Memory, *, checkpointing: bool) -> Tensor:
        return self.found


class _Newest:
    """Trigger `lora`, form `cache`: the newest tokens, each over the part of its row's cache that stood in front."""

    def __init__(self, tape: Tape, rows: Sequence[_Row], positions: Sequence[Sequence[int]]) -> None:
        device = tape.positions.device
        width = max(len(some) for some in positions)
        self._tape = tape
        self._ids, self._positions = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(2))
        self._real = torch.zeros(len(rows), width, dtype=torch.bool)
        for number, (row, some) in enumerate(zip(rows, positions, strict=True)):
            self._ids[number, : len(some)] = torch.tensor([row.ids[point] for point in row.points])
            self._positions[number, : len(some)] = torch.tensor(some)
            self._real[number, : len(some)] = True
        self._ids, self._positions, self._real = (t.to(device) for t in (self._ids, self._positions, self._real))

    def states(self, host: AdapterHost, memory: Memory, *, checkpointing: bool) -> Tensor:
        decoder = host.backbone.decoder
        window = _PointWindow(self._tape, self._positions)
        adapter = LoraTokens.everywhere(_lora(memory))
        hidden = decoder.forward(
            decoder.embed(self._ids), window, adapter, present=self._real, checkpointing=checkpointing
        )
        return hidden[self._real]


class _Stream:
    """Trigger `lora`, form `embedding`: token ids from the start, all of them under the adapter."""

    def __init__(self, rows: Sequence[_Row]) -> None:
        self._rows = rows

    def states(self, host: AdapterHost, memory: Memory, *, checkpointing: bool) -> Tensor:
        decoder, device = host.backbone.decoder, host.backbone.device
        width = max(len(row.ids) for row in self._rows)
        ids = torch.zeros(len(self._rows), width, dtype=torch.long)
        present = torch.zeros(len(self._rows), width, dtype=torch.bool)
        for number, row in enumerate(self._rows):
            ids[number, : len(row.ids)] = torch.tensor(row.ids)
            present[number, : len(row.ids)] = True
        tape = Tape(read_prompts(decoder, [()] * len(self._rows)))
        window = tape.window(torch.arange(width, device=device).expand(len(self._rows), width))
        adapter = LoraTokens.everywhere(_lora(memory))
        hidden = decoder.forward(
            decoder.embed(ids.to(device)), window, adapter, present=present.to(device), checkpointing=checkpointing
        )
        return torch.cat([hidden[number, list(row.points)] for number, row in enumerate(self._rows)])


class _PointWindow:
    """A `Window` on a tape for tokens that each see what stands in front of their position, and not one another.

    The tape stays as it is."""

    causal = False

    def __init__(self, tape: Tape, positions: Tensor) -> None:
        """`positions` `(R, N)`."""
        self.positions = positions
        self._layers = tape.layers
        self._key_positions = torch.cat([tape.positions, positions], dim=1)
        past = tape.seen[:, None, :] & (tape.positions[:, None, :] < positions[:, :, None])
        itself = torch.eye(positions.shape[1], dtype=torch.bool, device=positions.device)
        self._mask = torch.cat([past, itself.expand(len(positions), -1, -1)], dim=2)[:, None]
        self.mask: Tensor | None = self._mask

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        before_keys, before_values = self._layers[layer]
        return torch.cat([before_keys, keys], dim=2), torch.cat([before_values, values], dim=2)

    def full_mask(self) -> Tensor:
        return self._mask

    def key_positions(self) -> Tensor:
        return self._key_positions


def _lora(memory: Memory) -> Lora:
    if memory.trigger is None:
        raise ConfigError(f"the trigger of {memory.name!r} is {memory.config.trigger!r}; expected 'lora'")
    return memory.trigger
