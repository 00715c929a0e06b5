"""Dropping clusters while answers are generated: a planted role is found, noise has none, and counts are kept."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from memgen.analysis import intervention
from memgen.analysis.clusters import Clustering, ClusterModel, ClusterReport
from memgen.analysis.effects import NO_ROLE
from memgen.analysis.failures import FailureType
from memgen.analysis.intervention import InterventionSettings, intervene
from memgen.analysis.items import ReadAnalysisItem, read_analysis_items
from memgen.analysis.runs import AnalysisRun, Change, Outcome
from memgen.artifacts.artifact import load_artifact
from memgen.errors import ConfigError
from memgen.evaluation.accuracy import ReadItem
from memgen.evaluation.grading import ItemScore
from memgen.generation.requests import Decision, GenerationRequest
from memgen.memory.host import AdapterHost
from tests.memgen.analysis.samples import RUN, echoing, item, outcomes_of

HIDDEN = 6


def clustering(centres: np.ndarray) -> Clustering:
    """Clusters around directions `(k, H)`."""
    hidden = centres.shape[1]
    model = ClusterModel(np.zeros(hidden, np.float32), np.eye(hidden, dtype=np.float32), centres.astype(np.float32))
    return Clustering(ClusterReport("clusters", "", (), (), {}), model)


NO_CLUSTERS = Clustering(ClusterReport("no clusters", "noise", (), (), {}), None)
THREE = clustering(np.eye(HIDDEN)[:3])


class Answerer:
    """Stands for a model: each answer weaves two insertions of four latents, the clusters 0, 1, 2 and 2 each time, and
    whether it is right is for `fails` to say, from the clusters of the latents that stayed."""

    def __init__(self, fails: Callable[[int, list[int]], FailureType | None]) -> None:
        self._fails = fails
        self.phases: list[str] = []

    def __call__(
        self,
        _host: object,
        _memories: Sequence[str | None],
        items: Sequence[ReadAnalysisItem],
        _run: AnalysisRun,
        *,
        phase: str,
        change: Change,
    ) -> Iterator[list[Outcome]]:
        self.phases.append(phase)
        kinds = [0, 1, 2, 2]
        for place, one in enumerate(items):
            keep = change(place, GenerationRequest((1, 2))).intervention.keep
            stayed: list[int] = []
            for number in range(2):
                stays = keep(number, torch.eye(HIDDEN)[kinds]) if keep else [True] * 4
                stayed += [kind for kind, stay in zip(kinds, stays, strict=True) if stay]
            failure = self._fails(place, stayed)
            score = ItemScore(float(failure is None), "")
            yield [Outcome(one, score, failure, (Decision(1, 1.0, True, len(stayed)),))]


@pytest.fixture
def made_items() -> list[ReadAnalysisItem]:
    return [ReadAnalysisItem(item(n), ReadItem(item(n).held_out)) for n in range(60)]


def effects_of(
    answerer: Answerer, items: list[ReadAnalysisItem], monkeypatch: pytest.MonkeyPatch, draws: int = 5
) -> intervention.InterventionReport:
    monkeypatch.setattr(intervention, "run_items", answerer)
    settings = InterventionSettings(draws=draws)
    return intervene(None, ["m"] * len(items), items, THREE, run=RUN, settings=settings)


def test_a_planted_cluster_has_its_role(made_items: list[ReadAnalysisItem], monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers fail by their plan if, and only if, neither latent of cluster 1 stayed."""
    answerer = Answerer(lambda _, stayed: None if 1 in stayed else FailureType.PLANNING)
    report = effects_of(answerer, made_items, monkeypatch)
    assert [effect.role for effect in report.effects] == [NO_ROLE, "planning memory", NO_ROLE]
    assert (report.items, report.accuracy) == (60, 1.0)
    planted = report.effects[1]
    assert (planted.dropped_latents, planted.random_latents) == (120, 120.0)
    assert planted.accuracy == 0.0
    assert planted.random_accuracy > 0.8
    assert report.effects[0].accuracy == report.effects[2].accuracy == 1.0
    assert report.effects[2].dropped_latents == 240, "half of all: random drops hit cluster 1, its own do not"
    assert answerer.phases[:3] == ["untouched", "cluster 0", "random 0.0"]
    assert len(answerer.phases) == 1 + 3 * 6


