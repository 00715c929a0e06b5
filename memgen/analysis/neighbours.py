"""The vocabulary's tokens that are nearest to latents, by the cosine with the base's input embeddings.

Those of centres and of some latents are reported with their text; those of all latents are written into files:

nearest.safetensors  `token_ids` int32 (N, 5) and `cosines` float32 (N, 5), the nearest first; row n is latent n
nearest_tokens.json  text of each token that occurs there, by its id

A latent is no token, and a reader of such lists finds meaning in any of them. So each says how near the tokens are, and
how near random directions would find theirs: a cosine that chance reaches tells nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor
from torch.nn import functional as F

from memgen.analysis.clusters import Clustering
from memgen.analysis.latents import Array, Latents
from memgen.backbone.loading import Backbone
from memgen.checked_files import write_json

_BLOCK = 16384
"""Tokens that are compared at a time: a vocabulary in float32 may take gigabytes."""
_LATENTS = 1024
"""Latents that are compared with them at a time."""
_RANDOM_DIRECTIONS = 200
_CHANCE = 0.95
"""Share of random directions whose nearest token is no nearer than chance is said to reach."""


@dataclass(frozen=True)
class TokenNeighbour:
    token_id: int
    token: str
    """Its text, as the tokenizer decodes it."""
    cosine: float


@dataclass(frozen=True)
class NamedNeighbours:
    """The tokens nearest to one direction."""

    name: str
    """`cluster 0`, or `latent 17` by its row in the file."""
    tokens: tuple[TokenNeighbour, ...]
    """The nearest first."""


@dataclass(frozen=True)
class NearestTokens:
    directions: tuple[NamedNeighbours, ...]
    chance_cosine: float
    """Cosine that the nearest token of a random direction hardly ever exceeds (one in twenty does)."""


def nearest_tokens(
    backbone: Backbone,
    latents: Latents,
    clustering: Clustering | None = None,
    *,
    count: int = 8,
    sample: int = 20,
    seed: int = 0,
) -> NearestTokens:
    """The nearest tokens of each cluster's centre, if there are clusters, and of some latents.

    Args:
        count: tokens of each.
        sample: latents, drawn at random.
    """
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(len(latents))[:sample])
    named = [(f"latent {row}", np.asarray(latents.states[row])) for row in rows.tolist()]
    if clustering is not None and clustering.model is not None:
        centres = clustering.model.directions()
        named = [(f"cluster {number}", centre) for number, centre in enumerate(centres)] + named
    chance = rng.normal(size=(_RANDOM_DIRECTIONS, backbone.hidden_size)).astype(np.float32)
    nearest = _nearest(backbone, chance, 1)[1][:, 0].numpy()
    directions: tuple[NamedNeighbours, ...] = ()
    if named:
        ids, cosines = _nearest(backbone, np.stack([state for _, state in named]), count)
        rows_of = zip(named, ids.tolist(), cosines.tolist(), strict=True)
        directions = tuple(NamedNeighbours(name, _named(backbone, *pair)) for (name, _), *pair in rows_of)
    return NearestTokens(directions, float(np.quantile(nearest, _CHANCE)))


def write_nearest_tokens(
    backbone: Backbone,
    latents: Latents,
    folder: Path,
    *,
    count: int = 5,
    on_block: Callable[[], None] = lambda: None,
) -> None:
    """Write the nearest tokens of every latent into `folder`, a block of latents and of tokens in memory at a time.

    Args:
        on_block: called before each pair of blocks. What it raises ends the writing.
    """
    ids, cosines = _nearest(backbone, latents.states, count, on_block)
    save_file({"token_ids": ids.numpy().astype(np.int32), "cosines": cosines.numpy()}, folder / "nearest.safetensors")
    texts = {str(token): _text(backbone, token) for token in np.unique(ids.numpy()).tolist()}
    write_json(folder / "nearest_tokens.json", texts)


@torch.no_grad()
def _nearest(
    backbone: Backbone, states: Array, count: int, on_block: Callable[[], None] = lambda: None
) -> tuple[Tensor, Tensor]:
    """Ids and cosines `(N, count)`, the nearest first; fewer where the vocabulary has fewer."""
    table = cast(Tensor, backbone.model.get_input_embeddings().weight)
    count = min(count, len(table))
    ids = torch.zeros(len(states), count, dtype=torch.int64)
    cosines = torch.full((len(states), count), -torch.inf)
    for start in range(0, len(table), _BLOCK):
        tokens = F.normalize(table[start : start + _BLOCK].float(), dim=-1)
        for at in range(0, len(states), _LATENTS):
            on_block()
            rows = slice(at, at + _LATENTS)
            some = torch.from_numpy(np.array(states[rows])).to(table.device, torch.float32)
            found = (F.normalize(some, dim=-1) @ tokens.T).topk(min(count, len(tokens)), dim=-1)
            both = torch.cat([cosines[rows], found.values.cpu()], dim=1).topk(count, dim=-1)
            places = torch.cat([ids[rows], found.indices.cpu() + start], dim=1)
            cosines[rows], ids[rows] = both.values, places.gather(1, both.indices)
    return ids, cosines


def _named(backbone: Backbone, ids: Sequence[int], cosines: Sequence[float]) -> tuple[TokenNeighbour, ...]:
    return tuple(
        TokenNeighbour(token, _text(backbone, token), cosine) for token, cosine in zip(ids, cosines, strict=True)
    )


def _text(backbone: Backbone, token: int) -> str:
    return str(backbone.tokenizer.decode([token]))
