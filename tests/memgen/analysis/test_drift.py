"""How far latents moved."""

import numpy as np
import pytest

from memgen.analysis.drift import drift, item_means, linear_cka
from memgen.errors import ConfigError
from tests.memgen.analysis.samples import made_latents, noise


def rotation(size: int, seed: int = 0) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))
    return q.astype(np.float32)


def test_the_same_latents_have_not_moved() -> None:
    latents = made_latents(noise(80))
    found = drift(latents, latents)
    assert found.items == 20
    assert found.cosine == pytest.approx(1)
    assert found.cka == pytest.approx(1)
    assert found.meaning == "the latents point where they did"
    assert [(task.task, task.items) for task in found.tasks] == [("a", 10), ("b", 10)]


def test_turned_latents_tell_the_same_in_another_code() -> None:
    states = noise(160)
    found = drift(made_latents(states), made_latents(3 * states @ rotation(32)))
    assert found.cosine < 0.5
    assert found.cka == pytest.approx(1, abs=1e-4)
    assert "another code" in found.meaning


@pytest.mark.parametrize("hidden", [8, 512])
def test_unrelated_latents_are_unrelated_however_many_numbers_they_have(hidden: int) -> None:
    """Plain CKA of 20 items with 512 numbers each is above 0.9 for any two versions."""
    before, after = (made_latents(noise(80, hidden=hidden, seed=seed)) for seed in (1, 2))
    found = drift(before, after)
    assert found.cka == pytest.approx(0, abs=0.3)
    assert "has changed" in found.meaning
    x, y = (np.stack(list(item_means(one).values())) for one in (before, after))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    plain = np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    assert hidden == 8 or plain > 0.9


def test_latents_that_share_a_direction_are_not_the_same_for_it() -> None:
    """Hidden states have a large part in common, whatever they are of: their cosine is high between any two items."""
    shared = np.zeros(32, np.float32)
    shared[0] = 30
    found = drift(made_latents(noise(160, seed=1) + shared), made_latents(noise(160, seed=2) + shared))
    assert found.cosine > 0.95
    assert found.other_items_cosine == pytest.approx(found.cosine, abs=0.01)
    assert "tell the items apart differently" in found.meaning


def test_other_forms_have_no_directions_in_common() -> None:
    latents = made_latents(noise(80))
    found = drift(latents, latents, forms=("cache", "embedding"))
    assert "different forms (cache and embedding)" in found.meaning
    assert found.meaning.endswith("they tell the items apart alike")
    assert drift(latents, latents, forms=("cache", "cache")).meaning == "the latents point where they did"
    assert "too few" in drift(*[made_latents(noise(12))] * 2, forms=("cache", "embedding")).meaning


def test_means_are_by_item() -> None:
    latents = made_latents(noise(12), per_item=3)
    means = item_means(latents)
    assert list(means) == ["i0", "i1", "i2", "i3"]
    assert means["i1"] == pytest.approx(np.asarray(latents.states[3:6], np.float64).mean(axis=0))


def test_one_task_may_move_alone() -> None:
    states = noise(80)
    moved = states.copy()
    moved.reshape(20, 4, 32)[1::2] = noise(40, seed=7).reshape(10, 4, 32)
    a, b = drift(made_latents(states), made_latents(moved)).tasks
    assert a.cosine == pytest.approx(1)
    assert b.cosine < 0.5
    assert b.least_cosine <= b.cosine


def test_few_items_have_no_cka() -> None:
    few = made_latents(noise(12))
    found = drift(few, made_latents(-np.asarray(few.states)))
    assert (found.items, found.cka) == (3, None)
    assert found.cosine == pytest.approx(-1)
    assert "too few items" in found.meaning
    assert linear_cka(np.ones((6, 3)), np.ones((6, 3))) is None


def test_other_items_or_another_base_cannot_be_compared() -> None:
    with pytest.raises(ConfigError, match="share 0 items"):
        drift(made_latents(noise(8)), made_latents(noise(0)))
    with pytest.raises(ConfigError, match="of 32 and 16 numbers"):
        drift(made_latents(noise(8)), made_latents(noise(8, hidden=16)))
