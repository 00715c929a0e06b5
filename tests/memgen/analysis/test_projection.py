"""Pictures of latents."""

import numpy as np
import pytest

from memgen.analysis.cluster_evidence import ClusterSettings
from memgen.analysis.clusters import find_clusters
from memgen.analysis.projection import MapSettings, map_latents
from memgen.errors import ConfigError
from tests.memgen.analysis.samples import made_latents, noise, planted


def test_planted_groups_stand_apart_in_both_pictures() -> None:
    latents = made_latents(planted(3, 120))
    found = find_clusters(latents, ClusterSettings(most=4, resamples=3, references=5))
    picture = map_latents(latents, found, MapSettings(perplexity=15))
    assert len(picture.points) == 120
    assert picture.explained_variance[0] >= picture.explained_variance[1] > 0
    for name in ("pca", "tsne"):
        at = np.array([getattr(point, name) for point in picture.points])
        groups = [at[[point.row % 3 == k for point in picture.points]] for k in range(3)]
        within = max(float(np.linalg.norm(group - group.mean(axis=0), axis=1).mean()) for group in groups)
        between = min(
            float(np.linalg.norm(a.mean(axis=0) - b.mean(axis=0))) for n, a in enumerate(groups) for b in groups[:n]
        )
        assert between > 2 * within, name
    assert {point.cluster for point in picture.points} == {0, 1, 2}


def test_points_tell_where_they_are_from() -> None:
    latents = made_latents(noise(40))
    picture = map_latents(latents, None, MapSettings(most_latents=12))
    assert len(picture.points) == 12
    for point in picture.points:
        place = latents.places[point.row]
        assert (point.item, point.task, point.right, point.cluster) == (place.item, place.task, place.right, None)
    assert picture.perplexity == pytest.approx(11 / 3)


def test_equal_seeds_give_equal_pictures() -> None:
    latents = made_latents(noise(60))
    assert map_latents(latents) == map_latents(latents)
    other = map_latents(latents, None, MapSettings(most_latents=20, seed=1))
    assert other != map_latents(latents, None, MapSettings(most_latents=20, seed=2))


@pytest.mark.parametrize("count", [0, 1, 4])
def test_of_a_few_latents_there_is_no_picture(count: int) -> None:
    assert map_latents(made_latents(noise(count))).points == ()


def test_equal_latents_have_a_picture_of_numbers() -> None:
    picture = map_latents(made_latents(np.ones((8, 16), np.float32)))
    numbers = [number for point in picture.points for number in (*point.pca, *point.tsne)]
    assert np.isfinite(numbers).all()
    assert np.isfinite(picture.explained_variance).all()


def test_settings_have_ranges() -> None:
    for wrong in ({"most_latents": 2}, {"perplexity": 0.0}):
        with pytest.raises(ConfigError):
            MapSettings.from_mapping(wrong)
