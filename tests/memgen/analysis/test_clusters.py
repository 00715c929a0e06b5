"""Clusters that are there are found; those that are not are not, which is what K-means alone gets wrong."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from memgen.analysis.cluster_evidence import ClusterSettings
from memgen.analysis.clusters import Clustering, ClusterModel, assign_all, find_clusters
from memgen.analysis.latents import Latents
from memgen.errors import ArtifactCorrupt, Cancelled, ConfigError
from tests.memgen.analysis.samples import made_latents, noise, planted

SETTINGS = ClusterSettings(most=5, resamples=4, references=10)


@pytest.mark.parametrize("clusters", [2, 3, 4])
def test_planted_clusters_are_found(clusters: int) -> None:
    latents = made_latents(planted(clusters, 240))
    found = find_clusters(latents, SETTINGS)
    assert (found.report.verdict, len(found.report.clusters)) == ("clusters", clusters)
    assert found.model is not None
    labels = assign_all(found.model, latents)
    truth = np.arange(240) % clusters
    assert all(len(set(labels[truth == k].tolist())) == 1 for k in range(clusters))
    assert len(set(labels.tolist())) == clusters
    assert sum(cluster.latents for cluster in found.report.clusters) == 240
    assert sum(cluster.share for cluster in found.report.clusters) == pytest.approx(1)


@pytest.mark.parametrize("seed", range(5))
def test_noise_has_no_clusters(seed: int) -> None:
    found = find_clusters(made_latents(noise(240, seed=seed)), SETTINGS)
    assert (found.report.verdict, found.model, found.report.clusters) == ("no clusters", None, ())
    assert found.report.choices
    assert "repeat" in found.report.reason


@pytest.mark.parametrize("seed", range(5))
def test_an_elongated_cloud_has_no_clusters(seed: int) -> None:
    """Its halves are found again and again, so stability alone would call them clusters."""
    states = noise(240, seed=seed) * 0.01
    states[:, 0] += 1.0  # away from 0: directions are compared
    states[:, 1] *= 15
    found = find_clusters(made_latents(states), SETTINGS)
    halves = found.report.choices[0]
    assert halves.stability >= SETTINGS.least_stability, "this control is to pass the first test and fail the second"
    assert found.report.verdict == "no clusters"
    assert "no better separated" in found.report.reason


def curved(count: int, turn: float, seed: int) -> NDArray[np.float32]:
    """Latents along an arc of so many radians: alike next to each other, and no two groups."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, turn, count)
    states = rng.normal(0, 0.05, (count, 32))
    states[:, 0] += 10
    states[:, 1] += np.cos(angle)
    states[:, 2] += np.sin(angle)
    return states.astype(np.float32)


def skewed(count: int, seed: int) -> NDArray[np.float32]:
    """One cloud with a long tail along each axis."""
    states = np.random.default_rng(seed).exponential(size=(count, 32)) * np.exp(-np.arange(32) / 6)
    states[:, 0] += 3
    return states.astype(np.float32)


def outlying(count: int, seed: int) -> NDArray[np.float32]:
    """One cloud, and three latents of one answer far from it."""
    states = noise(count, seed=seed) * 0.02
    states[:, 0] += 1
    states[:3, 1] += 1
    return states


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", ["skewed", "arc", "ring", "outliers"])
def test_one_cloud_of_any_shape_has_no_clusters(shape: str, seed: int) -> None:
    """All of these are stably split, and better than a Gaussian of their spread."""
    count = 160
    states = {
        "skewed": lambda: skewed(count, seed),
        "arc": lambda: curved(count, np.pi, seed),
        "ring": lambda: curved(count, 2 * np.pi, seed),
        "outliers": lambda: outlying(count, seed),
    }[shape]()
    found = find_clusters(made_latents(states), ClusterSettings(most=3, resamples=3, references=5, seed=seed))
    assert found.report.verdict == "no clusters", found.report.choices


def test_uneven_clusters_are_found() -> None:
    """One in ten latents is enough for a cluster."""
    rng = np.random.default_rng(1)
    truth = rng.choice(3, 240, p=[0.7, 0.2, 0.1])
    states = np.eye(32)[truth] + rng.normal(0, 0.12, (240, 32))
    found = find_clusters(made_latents(states.astype(np.float32)), ClusterSettings(most=4, resamples=3, references=5))
    assert sorted(cluster.latents for cluster in found.report.clusters) == sorted(np.bincount(truth).tolist())


