"""What a cluster of latents is for: the suite answered without it, beside as many latents dropped at random.

While an answer is generated, each insertion's latents are told apart as they are woven, and those of the cluster do not
stay (`memgen.generation.interventions` says what that means for either form of memory). For the comparison as many
latents of the same answer are dropped, drawn at random from all that it wove without the cluster's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from torch import Tensor

from memgen.analysis.clusters import Clustering, ClusterModel
from memgen.analysis.effects import RULE, FailureMove, Label, confidence, judge_drop
from memgen.analysis.items import ReadAnalysisItem
from memgen.analysis.runs import AnalysisRun, Outcome, run_items
from memgen.config_mapping import FromMapping, require
from memgen.generation.interventions import Intervention
from memgen.generation.requests import GenerationRequest
from memgen.memory.host import AdapterHost

Keep = Callable[[int, Tensor], Sequence[bool]]


@dataclass(frozen=True)
class InterventionSettings(FromMapping):
    """How a cluster's drop is compared.

    Raises:
        ConfigError: a value is outside its range.
    """

    draws: int = 5
    """Random drops that each cluster's is compared with."""

    def __post_init__(self) -> None:
        require(self.draws >= 1, f"draws is {self.draws}; expected at least 1")


@dataclass(frozen=True)
class ClusterEffect:
    """What dropping one cluster does."""

    cluster: int
    dropped_latents: int
    """Latents that were dropped, of all items."""
    random_latents: float
    """The same at random, mean over the draws: as many, but for answers that then end earlier."""
    accuracy: float
    random_accuracy: float
    moves: tuple[FailureMove, ...]
    role: str
    """`planning memory`, `procedural memory`, `working memory` or `no clear role`."""
    reason: str


@dataclass(frozen=True)
class InterventionReport:
    items: int
    """Items that were judged in every run."""
    accuracy: float
    """With all latents."""
    effects: tuple[ClusterEffect, ...]
    """Empty if there are no clusters."""
    confidence: float | None
    """What each interval has; None if there are no clusters."""
    rule: str = RULE


def intervene(
    host: AdapterHost,
    memories: Sequence[str | None],
    items: Sequence[ReadAnalysisItem],
    clustering: Clustering,
    *,
    run: AnalysisRun,
    settings: InterventionSettings = InterventionSettings(),
) -> InterventionReport:
    """Answer the items with all latents, then for each cluster without its latents and `draws` times without random
    ones.

    Raises:
        ConfigError: as `run_items`.
        UnknownGrader, SandboxUnavailable: as `memgen.evaluation.accuracy.score_items`.
    """
    model = clustering.model
    untouched = _answered(host, memories, items, run, "untouched", lambda _: None)
    drops = [] if model is None else [_Drops(model, cluster, len(items)) for cluster in range(model.clusters)]
    for drop in drops:
        drop.outcomes = _answered(host, memories, items, run, f"cluster {drop.cluster}", drop.keep)
        for draw in range(settings.draws):
            keep = partial(drop.keep_at_random, seeds=(run.seed, drop.cluster, draw))
            drop.draws.append(_answered(host, memories, items, run, f"random {drop.cluster}.{draw}", keep))
    runs = [untouched, *(outcomes for drop in drops for outcomes in (drop.outcomes, *drop.draws))]
    judged = [place for place in range(len(items)) if all(outcomes[place].judged for outcomes in runs)]
    require(bool(judged), f"none of {len(items)} items can be judged; the items' notes say why")
    return InterventionReport(
        len(judged),
        _accuracy(untouched, judged),
        tuple(drop.effect(untouched, judged, len(drops)) for drop in drops),
        confidence(len(drops)) if drops else None,
    )


class _Drops:
    """One cluster's runs, and how many latents each of them dropped of each item."""

    def __init__(self, model: ClusterModel, cluster: int, items: int) -> None:
        self.cluster = cluster
        self.outcomes: list[Outcome] = []
        self.draws: list[list[Outcome]] = []
        self._model = model
        self._woven = [0] * items
        self._dropped = [0] * items
        self._random_dropped = 0

    def keep(self, place: int) -> Keep:
        """Drops what is of the cluster."""

        def keep(_: int, latents: Tensor) -> list[bool]:
            own = self._model.assign(latents.float().cpu().numpy()) == self.cluster
            self._woven[place] += len(own)
            self._dropped[place] += int(own.sum())
            return [not one for one in own.tolist()]

        return keep

    def keep_at_random(self, place: int, *, seeds: tuple[int, int, int]) -> Keep:
        """Drops as many of the item's latents, drawn beforehand from as many as were woven without the cluster's."""
        rng = np.random.default_rng((*seeds, place))
        chosen = set(rng.permutation(self._woven[place])[: self._dropped[place]].tolist())
        seen = 0

        def keep(_: int, latents: Tensor) -> list[bool]:
            nonlocal seen
            stays = [seen + number not in chosen for number in range(len(latents))]
            seen += len(latents)
            self._random_dropped += stays.count(False)
            return stays

        return keep

    def effect(self, untouched: Sequence[Outcome], judged: Sequence[int], clusters: int) -> ClusterEffect:
        """The effect on the items judged, as one of so many clusters."""
        verdict = judge_drop(
            _labels(untouched, judged),
            _labels(self.outcomes, judged),
            [_labels(outcomes, judged) for outcomes in self.draws],
            clusters=clusters,
        )
        return ClusterEffect(
            self.cluster,
            sum(self._dropped),
            self._random_dropped / len(self.draws),
            _accuracy(self.outcomes, judged),
            sum(_accuracy(outcomes, judged) for outcomes in self.draws) / len(self.draws),
            verdict.moves,
            verdict.role,
            verdict.reason,
        )


def _answered(
    host: AdapterHost,
    memories: Sequence[str | None],
    items: Sequence[ReadAnalysisItem],
    run: AnalysisRun,
    phase: str,
    keep: Callable[[int], Keep | None],
) -> list[Outcome]:
    """Every item's outcome, with what `keep` keeps of the latents of the item at a place."""

    def change(place: int, request: GenerationRequest) -> GenerationRequest:
        return replace(request, intervention=Intervention(keep=keep(place)))

    parts = run_items(host, memories, items, run, phase=phase, change=change)
    return [outcome for some in parts for outcome in some]


def _labels(outcomes: Sequence[Outcome], places: Sequence[int]) -> list[Label]:
    return [outcomes[place].failure for place in places]


def _accuracy(outcomes: Sequence[Outcome], places: Sequence[int]) -> float:
    return sum(outcomes[place].right for place in places) / len(places)
