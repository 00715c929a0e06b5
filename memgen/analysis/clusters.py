"""Clusters of latents, where there are any: K-means, with what it takes to believe in them.

K-means splits whatever it is given, noise too. A number of clusters k is accepted if both hold:
- stability: clusterings of two samples of the items agree, by a mean adjusted Rand index of `least_stability` or more
  (Ben-Hur, Elisseeff and Guyon 2002). Items are drawn, not latents, because the latents of one answer are alike;
- separation: the mean silhouette exceeds, by `least_margin`, that of every clustering of clouds which are one Gaussian
  with the latents' own spread along each axis: an elongated cloud is split stably too (the null of SigClust, Liu et al.
  2008).
Of the accepted k the one with the highest silhouette is taken; with none there are no clusters.

Latents are compared by direction, so each is brought to length 1, and by their main axes. What a query is decides much
of what it weaves, so clusters may be no more than that: `explained_by` says how far.
"""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from memgen.analysis.latents import Array, LatentPlace, Latents
from memgen.config_mapping import FromMapping, require
from memgen.errors import ArtifactCorrupt

_BLOCK = 4096
"""Latents that are read from their file at a time."""
_SAMPLED_ITEMS = 0.8
_SEEDS = 2**32
"""Seeds that scikit-learn takes."""
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
    seed: int = 0

    def __post_init__(self) -> None:
        require(2 <= self.least <= self.most, f"clusters are {self.least} to {self.most}; expected 2 or more")
        for name in ("resamples", "references", "components"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; expected at least 1")
        require(self.seed >= 0, f"seed is {self.seed}; expected 0 or more")
        require(self.most_latents >= 20, f"most_latents is {self.most_latents}; expected at least 20")


@dataclass(frozen=True)
class ClusterChoice:
    """What there is to say of one number of clusters."""

    clusters: int
    silhouette: float
    reference_silhouette: float
    """The highest of clouds without clusters."""
    stability: float
    """Mean adjusted Rand index of clusterings of samples: 1 is always the same, 0 is chance."""
    accepted: bool


@dataclass(frozen=True)
class ClusterSummary:
    number: int
    latents: int
    share: float
    tasks: dict[str, int]
    """Its latents by task."""
    insertions: dict[str, int]
    """Its latents by where they were woven: `prompt` or `answer`."""
    right_share: float
    """Share of its latents that stand in right answers."""


@dataclass(frozen=True)
class ClusterReport:
    verdict: str
    """`clusters` or `no clusters`."""
    reason: str
    choices: tuple[ClusterChoice, ...]
    clusters: tuple[ClusterSummary, ...]
    explained_by: dict[str, float]
    """Normalised mutual information of the clusters with the `task`, the `query` that wove a latent, whether that was
    at the prompt's end (`insertion`), and whether the answer is right (`outcome`): at 1 they are nothing but that."""


@dataclass(frozen=True)
class ClusterModel:
    """Tells to which cluster a latent belongs."""

    mean: Array
    """`(H,)`."""
    axes: Array
    """`(P, H)`."""
    centres: Array
    """`(k, P)`."""

    @property
    def clusters(self) -> int:
        return len(self.centres)

    def assign(self, states: Array) -> Labels:
        """Numbers `(N,)` of the clusters whose centres are nearest to latents `(N, H)`."""
        points = (_directions(states) - self.mean) @ self.axes.T
        distances = ((points[:, None, :] - self.centres[None]) ** 2).sum(axis=2)
        return np.asarray(distances.argmin(axis=1), np.int64)

    def directions(self) -> Array:
        """The centres among the latents' directions, `(k, H)`."""
        return self.mean + self.centres @ self.axes

    def save(self, path: Path) -> None:
        save_file({"mean": self.mean, "axes": self.axes, "centres": self.centres}, path)

    @classmethod
    def load(cls, path: Path) -> "ClusterModel":
        """Raises ArtifactCorrupt if the file is none that `save` wrote."""
        try:
            return cls(**load_file(path))
        except (SafetensorError, TypeError, OSError) as error:
            raise ArtifactCorrupt(f"{path}: no clusters of latents: {error}") from error


@dataclass(frozen=True)
class Clustering:
    report: ClusterReport
    model: ClusterModel | None
    """None if there are no clusters."""


def find_clusters(latents: Latents, settings: ClusterSettings = ClusterSettings()) -> Clustering:
    """The clusters of some latents, if they have any. Equal settings give equal clusters."""
    from threadpoolctl import threadpool_limits  # with scikit-learn, slow to import: no other job needs it

    rng = np.random.default_rng(settings.seed)
    drawn = np.sort(rng.permutation(len(latents))[: settings.most_latents])
    states = _directions(np.asarray(latents.states[drawn]))
    items = np.array([latents.places[row].item for row in drawn])
    distinct = len(np.unique(states.round(5), axis=0))
    if distinct < 2 * settings.least or len(set(items.tolist())) < 2 * settings.least:
        found = len(set(items.tolist()))
        return _none(f"{distinct} distinct latents of {found} items are too few to look for clusters in", ())
    with threadpool_limits(limits=1), warnings.catch_warnings():
        # Sums of several threads differ in their last bits, and a few equal points are no reason to warn.
        warnings.filterwarnings("ignore", module="sklearn")
        mean, axes = _main_axes(states, settings.components)
        points = np.asarray((states - mean) @ axes.T, np.float32)
        tried = range(settings.least, min(settings.most, distinct - 1) + 1)
        choices = tuple(_choice(points, items, k, settings) for k in tried)
        accepted = [choice for choice in choices if choice.accepted]
        if not accepted:
            return _none(_why_none(choices, settings), choices)
        best = max(accepted, key=lambda choice: choice.silhouette)
        centres = _fit(points, best.clusters, settings.seed)[0]
    model = ClusterModel(mean, axes, centres)
    return Clustering(_report(latents, model, best, choices), model)


def assign_all(model: ClusterModel, latents: Latents) -> Labels:
    """The cluster of every latent, read a block at a time."""
    starts = range(0, len(latents), _BLOCK)
    return np.concatenate([model.assign(np.asarray(latents.states[at : at + _BLOCK])) for at in starts])


def _directions(states: Array) -> Array:
    lengths = np.linalg.norm(states, axis=1, keepdims=True)
    return np.asarray(states / np.maximum(lengths, 1e-12), np.float32)


def _main_axes(states: Array, components: int) -> tuple[Array, Array]:
    from sklearn.decomposition import PCA

    pca = PCA(min(components, *states.shape), svd_solver="full").fit(states)
    return pca.mean_.astype(np.float32), pca.components_.astype(np.float32)


def _fit(points: Array, clusters: int, seed: int) -> tuple[Array, Labels]:
    """Centres `(k, P)`, and the cluster of each point."""
    from sklearn.cluster import KMeans

    fitted = KMeans(clusters, n_init=_STARTS, random_state=seed % _SEEDS).fit(points)
    return fitted.cluster_centers_.astype(np.float32), fitted.labels_.astype(np.int64)


def _choice(points: Array, items: NDArray[np.str_], clusters: int, settings: ClusterSettings) -> ClusterChoice:
    rng = np.random.default_rng((settings.seed, clusters))
    silhouette = _silhouette(points, _fit(points, clusters, settings.seed)[1])
    stability = float(np.mean([_agreement(points, items, clusters, rng) for _ in range(settings.resamples)]))
    clouds = [rng.normal(0.0, points.std(axis=0), points.shape).astype(np.float32) for _ in range(settings.references)]
    reference = max(_silhouette(cloud, _fit(cloud, clusters, settings.seed)[1]) for cloud in clouds)
    accepted = stability >= settings.least_stability and silhouette >= reference + settings.least_margin
    return ClusterChoice(clusters, silhouette, reference, stability, accepted)


def _agreement(points: Array, items: NDArray[np.str_], clusters: int, rng: np.random.Generator) -> float:
    """How alike two clusterings are that were each found on a sample of the items."""
    from sklearn.metrics import adjusted_rand_score

    names, found = np.unique(items), []
    for _ in range(2):
        some = rng.choice(names, round(_SAMPLED_ITEMS * len(names)), replace=False)
        sampled = points[np.isin(items, some)]
        centres, _labels = _fit(sampled, min(clusters, len(sampled)), int(rng.integers(2**31)))
        found.append(((points[:, None, :] - centres[None]) ** 2).sum(axis=2).argmin(axis=1))
    return float(adjusted_rand_score(*found))


def _silhouette(points: Array, labels: Labels) -> float:
    from sklearn.metrics import silhouette_score

    if not 1 < len(set(labels.tolist())) < len(points):
        return -1.0
    return float(silhouette_score(points, labels))


def _none(reason: str, choices: tuple[ClusterChoice, ...]) -> Clustering:
    return Clustering(ClusterReport("no clusters", reason, choices, (), {}), None)


def _why_none(choices: Sequence[ClusterChoice], settings: ClusterSettings) -> str:
    stable = [choice for choice in choices if choice.stability >= settings.least_stability]
    if not stable:
        best = max(choice.stability for choice in choices)
        return f"no clustering repeats itself: the best stability is {best:.2f}, needed is {settings.least_stability:g}"
    best_of = max(stable, key=lambda choice: choice.silhouette - choice.reference_silhouette)
    return (
        f"{best_of.clusters} clusters repeat themselves, but are no better separated (silhouette "
        f"{best_of.silhouette:.3f}) than those of a cloud without clusters ({best_of.reference_silhouette:.3f})"
    )


def _report(
    latents: Latents, model: ClusterModel, best: ClusterChoice, choices: tuple[ClusterChoice, ...]
) -> ClusterReport:
    from sklearn.metrics import normalized_mutual_info_score

    labels = assign_all(model, latents)
    members: list[list[LatentPlace]] = [[] for _ in range(model.clusters)]
    for label, place in zip(labels.tolist(), latents.places, strict=True):
        members[label].append(place)
    aspects = {
        "task": [place.task for place in latents.places],
        "query": [f"{place.at_prompt_end} {place.latent}" for place in latents.places],
        "insertion": [place.at_prompt_end for place in latents.places],
        "outcome": [place.right for place in latents.places],
    }
    reason = (
        f"{best.clusters} clusters: silhouette {best.silhouette:.3f} (without clusters at most "
        f"{best.reference_silhouette:.3f}), stability {best.stability:.2f}"
    )
    return ClusterReport(
        "clusters",
        reason,
        choices,
        tuple(_summary(number, some, len(latents)) for number, some in enumerate(members)),
        {name: float(normalized_mutual_info_score(aspect, labels)) for name, aspect in aspects.items()},
    )


def _summary(number: int, places: Sequence[LatentPlace], of: int) -> ClusterSummary:
    return ClusterSummary(
        number,
        len(places),
        len(places) / of,
        dict(Counter(place.task for place in places)),
        dict(Counter("prompt" if place.at_prompt_end else "answer" for place in places)),
        sum(place.right for place in places) / len(places) if places else 0.0,
    )
