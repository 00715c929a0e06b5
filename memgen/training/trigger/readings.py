"""What a trigger reads at the decision points of recorded turns, as values that may be read again for every update.

How each is made, from the turns and the frozen parts, is `memgen.training.trigger.forward`'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from memgen.backbone.lora import Lora, LoraTokens
from memgen.backbone.prompt_cache import read_prompts
from memgen.backbone.tape import Tape
from memgen.config import MemoryConfig
from memgen.errors import ConfigError
from memgen.memory.host import AdapterHost
from memgen.memory.weights import Memory
from memgen.training.reward.rollouts import RolledTurn


class Reading(Protocol):
    """What the trigger reads at the points of some rows."""

    def states(self, host: AdapterHost, memory: Memory, *, checkpointing: bool) -> Tensor:
        """`(D, H)`: the state that the trigger's head reads at each point, row by row."""
        ...


@dataclass(frozen=True)
class ReadTurn:
    """All that the trigger's reading of a turn depends on; equal rows are read once."""

    ids: tuple[int, ...]
    """Prompt and answer up to the newest token of the last point."""
    prompt: int
    """How many of them are the prompt."""
    points: tuple[int, ...]
    """Index of the newest token at each point, rising."""
    woven: frozenset[int]
    """Points, but for the last, at which memory was woven."""
    cue: tuple[int, ...]
    """What the weaver read beside them."""


def read_turn(turn: RolledTurn, config: MemoryConfig) -> ReadTurn:
    """What the trigger read of a turn that has decisions.

    Raises:
        ConfigError: the decisions' positions are not the turn's.
    """
    # A decision's position counts the tokens in front of it; form `cache` weaves in front of the newest one.
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
    return ReadTurn(context[: points[-1] + 1], prompt, tuple(points), frozenset(woven) - {points[-1]}, turn.cue_ids)


@dataclass(frozen=True)
class StatesRead:
    """Trigger `head`: hidden states of the base."""

    found: Tensor
    """`(D, H)`."""

    def states(self, host: AdapterHost, memory: Memory, *, checkpointing: bool) -> Tensor:
        return self.found


class NewestRead:
    """Trigger `lora`, form `cache`: the newest tokens, each over the part of its row's cache that stood in front."""

    def __init__(self, tape: Tape, rows: Sequence[ReadTurn], positions: Sequence[Sequence[int]]) -> None:
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


class StreamRead:
    """Trigger `lora`, form `embedding`: token ids from the start, all of them under the adapter."""

    def __init__(self, rows: Sequence[ReadTurn]) -> None:
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
