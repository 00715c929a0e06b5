"""How far a version's latents are from another's, on the same items. Knows no training.

Two numbers, because two things can change. The cosine of an item's mean latents tells whether they point where they
did. Hidden states all point much the same way (Ethayarajh 2019), so it stands beside the cosine with other items'
latents, which it must exceed to say anything of an item. Linear CKA (Kornblith et al., arXiv 1905.00414) tells whether
items are still as like and unlike one another as they were, however all of them were turned or scaled: a memory that
says the same in another code has a low cosine and a high CKA. It is debiased (Nguyen et al., arXiv 2010.15327): with
fewer items than numbers in a latent, which is the rule, plain CKA is near 1 for any two versions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memgen.analysis.latents import Latents
from memgen.errors import ConfigError

_FEWEST = 4
"""Items that debiased CKA is defined for."""
_ALIKE = 0.9
Means = NDArray[np.float64]


@dataclass(frozen=True)
class TaskDrift:
    task: str
    items: int
    cosine: float
    """Mean over the items."""
    least_cosine: float


@dataclass(frozen=True)
class Drift:
    items: int
    """Items that both versions wove latents for."""
    cosine: float
    """Mean over the items of the cosine between the versions' mean latents; 1 is no change of direction."""
    other_items_cosine: float | None
    """The same between each item's and all other items': what latents share whatever they are of. None below two
    items."""
    cka: float | None
    """Linear CKA of the items' mean latents: 1 is the same but for a turn and a scale, about 0 is unrelated. None below
    four items, or if one version's latents don't tell items apart."""
    tasks: tuple[TaskDrift, ...]
    meaning: str


def drift(before: Latents, after: Latents, *, forms: Sequence[str] = ()) -> Drift:
    """What moved between two versions' latents.

    Args:
        forms: those of both versions' memories, where they are known.

    Raises:
        ConfigError: no item has latents of both, or their sizes differ.
    """
    ours, theirs = item_means(before), item_means(after)
    shared = [item for item in ours if item in theirs]
    if not shared or before.states.shape[1] != after.states.shape[1]:
        sizes = before.states.shape[1], after.states.shape[1]
        raise ConfigError(
            f"the versions share {len(shared)} items with latents, of {sizes[0]} and {sizes[1]} numbers each; expected "
            "the same items and base: collect both with the same seed"
        )
    old, new = (np.stack([means[item] for item in shared]) for means in (ours, theirs))
    cosines = _cosines(old, new)
    tasks = {place.item: place.task for place in before.places}
    by_task: dict[str, list[float]] = {}
    for item, cosine in zip(shared, cosines.tolist(), strict=True):
        by_task.setdefault(tasks[item], []).append(cosine)
    cosine, cka = float(cosines.mean()), linear_cka(old, new)
    return Drift(
        len(shared),
        cosine,
        _others(old, new),
        cka,
        tuple(TaskDrift(task, len(some), sum(some) / len(some), min(some)) for task, some in by_task.items()),
        _meaning(cosine, cka, forms),
    )


def item_means(latents: Latents) -> Mapping[str, Means]:
    """The mean `(H,)` of each item's latents, in the order in which the items came."""
    sums: dict[str, Means] = {}
    counts: dict[str, int] = {}
    for place, state in zip(latents.places, latents.states, strict=True):
        sums[place.item] = sums.get(place.item, 0.0) + state.astype(np.float64)
        counts[place.item] = counts.get(place.item, 0) + 1
    return {item: total / counts[item] for item, total in sums.items()}


def linear_cka(x: Means, y: Means) -> float | None:
    """Debiased linear CKA of features `(n, p)` and `(n, q)` of the same n things.

    1 for `y = x @ q` with any rotation q; about 0 for independent noise, whatever p is. None below four things, or if
    either's features don't tell them apart.
    """
    if len(x) < _FEWEST:
        return None
    ours, theirs = _similarities(x), _similarities(y)
    scale = _dependence(ours, ours) * _dependence(theirs, theirs)
    return float(_dependence(ours, theirs) / np.sqrt(scale)) if scale > 0 else None


def _similarities(x: Means) -> Means:
    """`(n, n)`, centred features multiplied, without those of a thing with itself."""
    centred = x - x.mean(axis=0)
    found = np.asarray(centred @ centred.T, np.float64)
    np.fill_diagonal(found, 0.0)
    return found


def _dependence(k: Means, m: Means) -> float:
    """The unbiased estimator of HSIC from two such matrices (Song et al. 2012, eq. 5)."""
    n = len(k)
    pairs = k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 * (k @ m).sum() / (n - 2)
    return float(((k * m).sum() + pairs) / (n * (n - 3)))


def _cosines(x: Means, y: Means) -> Means:
    return np.asarray((_directions(x) * _directions(y)).sum(axis=1), np.float64)


def _others(x: Means, y: Means) -> float | None:
    """Mean cosine of every row of x with every other row of y."""
    n = len(x)
    if n < 2:
        return None
    every = _directions(x).sum(axis=0) @ _directions(y).sum(axis=0)
    return float((every - _cosines(x, y).sum()) / (n * (n - 1)))


def _directions(x: Means) -> Means:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12), np.float64)


def _meaning(cosine: float, cka: float | None, forms: Sequence[str]) -> str:
    if len(set(forms)) > 1:
        return (
            f"the versions weave in different forms ({forms[0]} and {forms[1]}), whose directions can't be compared; "
            f"{_items_apart(cka)}"
        )
    if cosine >= _ALIKE and (cka is None or cka >= _ALIKE):
        return "the latents point where they did"
    if cosine >= _ALIKE:
        return "the latents point much where they did, but tell the items apart differently: what is woven has changed"
    if cka is None:
        return "the latents point elsewhere; there are too few items to tell whether they still tell them apart alike"
    if cka >= _ALIKE:
        return "the latents point elsewhere, but tell the items apart as they did: the same in another code"
    return "the latents point elsewhere and tell the items apart differently: what is woven has changed"


def _items_apart(cka: float | None) -> str:
    if cka is None:
        return "there are too few items to tell whether they tell them apart alike"
    return "they tell the items apart alike" if cka >= _ALIKE else "they tell the items apart differently"
