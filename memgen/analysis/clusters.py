"""Clusters of latents, where there are any: K-means, with what it takes to believe in them.

Of the numbers of clusters that are tried and accepted (`memgen.analysis.cluster_evidence`) the one with the highest
silhouette is taken; with none there are no clusters.

Latents are compared by direction, so each is brought to length 1, and by their main axes. What a query is decides much
of what it weaves, so clusters may be no more than that: `explained_by` says how far.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from memgen.analysis.cluster_evidence import (
    DEFAULT_SETTINGS,
    ClusterChoice,
    ClusterSettings,
    Labels,
    fit_clusters,
    weigh_clusters,
    why_none,
)
from memgen.analysis.latents import Array, LatentPlace, Latents
from memgen.errors import ArtifactCorrupt

_BLOCK = 4096
"""Latents that are read from their file at a time."""


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
    """Share of what there is to know of a latent's cluster that is known with its `task`, with the `query` that wove
    it, with whether that was at the prompt's end (`insertion`), or with whether the answer is right (`outcome`). 0 is
    what chance gives; at 1 the clusters are nothing but that."""


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


def find_clusters(
    latents: Latents, settings: ClusterSettings = DEFAULT_SETTINGS, *, on_number: Callable[[], None] = lambda: None
) -> Clustering:
    """The clusters of some latents, if they have any. Equal settings give equal clusters.

    Args:
        on_number: called before each number of clusters that is tried. What it raises ends the search.
    """
    from threadpoolctl import threadpool_limits  # with scikit-learn, slow to import: no other job needs it

    rng = np.random.default_rng(settings.seed)
    drawn = np.sort(rng.permutation(len(latents))[: settings.most_latents])
    states = _directions(np.asarray(latents.states[drawn]))
    items = np.array([latents.places[row].item for row in drawn])
    distinct = len(np.unique(states.round(5), axis=0))
    if distinct < 2 * settings.least or len(set(items.tolist())) < 2 * settings.least:
        answered = len(set(items.tolist()))
        return _none(f"{distinct} distinct latents of {answered} items are too few to look for clusters in", ())
    with threadpool_limits(limits=1), warnings.catch_warnings():
        # Sums of several threads differ in their last bits, and a few equal points are no reason to warn.
        warnings.filterwarnings("ignore", module="sklearn")
        mean, axes = _main_axes(states, settings.components)
        points = np.asarray((states - mean) @ axes.T, np.float32)
        tried = range(settings.least, min(settings.most, distinct - 1) + 1)
        found = []
        for number in tried:
            on_number()
            found.append(weigh_clusters(points, items, number, settings))
        choices = tuple(found)
        accepted = [choice for choice in choices if choice.accepted]
        if not accepted:
            return _none(why_none(choices, settings), choices)
        best = max(accepted, key=lambda choice: choice.silhouette)
        centres = fit_clusters(points, best.clusters, settings.seed)[0]
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


def _none(reason: str, choices: tuple[ClusterChoice, ...]) -> Clustering:
    return Clustering(ClusterReport("no clusters", reason, choices, (), {}), None)


def _report(
    latents: Latents, model: ClusterModel, best: ClusterChoice, choices: tuple[ClusterChoice, ...]
) -> ClusterReport:
    labels = assign_all(model, latents)
    members: list[list[LatentPlace]] = [[] for _ in range(model.clusters)]
    for label, place in zip(labels.tolist(), latents.places, strict=True):
        members[label].append(place)
    aspects: dict[str, Sequence[object]] = {
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
        {name: _explained(labels, aspect) for name, aspect in aspects.items()},
    )


def _explained(labels: Labels, aspect: Sequence[object]) -> float:
    """Mutual information over the clusters' entropy, both less what chance gives (Vinh, Epps and Bailey 2010).

    Two clusters of four queries each are all query, 1.0; a mean of both entropies below it would say a half.
    """
    from sklearn.metrics import mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

    table = contingency_matrix(aspect, labels, sparse=True)
    most = mutual_info_score(labels, labels)
    chance = expected_mutual_information(table, len(labels))
    if most - chance < 1e-12:
        return 0.0
    return float(max(0.0, (mutual_info_score(aspect, labels) - chance) / (most - chance)))


def _summary(number: int, places: Sequence[LatentPlace], of: int) -> ClusterSummary:
    return ClusterSummary(
        number,
        len(places),
        len(places) / of,
        dict(Counter(place.task for place in places)),
        dict(Counter("prompt" if place.at_prompt_end else "answer" for place in places)),
        sum(place.right for place in places) / len(places) if places else 0.0,
    )
