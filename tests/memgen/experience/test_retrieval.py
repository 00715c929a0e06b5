"""Search on a corpus made by hand."""

import math

import pytest
import torch

from memgen.backbone.loading import Backbone
from memgen.backbone.states import text_states
from memgen.errors import ArtifactMismatch, ConfigError, PromptTooLong
from memgen.experience.pool import EntryStates, Experience, Insight, PastTrajectory
from memgen.experience.retrieval import Query, Retriever, fused_scores, same_prompt, with_states


def _past(entry_id: str, prompt: str, reward: float = 1.0, task: str = "kitchen") -> PastTrajectory:
    return PastTrajectory(entry_id, task, prompt, "done", reward)


POOL = Experience(
    (
        _past("door", "open the door with the brass key"),
        _past("apple", "cook the red apple"),
        _past("apples", "slice the apple, cook the apple, eat the apple"),
        _past("apple-failed", "cook  the red APPLE", 0.0),
        _past("garden", "pick an apple", task="garden"),
    ),
    (
        Insight("heat", "kitchen", "Light the stove before you cook."),
        Insight("key", "kitchen", "Look for a key near the door.", ("open the door with the brass key",)),
        Insight("told", "kitchen", "A red apple wants a hot pan.", ("cook the red apple",)),
    ),
)


def _ids(pool: Experience, query: Query, method: str = "bm25") -> list[str]:
    return [hit.entry.entry_id for hit in Retriever(pool, method).search(query)]


def test_bm25_scores_are_those_of_the_formula() -> None:
    """Lucene's: idf ln(1 + (N - n + 0.5) / (n + 0.5)), tf / (tf + k1 (1 - b + b L / mean L)), k1 1.5, b 0.75."""
    pool = Experience((_past("1", "red pan"), _past("2", "red red apple pie"), _past("3", "pan")))
    [first, second] = Retriever(pool).search(Query("RED?", trajectories=5))
    idf, mean = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5)), 7 / 3
    scores = {
        "1": idf * 1 / (1 + 1.5 * (0.25 + 0.75 * 2 / mean)),
        "2": idf * 2 / (2 + 1.5 * (0.25 + 0.75 * 4 / mean)),
    }
    assert [first.entry.entry_id, second.entry.entry_id] == ["2", "1"]
    assert first.score == pytest.approx(scores["2"], rel=1e-5)
    assert second.score == pytest.approx(scores["1"], rel=1e-5)


def test_the_best_by_words_come_first_and_strangers_do_not_come() -> None:
    query = Query("cook a red apple for me", trajectories=9, insights=0)
    assert _ids(POOL, query) == ["apple", "apple-failed", "apples", "garden"]
    assert _ids(POOL, Query("brass key?", trajectories=9, insights=0)) == ["door"]
    assert _ids(POOL, Query("zebra", trajectories=9, insights=0)) == []
    assert _ids(POOL, Query("?!", trajectories=9, insights=0)) == []


def test_insights_come_behind_trajectories_and_need_no_common_word() -> None:
    assert _ids(POOL, Query("find a key", trajectories=1, insights=9)) == ["door", "key", "heat", "told"]
    assert _ids(POOL, Query("zebra", insights=2)) == ["heat", "key"]


def test_nothing_that_tells_of_the_same_prompt_is_found() -> None:
    """Not itself, not another trajectory of it, not an insight distilled from one."""
    query = Query("Cook the red apple", trajectories=9, insights=9)
    assert _ids(POOL, query) == ["apples", "garden", "heat", "key"]
    kept = Query("Cook the red apple", trajectories=9, insights=9, leave_one_out=False)
    assert _ids(POOL, kept)[:2] == ["apple", "apple-failed"]
    assert "told" in _ids(POOL, kept)
    assert same_prompt(" Cook the\nred APPLE ") == same_prompt("cook the red apple")
    assert same_prompt("cook the red apple.") != same_prompt("cook the red apple")


@pytest.mark.parametrize("method", ["bm25", "states", "fused"])
def test_no_item_of_a_pool_finds_itself(backbone: Backbone, method: str) -> None:
    pool = with_states(POOL, backbone)
    assert pool.states is not None
    for entry, state in zip(pool.trajectories, pool.states.vectors, strict=False):
        found = Retriever(pool, method).search(Query(entry.prompt, state=state, trajectories=9, insights=9))
        prompts = {same_prompt(prompt) for hit in found for prompt in hit.entry.prompts}
        assert same_prompt(entry.prompt) not in prompts
        assert found


