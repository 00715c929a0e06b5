"""The trigger computed again at the decision points of recorded turns, differentiable in its own parameters alone.

What the trigger reads is made by frozen parts: the base, and the weaver whose latents were woven before. So it is
computed once without gradient (`read_points`), whatever the number of updates that learn from it (`trigger_logits`):

- `head`: the base's hidden states at the points. Its training costs no pass of the base at all.
- `lora`, form `cache`: the newest token of each point, read with the trigger's LoRA over the frozen cache. All points
  of a turn are one pass, in which none sees another, for in generation each was read and dropped.
- `lora`, form `embedding`: its stream holds token ids only, no latents. One causal pass reads a turn.

Samples of one item share their prompt, and with it the first decision: turns that read the same are read once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from memgen.backbone.kv_cache import Prefix, Window
from memgen.backbone.lora import LoraTokens
from memgen.backbone.prompt_cache import PromptCache
from memgen.backbone.tape import Tape
from memgen.config import MemoryConfig
from memgen.errors import ConfigError
from memgen.memory.cue_window import CuedWindow
from memgen.memory.host import AdapterHost
from memgen.memory.weaving import Streams
from memgen.memory.weights import Memory
from memgen.training.entries import Entries, flat_places, stacked
from memgen.training.reward.rollouts import RolledTurn
from memgen.training.trigger.readings import NewestRead, Reading, ReadTurn, StatesRead, StreamRead, read_turn


@dataclass(frozen=True)
class Points:
    """The decision points of recorded turns. Good as long as base and weaver stay what they are."""

    reading: Reading
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
    wanted = [read_turn(turn, woven.config) for turn in turns if turn.decisions]
    if not wanted:
        raise ConfigError("no turn has a decision; the trigger learns from decisions alone")
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


def _read(host: AdapterHost, memory: Memory, rows: Sequence[ReadTurn], prompts: PromptCache | None) -> Reading:
    if memory.config.trigger == "lora" and memory.config.form == "embedding":
        return StreamRead(rows)
    cache = prompts if prompts is not None else PromptCache(host.backbone.decoder, max_bytes=0)
    cued = [row for row in rows if row.cue and row.woven and memory.config.form == "cache"]
    known = cache.read([*(row.ids[: row.prompt - 1] for row in rows), *(row.cue for row in cued)])
    # A copy, because what the engine has read is an inference tensor, and those can't be trained on.
    prefixes = [replace(prefix, state=prefix.state.clone()) for prefix in known[: len(rows)]]
    tape, hidden, seen = _replay(host, memory, rows, prefixes, dict(zip(cued, known[len(rows) :], strict=True)))
    if memory.config.trigger == "head":
        states = [
            hidden[row, entries - 1] if entries else prefixes[row].state
            for row, some in enumerate(seen)
            for entries in some
        ]
        return StatesRead(torch.stack(states))
    return NewestRead(tape, rows, [[prefixes[row].tokens + n for n in some] for row, some in enumerate(seen)])


def _replay(
    host: AdapterHost,
    memory: Memory,
    rows: Sequence[ReadTurn],
    prefixes: Sequence[Prefix],
    cues: Mapping[ReadTurn, Prefix],
) -> tuple[Tape, Tensor, list[list[int]]]:
    """Let the reasoner read the rows again, with latents where they were woven, up to the last point's newest token.

    Args:
        cues: the base's prefixes of rows' cues, for form `cache`.

    Returns:
        (its cache; its last hidden states `(R, N, H)` behind the prefixes; for each row's points, how many of the N
        stand in front of the newest token and of what is woven there).
    """
    decoder, device = host.backbone.decoder, host.backbone.device
    read = [_entries(row, memory.config) for row in rows]
    ids, stays = stacked([entries for entries, _ in read], device)
    width = ids.shape[1]
    index = flat_places([[*e.prompt_latents, *e.inference_latents] for e, _ in read], width, device)
    tape, embeds, lora = Tape(prefixes), decoder.embed(ids), None
    if len(index):
        woven = _latents(host, memory, rows).to(embeds.dtype)
        embeds = embeds.flatten(0, 1).index_copy(0, index, woven).view_as(embeds)
        index = torch.cat([flat_places([e.reread for e, _ in read], width, device), index])
        lora = LoraTokens(((memory.weaver, index),)) if memory.config.form == "cache" else None
    if width:
        lengths = torch.tensor([prefix.tokens for prefix in prefixes], device=device)
        positions = lengths[:, None] + torch.arange(width, device=device)
        window: Window = tape.window(positions, stays)
        if cues:
            window = CuedWindow.seen_at(window, [cues.get(row) for row in rows], index)
        embeds = decoder.forward(embeds, window, lora, present=stays)
    return tape, embeds, [seen for _, seen in read]


def _entries(row: ReadTurn, config: MemoryConfig) -> tuple[Entries, list[int]]:
    """(what stands behind the row's prefix, for each point how much of it stands in front)."""
    entries, seen = Entries(), []
    for token in range(row.prompt - 1, row.points[-1]):
        if token in row.points:
            seen.append(len(entries.ids))
        prompt_ids = row.ids[: row.prompt] if token == row.prompt - 1 else None
        entries.read(row.ids[token], config if token in row.woven else None, prompt_ids)
    return entries, [*seen, len(entries.ids)]


def _latents(host: AdapterHost, memory: Memory, rows: Sequence[ReadTurn]) -> Tensor:
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
    streams = Streams(host)
    found: list[list[Tensor]] = [[] for _ in rows]
    for number, row in enumerate(rows):
        streams.open(number, memory)
        if row.cue:
            streams.add_cue(number, row.cue)
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