def test_noise_has_no_clear_role(made_items: list[ReadAnalysisItem], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every third answer fails somehow, whatever was dropped."""
    rng = random.Random(8)
    noisy = Answerer(lambda *_: rng.choice(list(FailureType)) if rng.random() < 1 / 3 else None)
    report = effects_of(noisy, made_items, monkeypatch)
    assert [effect.role for effect in report.effects] == [NO_ROLE] * 3
    assert not any(move.rises for effect in report.effects for move in effect.moves)


def test_latents_that_only_count_have_no_role(
    made_items: list[ReadAnalysisItem], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer fails as latents go, whichever they are: the very thing that random drops control for."""
    fragile = Answerer(lambda place, stayed: FailureType.DEMAND if len(stayed) < 5 + place % 3 else None)
    report = effects_of(fragile, made_items, monkeypatch)
    assert report.effects[2].accuracy < 0.5
    assert [effect.role for effect in report.effects] == [NO_ROLE] * 3


def test_without_the_control_it_would_have_one(
    made_items: list[ReadAnalysisItem], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the test above guards: against no drop at all, the same failures look like a role."""
    fragile = Answerer(lambda place, stayed: FailureType.DEMAND if len(stayed) < 5 + place % 3 else None)
    monkeypatch.setattr(intervention._Drops, "keep_at_random", lambda *_args, **_kwargs: None)
    assert effects_of(fragile, made_items, monkeypatch).effects[2].role == "working memory"


def test_random_drops_follow_the_seed(made_items: list[ReadAnalysisItem], monkeypatch: pytest.MonkeyPatch) -> None:
    def report() -> intervention.InterventionReport:
        answerer = Answerer(lambda _, stayed: None if 1 in stayed else FailureType.PLANNING)
        return effects_of(answerer, made_items, monkeypatch)

    assert report() == report()


def test_a_report_is_plain_data(made_items: list[ReadAnalysisItem], monkeypatch: pytest.MonkeyPatch) -> None:
    report = effects_of(Answerer(lambda *_: None), made_items, monkeypatch, draws=1)
    read = json.loads(json.dumps(asdict(report), allow_nan=False))
    assert [move["failure"] for move in read["effects"][0]["moves"]][-3:] == [
        "planning memory",
        "procedural memory",
        "working memory",
    ]
    assert "exactly one group" in read["rule"]


@pytest.fixture
def right_items(host: AdapterHost, random_artifact: Callable[..., Path]) -> list[ReadAnalysisItem]:
    """Items that the memory `m` answers right."""
    load_artifact(host, "m", random_artifact(max_insertions=2))
    return read_analysis_items(host, echoing(host, "m", 8))


def woven(host: AdapterHost, items: list[ReadAnalysisItem]) -> np.ndarray:
    """Every latent of the items, `(N, H)`."""

    def asking(_: int, request: GenerationRequest) -> GenerationRequest:
        return GenerationRequest(request.prompt_ids, request.sampling, request.memory, return_latents=True)

    outcomes = outcomes_of(host, "m", items, asking)
    found = [d.states for outcome in outcomes for d in outcome.decisions if d.states is not None]
    return torch.cat(found).float().numpy()


def test_a_real_cluster_is_dropped_while_answers_are_generated(
    host: AdapterHost, right_items: list[ReadAnalysisItem]
) -> None:
    """A cluster of all latents: without it the bare base answers, and so do random drops of as many. One that is far
    from all of them: nothing changes."""
    states = woven(host, right_items)
    main = (states / np.linalg.norm(states, axis=1, keepdims=True)).mean(axis=0)
    found = clustering(np.stack([np.zeros_like(main), 10 * main]))
    report = intervene(host, ["m"] * 8, right_items, found, run=RUN, settings=InterventionSettings(draws=2))
    everything, nothing = report.effects
    assert report.accuracy == 1.0
    assert nothing.dropped_latents == 0
    assert nothing.accuracy == nothing.random_accuracy == 1.0
    assert everything.dropped_latents >= 8 * 4
    assert everything.accuracy < 0.5
    assert everything.random_latents <= everything.dropped_latents
    bare = outcomes_of(host, None, right_items)
    assert everything.accuracy == sum(outcome.right for outcome in bare) / 8
    assert everything.role == nothing.role == NO_ROLE


def test_equal_runs_are_equal(host: AdapterHost, right_items: list[ReadAnalysisItem]) -> None:
    centres, some = woven(host, right_items)[:2], right_items[:4]
    found = clustering(centres / np.linalg.norm(centres, axis=1, keepdims=True))
    settings = InterventionSettings(draws=2)
    first, second = (intervene(host, ["m"] * 4, some, found, run=RUN, settings=settings) for _ in range(2))
    assert first.effects[0].dropped_latents
    assert first == second


def test_without_clusters_there_is_nothing_to_drop(host: AdapterHost, right_items: list[ReadAnalysisItem]) -> None:
    report = intervene(host, ["m"] * 8, right_items, NO_CLUSTERS, run=RUN)
    assert (report.effects, report.accuracy, report.confidence) == ((), 1.0, None)


def test_items_that_nobody_can_be_judged_on_are_no_evidence(host: AdapterHost) -> None:
    items = read_analysis_items(host, [item(0, "x" * (host.backbone.max_tokens + 1))])
    with pytest.raises(ConfigError, match="none of 1 items can be judged"):
        intervene(host, [None], items, NO_CLUSTERS, run=RUN)
    with pytest.raises(ConfigError, match="draws is 0"):
        InterventionSettings(draws=0)