def test_a_search_keeps_to_its_bounds() -> None:
    everything = {"trajectories": 9, "insights": 9}
    assert _ids(POOL, Query("an apple", task="garden", **everything)) == ["garden"]
    assert "apple-failed" not in _ids(POOL, Query("an apple", min_reward=0.5, **everything))
    assert "apple-failed" in _ids(POOL, Query("an apple", min_reward=0.0, **everything))
    assert "garden" not in _ids(POOL, Query("an apple", without={"garden"}, **everything))
    assert len(_ids(POOL, Query("an apple", trajectories=2, insights=1))) == 3
    assert _ids(Experience(), Query("an apple")) == []


def test_states_are_compared_around_their_mean() -> None:
    """Mean (10, 1): seen from there the query points along `far`, though its angle from zero is nearer to `near`."""
    vectors = torch.tensor([[10.0, 0.0], [10.0, 2.0], [13.0, 1.0], [7.0, 1.0]])
    pool = Experience(
        tuple(_past(name, name) for name in ("near", "far", "right", "left")),
        states=EntryStates(vectors, "mean", "r"),
    )
    query = Query("x", state=torch.tensor([11.0, 1.5]), trajectories=9)
    hits = Retriever(pool, "states").search(query)
    assert [hit.entry.entry_id for hit in hits] == ["right", "far"]
    assert [hit.score for hit in hits] == pytest.approx([2 / 5**0.5, 1 / 5**0.5])


def test_fusion_adds_reciprocal_ranks() -> None:
    assert fused_scores([3, 1, 0], [0.1, 0.9, 0.5]) == pytest.approx([1 / 61 + 1 / 63, 1 / 62 + 1 / 61, 1 / 62])
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    prompts = ("red pan", "blue pot", "red red dish", "green cup")
    pool = Experience(tuple(_past(prompt, prompt) for prompt in prompts), states=EntryStates(vectors, "mean", "r"))
    query = Query("red", state=torch.tensor([0.9, 0.1]), trajectories=9)
    hits = Retriever(pool, "fused").search(query)
    # By words: dish, pan. By states: pan, pot.
    assert [hit.entry.entry_id for hit in hits] == ["red pan", "red red dish", "blue pot"]
    assert [hit.score for hit in hits] == pytest.approx([1 / 62 + 1 / 61, 1 / 61, 1 / 62])


@pytest.mark.parametrize("kind", ["mean", "last"])
def test_text_states_are_the_models_own(backbone: Backbone, kind: str) -> None:
    texts = ["open the door", "x", "cook the red apple"]
    states = text_states(backbone, texts, kind=kind, batch_size=2)
    for text, state in zip(texts, states, strict=True):
        ids = torch.tensor([backbone.tokenizer(text).input_ids])
        with torch.no_grad():
            hidden = backbone.model.model(ids).last_hidden_state[0]
        one_token = torch.zeros(backbone.hidden_size)
        expected = hidden.mean(dim=0) if kind == "mean" else hidden[-2] if len(hidden) > 1 else one_token
        torch.testing.assert_close(state, expected, atol=1e-4, rtol=1e-4)


def test_what_can_not_be_searched_is_refused(backbone: Backbone) -> None:
    with pytest.raises(ConfigError, match=r"method is 'tfidf'; expected one of \('bm25', 'states', 'fused'\)"):
        Retriever(POOL, "tfidf")
    with pytest.raises(ConfigError, match="'fused' needs states; give the pool some"):
        Retriever(POOL, "fused")
    retriever = Retriever(with_states(POOL, backbone), "states")
    with pytest.raises(ConfigError, match="needs the prompt's state; give the query one"):
        retriever.search(Query("x"))
    with pytest.raises(ArtifactMismatch, match=r"state is \(3,\), the pool's are \(64,\)"):
        retriever.search(Query("x", state=torch.zeros(3)))
    with pytest.raises(ConfigError, match="insights is -1; expected 0 or more"):
        Query("x", insights=-1)
    with pytest.raises(ConfigError, match="state kind is 'first'"):
        text_states(backbone, ["x"], kind="first")
    with pytest.raises(PromptTooLong, match="a text has 1025 tokens"):
        text_states(backbone, ["x" * 1025])
