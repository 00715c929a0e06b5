"""What it takes to believe in clusters of latents: how stable, how separate, how apart they are.

K-means splits whatever it is given, noise too. A number of clusters k is accepted if all of these hold:
- stability: clusterings of two samples of the items agree, by a mean adjusted Rand index of `least_stability` or more
  (Ben-Hur, Elisseeff and Guyon 2002). Items are drawn, not latents, because the latents of one answer are alike;
- separation: the mean silhouette exceeds, by `least_margin`, that of every clustering of clouds which are one Gaussian
  with the latents' own spread along each axis: an elongated cloud is split stably too (the null of SigClust, Liu et al.
  2008);
- valleys: between the centres of any two clusters there are at most `most_overlap` as many latents as at the emptier of
  both. Skewed, bent and even clouds are stably split and unlike a Gaussian, but have no gap where they are split;
- every cluster has latents of `least_items` items or more: fewer are outliers.

Simulations in the tests say how well that works: Gaussian, uniform, skewed, heavy-tailed and bent clouds have no
clusters, whatever their spread.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from memgen.analysis.latents import Array
from memgen.config_mapping import FromMapping, require

_SAMPLED_ITEMS = 0.8
_SEEDS = 2**32
"""Seeds that scikit-learn takes."""
_WINDOW = 0.25
"""Half the width of where latents are counted, at the centres and midway, in halves of the way between centres."""
_STARTS = 3
"""Starts of each K-means, of which the best counts."""
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class ClusterSettings(FromMapping):
    """How clusters are looked for.

    Raises:
        ConfigError: a value is outside its range.
    """

    least: int = 2
    most: int = 8
    """Numbers of clusters that are tried, from `least` to this."""
    resamples: int = 10
    """Pairs of samples of the items that the stability of each k is measured on."""
    references: int = 20
    """Clouds without clusters that each k is compared with."""
    components: int = 50
    """Main axes that are kept."""
    most_latents: int = 1000
    """Latents, drawn at random, that clusters are found on; the others are assigned to them."""
    least_stability: float = 0.75
    least_margin: float = 0.05
    """Silhouettes of 240 latents without clusters differ by some 0.02 from draw to draw."""
    most_overlap: float = 0.35
    least_items: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        require(2 <= self.least <= self.most, f"clusters are {self.least} to {self.most}; expected 2 or more")
        for name in ("resamples", "references", "components"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; expected at least 1")
        require(self.seed >= 0, f"seed is {self.seed}; expected 0 or more")
        require(self.most_latents >= 20, f"most_latents is {self.most_latents}; expected at least 20")


DEFAULT_SETTINGS = ClusterSettings()


@dataclass(frozen=True)
class ClusterChoice:
    """What there is to say of one number of clusters."""

    clusters: int
    silhouette: float
    reference_silhouette: float
    """The highest of clouds without clusters."""
    stability: float
    """Mean adjusted Rand index of clusterings of samples: 1 is always the same, 0 is chance."""
    overlap: float
    """Latents midway between two centres over those at the emptier centre, of the pair where this is most: 0 is a gap,
    1 and more is one cloud."""
    items: int
    """Items that the cluster with the fewest has latents of."""
    accepted: bool


def fit_clusters(points: Array, clusters: int, seed: int) -> tuple[Array, Labels]:
    """Centres `(k, P)`, and the cluster of each point."""
    from sklearn.cluster import KMeans

    fitted = KMeans(clusters, n_init=_STARTS, random_state=seed % _SEEDS).fit(points)
    return fitted.cluster_centers_.astype(np.float32), fitted.labels_.astype(np.int64)


def weigh_clusters(points: Array, items: NDArray[np.str_], clusters: int, settings: ClusterSettings) -> ClusterChoice:
    """What there is to say of so many clusters of points `(N, P)`, each of an item."""
    rng = np.random.default_rng((settings.seed, clusters))
    centres, labels = fit_clusters(points, clusters, settings.seed)
    silhouette = _silhouette(points, labels)
    stability = float(np.mean([_agreement(points, items, clusters, rng) for _ in range(settings.resamples)]))
    clouds = [rng.normal(0.0, points.std(axis=0), points.shape).astype(np.float32) for _ in range(settings.references)]
    reference = max(_silhouette(cloud, fit_clusters(cloud, clusters, settings.seed)[1]) for cloud in clouds)
    overlap = _overlap(points, labels, centres)
    fewest = min(len(set(items[labels == number].tolist())) for number in range(clusters))
    choice = ClusterChoice(clusters, silhouette, reference, stability, overlap, fewest, False)
    return replace(choice, accepted=not _why_not(choice, settings))


def _why_not(choice: ClusterChoice, settings: ClusterSettings) -> str:
    """Why a number of clusters is not accepted; empty if it is."""
    if choice.stability < settings.least_stability:
        return f"do not repeat themselves (stability {choice.stability:.2f}, needed is {settings.least_stability:g})"
    if choice.silhouette < choice.reference_silhouette + settings.least_margin:
        return (
            f"repeat themselves, but are no better separated (silhouette {choice.silhouette:.3f}) than those of a "
            f"cloud without clusters ({choice.reference_silhouette:.3f})"
        )
    if choice.overlap > settings.most_overlap:
        return (
            f"repeat themselves, but have no gap between them: midway there are {choice.overlap:.1f} times as many "
            f"latents as at the emptier centre (at most {settings.most_overlap:g})"
        )
    if choice.items < settings.least_items:
        return f"repeat themselves, but one has latents of {choice.items} items only: outliers, and no cluster"
    return ""


def _overlap(points: Array, labels: Labels, centres: Array) -> float:
    """The most, over pairs of clusters, of their latents midway between both centres, as a share of those at the
    emptier centre: counted along the line through both, in windows of equal width."""
    worst = 0.0
    for first, second in combinations(range(len(centres)), 2):
        way = centres[second] - centres[first]
        pair = points[(labels == first) | (labels == second)]
        along = 2 * ((pair - centres[first]) @ way) / max(float(way @ way), 1e-12) - 1  # -1 and 1 at the centres
        here, midway, there = (int((np.abs(along - at) <= _WINDOW).sum()) for at in (-1, 0, 1))
        worst = max(worst, midway / max(min(here, there), 1))
    return worst


def _agreement(points: Array, items: NDArray[np.str_], clusters: int, rng: np.random.Generator) -> float:
    """How alike two clusterings are that were each found on a sample of the items."""
    from sklearn.metrics import adjusted_rand_score

    names, found = np.unique(items), []
    for _ in range(2):
        some = rng.choice(names, round(_SAMPLED_ITEMS * len(names)), replace=False)
        sampled = points[np.isin(items, some)]
        centres, _labels = fit_clusters(sampled, min(clusters, len(sampled)), int(rng.integers(2**31)))
        found.append(((points[:, None, :] - centres[None]) ** 2).sum(axis=2).argmin(axis=1))
    return float(adjusted_rand_score(*found))


def _silhouette(points: Array, labels: Labels) -> float:
    from sklearn.metrics import silhouette_score

    if not 1 < len(set(labels.tolist())) < len(points):
        return -1.0
    return float(silhouette_score(points, labels))


def why_none(choices: Sequence[ClusterChoice], settings: ClusterSettings) -> str:
    """Why none of the numbers that were tried is accepted."""
    stable = [choice for choice in choices if choice.stability >= settings.least_stability]
    if not stable:
        best = max(choice.stability for choice in choices)
        return f"no clustering repeats itself: the best stability is {best:.2f}, needed is {settings.least_stability:g}"
    best_of = max(stable, key=lambda choice: choice.silhouette - choice.reference_silhouette)
    return f"{best_of.clusters} clusters {_why_not(best_of, settings)}"
