"""The vocabulary's tokens that are nearest to latents, by the cosine with the base's input embeddings.

A latent is no token, and a reader of such lists finds meaning in any of them. So each says how near the tokens are, and
how near random directions would find theirs: a cosine that chance reaches tells nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from memgen.analysis.clusters import Clustering
from memgen.analysis.latents import Array, Latents
from memgen.backbone.loading import Backbone

_BLOCK = 16384
"""Tokens that are compared at a time: a vocabulary in float32 may take gigabytes."""
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
    nearest = [found[0].cosine for found in _nearest(backbone, chance, 1)]
    found = _nearest(backbone, np.stack([state for _, state in named]), count) if named else []
    directions = tuple(NamedNeighbours(name, tokens) for (name, _), tokens in zip(named, found, strict=True))
    return NearestTokens(directions, float(np.quantile(nearest, _CHANCE)))


@torch.no_grad()
def _nearest(backbone: Backbone, states: Array, count: int) -> list[tuple[TokenNeighbour, ...]]:
    table = cast(Tensor, backbone.model.get_input_embeddings().weight)
    directions = F.normalize(torch.from_numpy(states).to(table.device, torch.float32), dim=-1)
    cosines, ids = [], []
    for start in range(0, len(table), _BLOCK):
        some = directions @ F.normalize(table[start : start + _BLOCK].float(), dim=-1).T
        best = some.topk(min(count, some.shape[1]), dim=-1)
        cosines.append(best.values)
        ids.append(best.indices + start)
    best = torch.cat(cosines, dim=1).topk(min(count, len(table)), dim=-1)
    tokens = torch.cat(ids, dim=1).gather(1, best.indices)
    return [_named(backbone, *pair) for pair in zip(tokens.tolist(), best.values.tolist(), strict=True)]


def _named(backbone: Backbone, ids: Sequence[int], cosines: Sequence[float]) -> tuple[TokenNeighbour, ...]:
    return tuple(
        TokenNeighbour(token, str(backbone.tokenizer.decode([token])), cosine)
        for token, cosine in zip(ids, cosines, strict=True)
    )
