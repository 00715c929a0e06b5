"""A picture of latents in two dimensions: main axes (PCA), and neighbourhoods (t-SNE).

PCA's distances mean something, t-SNE's only who is near whom: sizes of its groups and the gaps between them are its own
making (Wattenberg, Viégas and Johnson, How to Use t-SNE Effectively, 2016). Clusters are found elsewhere
(`memgen.analysis.clusters`).
"""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memgen.analysis.clusters import Clustering
from memgen.analysis.latents import Array, Latents
from memgen.config_mapping import FromMapping, require

_FEWEST = 5
"""Latents that a picture needs at least."""
_SEEDS = 2**32
"""Seeds that scikit-learn takes."""
_COMPONENTS = 50
"""Main axes that t-SNE looks at."""


@dataclass(frozen=True)
class MapSettings(FromMapping):
    """How the picture is made.

    Raises:
        ConfigError: a value is outside its range.
    """

    most_latents: int = 1500
    """Latents, drawn at random, that are shown."""
    perplexity: float = 30.0
    """About how many neighbours of each latent t-SNE minds."""
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.most_latents >= _FEWEST, f"most_latents is {self.most_latents}; expected at least {_FEWEST}")
        require(self.seed >= 0, f"seed is {self.seed}; expected 0 or more")
        require(self.perplexity >= 1, f"perplexity is {self.perplexity}; expected at least 1")


@dataclass(frozen=True)
class MapPoint:
    """One latent in the picture."""

    row: int
    """Its row in the file of latents."""
    item: str
    task: str
    position: int
    insertion: int
    right: bool
    cluster: int | None
    """None if there are no clusters."""
    pca: tuple[float, float]
    tsne: tuple[float, float]


@dataclass(frozen=True)
class LatentMap:
    points: tuple[MapPoint, ...]
    """Empty if there are fewer than five latents."""
    explained_variance: tuple[float, float]
    """Shares of the variance along the two axes of PCA."""
    perplexity: float
    """The one that was used: less than was asked for if there are few latents."""


def map_latents(
    latents: Latents, clustering: Clustering | None = None, settings: MapSettings = MapSettings()
) -> LatentMap:
    """Coordinates of latents, by PCA and by t-SNE. Equal settings give equal pictures."""
    from threadpoolctl import threadpool_limits  # with scikit-learn, slow to import: no other job needs it

    if len(latents) < _FEWEST:
        return LatentMap((), (0.0, 0.0), settings.perplexity)
    rows = np.sort(np.random.default_rng(settings.seed).permutation(len(latents))[: settings.most_latents])
    states = np.asarray(latents.states[rows])
    perplexity = min(settings.perplexity, (len(rows) - 1) / 3)
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="sklearn")
        axes, shares = _main_axes(states)
        near = _neighbourhoods(axes, perplexity, settings.seed)
    model = clustering.model if clustering else None
    labels: list[int | None] = [None] * len(rows) if model is None else list(model.assign(states).tolist())
    points = []
    for row, cluster, main, placed in zip(rows.tolist(), labels, axes[:, :2].tolist(), near.tolist(), strict=True):
        place = latents.places[row]
        points.append(
            MapPoint(
                row=row,
                item=place.item,
                task=place.task,
                position=place.position,
                insertion=place.insertion,
                right=place.right,
                cluster=cluster,
                pca=(main[0], main[1]),
                tsne=(placed[0], placed[1]),
            )
        )
    return LatentMap(tuple(points), (float(shares[0]), float(shares[1])), perplexity)


def _main_axes(states: Array) -> tuple[Array, NDArray[np.float64]]:
    """Coordinates along the main axes, `(N, P)`, P at least 2, and each axis's share of the variance."""
    from sklearn.decomposition import PCA

    pca = PCA(min(_COMPONENTS, *states.shape), svd_solver="full")
    coordinates = pca.fit_transform(states.astype(np.float64))
    # Of equal latents there is no variance to share, and 0 / 0 is no number.
    shares = np.nan_to_num(pca.explained_variance_ratio_)
    return coordinates.astype(np.float32), shares


def _neighbourhoods(points: Array, perplexity: float, seed: int) -> Array:
    from sklearn.manifold import TSNE

    if not points.std(axis=0).any():
        return np.zeros((len(points), 2), np.float32)  # equal latents have no neighbourhoods
    # From PCA, so that what is apart there begins apart.
    tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=seed % _SEEDS)
    return np.asarray(tsne.fit_transform(points), np.float32)