def test_clusters_of_several_queries_are_all_query() -> None:
    """Two clusters of two queries each are known with the query, though the query is not known with the cluster."""
    states = planted(2, 240)
    turned = states.reshape(60, 2, 2, 32).transpose(0, 2, 1, 3).reshape(240, 32)  # queries 0, 1 and 2, 3 together
    told = find_clusters(made_latents(turned, per_item=4), SETTINGS).report
    assert len(told.clusters) == 2
    assert told.explained_by["query"] == pytest.approx(1)


def test_equal_seeds_give_equal_clusters() -> None:
    latents = made_latents(planted(3, 240))
    first, second = find_clusters(latents, SETTINGS), find_clusters(latents, SETTINGS)
    assert first.report == second.report
    assert first.model is not None
    assert second.model is not None
    assert np.array_equal(first.model.centres, second.model.centres)


def test_it_is_said_what_clusters_are_made_of() -> None:
    """Latents of each query in a cluster of its own are no more than that, and tasks have no part in it."""
    latents = made_latents(planted(4, 240), per_item=4)
    told = find_clusters(latents, SETTINGS).report.explained_by
    assert told["query"] == pytest.approx(1)
    assert told["task"] < 0.05
    assert told["outcome"] < 0.05
    by_task = made_latents(planted(2, 240), per_item=1)
    told = find_clusters(by_task, SETTINGS).report
    assert told.explained_by["task"] == pytest.approx(1)
    assert [sorted(cluster.tasks) for cluster in told.clusters] in ([["a"], ["b"]], [["b"], ["a"]])


def test_a_search_can_be_ended() -> None:
    told: list[int] = []

    def stop() -> None:
        told.append(1)
        if len(told) == 2:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        find_clusters(made_latents(planted(3, 40)), SETTINGS, on_number=stop)


def test_few_items_are_too_few() -> None:
    """Many latents of one answer are one observation."""
    found = find_clusters(made_latents(planted(3, 240), per_item=120), SETTINGS)
    assert found.report.verdict == "no clusters"
    assert "too few" in found.report.reason
    assert find_clusters(made_latents(np.ones((40, 8), np.float32)), SETTINGS).model is None
    assert find_clusters(made_latents(np.zeros((0, 8), np.float32)), SETTINGS).model is None


def test_clusters_are_found_on_some_and_told_of_all() -> None:
    latents = made_latents(planted(3, 900))
    found = find_clusters(latents, ClusterSettings(most=4, resamples=3, references=5, most_latents=150))
    assert sum(cluster.latents for cluster in found.report.clusters) == 900
    assert [cluster.latents for cluster in found.report.clusters] == [300, 300, 300]


def test_a_cluster_does_not_depend_on_a_latents_length() -> None:
    latents = made_latents(planted(3, 240))
    model = _model(find_clusters(latents, SETTINGS))
    scaled = np.asarray(latents.states) * np.linspace(0.5, 20, 240, dtype=np.float32)[:, None]
    assert np.array_equal(model.assign(scaled), assign_all(model, latents))


def test_models_are_kept(tmp_path: Path) -> None:
    latents = made_latents(planted(3, 240))
    model = _model(find_clusters(latents, SETTINGS))
    model.save(tmp_path / "clusters.safetensors")
    again = ClusterModel.load(tmp_path / "clusters.safetensors")
    assert np.array_equal(again.assign(latents.states), assign_all(model, latents))
    assert again.directions().shape == (3, 32)
    (tmp_path / "none").write_bytes(b"nothing")
    with pytest.raises(ArtifactCorrupt, match="no clusters of latents"):
        ClusterModel.load(tmp_path / "none")


def test_centres_point_where_their_latents_do() -> None:
    latents = made_latents(planted(3, 240))
    directions = _model(find_clusters(latents, SETTINGS)).directions()
    assert sorted(directions.argmax(axis=1).tolist()) == [0, 1, 2]


@pytest.mark.parametrize("wrong", [{"least": 1}, {"least": 5, "most": 4}, {"resamples": 0}, {"most_latents": 3}])
def test_settings_have_ranges(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        ClusterSettings.from_mapping(wrong)


def _model(found: Clustering) -> ClusterModel:
    assert found.model is not None
    return found.model


def test_samples_are_what_they_are_called() -> None:
    """The controls above hold nothing else that could be found."""
    latents: Latents = made_latents(noise(24))
    assert [place.latent for place in latents.places[:5]] == [0, 1, 2, 3, 0]
    assert len({place.item for place in latents.places}) == 6
