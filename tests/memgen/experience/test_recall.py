"""What a memory remembers in words: kept with it, found by the question, never the answer that is to be learned."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from memgen.artifacts.artifact import load_artifact, save_artifact
from memgen.artifacts.report import TrainingReport
from memgen.backbone.loading import Backbone
from memgen.checked_files import check_files
from memgen.errors import ArtifactCorrupt, ArtifactMissing, ConfigError
from memgen.evaluation.accuracy import HeldOutItem, score_suite
from memgen.experience.pool import Insight, PastTrajectory
from memgen.experience.recall import Recall
from memgen.memory.host import AdapterHost
from memgen.tasks.graders import Reference
from memgen.training.examples import build_examples
from memgen.training.reward.recorded_groups import groups_of_trajectories
from tests.memgen.conftest import CONFIG, conversations, randomise

CUED = replace(CONFIG, cue_tokens=200)
REPORT = TrainingReport(1, 0, 0, 1, 1, 1.0, (1.0,), ())
PAST = [
    PastTrajectory("lamp", "home", "switch on the lamp", "on(lamp)", 1.0),
    PastTrajectory("radio", "home", "switch on the radio", "on(radio)", 1.0),
    PastTrajectory("tea", "home", "boil some tea", "boil(tea)", 1.0),
]
RULES = [
    Insight("polite", "home", "Never ask back."),
    Insight("plug", "home", "Look whether the radio has a plug.", ("switch on the radio",), ("failed", "radio")),
]


def _asked(question: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}]


def _ids(recall: Recall, question: str, *, leave_one_out: bool = False) -> tuple[str, ...]:
    [cue] = recall.cues([_asked(question)], leave_one_out=leave_one_out)
    return cue.entry_ids


@pytest.mark.parametrize("by_states", [False, True])
def test_a_question_finds_what_is_like_it_and_in_training_not_itself(backbone: Backbone, by_states: bool) -> None:
    recall = Recall(backbone, replace(CUED, cue_states=by_states)).with_entries(PAST)
    assert _ids(recall, "switch on the radio")[0] == "radio"
    found = _ids(recall, "Switch  on the RADIO", leave_one_out=True)
    assert found[0] == "lamp"
    assert "radio" not in found
    assert (recall.pool.states is not None) == by_states


def test_later_turns_are_cued_as_the_question_that_began_them(backbone: Backbone) -> None:
    recall = Recall(backbone, CUED).with_entries(PAST)
    turns = [{"role": "assistant", "content": "which?"}, {"role": "user", "content": "boil some tea"}]
    first, later = recall.cues([_asked("the radio"), [*_asked("the radio"), *turns]])
    assert first == later
    assert first.entry_ids == ("radio",)
    assert "on(radio)" in first.text


def test_a_cue_stays_within_its_tokens_and_what_never_fits_is_not_remembered(backbone: Backbone) -> None:
    long = PastTrajectory("long", "home", "switch on the radio " * 100, "on(radio)", 1.0)
    recall = Recall(backbone, CUED).with_entries([*PAST, long])
    assert [entry.entry_id for entry in recall.pool.entries] == ["lamp", "radio", "tea"]
    [cue] = recall.cues([_asked("switch on the radio")])
    assert 0 < len(cue.token_ids) <= 200
    small = Recall(backbone, replace(CUED, cue_tokens=len(cue.token_ids) - 1)).with_entries(PAST)
    assert len(_ids(small, "switch on the radio")) == len(cue.entry_ids) - 1


def test_the_last_word_on_a_trajectory_counts_and_the_last_ones_stay(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    recall = Recall(backbone, CUED).with_entries(PAST)
    corrected = replace(PAST[0], answer="on(lamp, dim)")
    assert recall.with_entries([corrected]).pool.trajectories == (*PAST[1:], corrected)
    assert recall.pool.trajectories == tuple(PAST)
    monkeypatch.setattr("memgen.experience.recall.MOST_ENTRIES", 2)
    assert recall.with_entries([corrected]).pool.trajectories == (PAST[2], corrected)


def test_insights_stand_in_front_and_are_as_many_as_the_config_says(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = Insight("long", "home", "Look at the radio. " * 100)
    recalls = [
        Recall(backbone, replace(CUED, cue_insights=n)).with_entries(PAST, [*RULES, long]).with_entries([], RULES)
        for n in range(3)
    ]
    assert [recall.pool.insights for recall in recalls] == [tuple(RULES)] * 3, "each once, and none without room"
    found = [_ids(recall, "switch on the radio") for recall in recalls]
    assert [ids[:n] for n, ids in enumerate(found)] == [(), ("plug",), ("plug", "polite")]
    assert all(ids[n] == "radio" for n, ids in enumerate(found))
    [cue] = recalls[2].cues([_asked("switch on the radio")], leave_one_out=True)
    assert cue.entry_ids[0] == "polite", "the other tells of this very question"
    assert not {"plug", "radio"} & set(cue.entry_ids)
    monkeypatch.setattr("memgen.experience.recall.MOST_INSIGHTS", 1)
    assert recalls[1].with_entries([], RULES).pool.insights == (RULES[0],)


@pytest.mark.parametrize("by_states", [False, True])
def test_nothing_known_and_a_question_too_long_are_no_cue(backbone: Backbone, by_states: bool) -> None:
    config = replace(CUED, cue_states=by_states)
    empty = Recall(backbone, config)
    assert empty.cues([_asked("switch on the radio"), []]) == [empty.cues([[]])[0]] * 2
    assert _ids(empty, "switch on the radio") == ()
    recall = empty.with_entries(PAST)
    endless = "switch on the radio " * backbone.max_tokens
    assert bool(_ids(recall, endless)) == (not by_states)  # words can be searched for, whatever their number


@pytest.mark.parametrize("by_states", [False, True])
def test_experience_lies_in_the_artifact_and_is_checked(host: AdapterHost, tmp_path: Path, by_states: bool) -> None:
    memory = host.create("m", replace(CUED, cue_states=by_states, cue_insights=1))
    assert memory.recall is not None
    memory.recall = memory.recall.with_entries(PAST, RULES)
    randomise(memory, 0)
    folder = tmp_path / "m"
    manifest = save_artifact(host, "m", folder, REPORT)
    check_files(folder, manifest)

    loaded = load_artifact(host, "again", folder, manifest_sha256=manifest).recall
    assert loaded is not None
    assert (loaded.pool.trajectories, loaded.pool.insights) == (tuple(PAST), tuple(RULES))
    assert loaded.cues([_asked("the radio")]) == memory.recall.cues([_asked("the radio")])
    again = tmp_path / "again"
    assert save_artifact(host, "again", again, REPORT) == manifest

    entries = folder / "experience" / "entries.json"
    entries.write_text(entries.read_text().replace("on(radio)", "off(radio)"))
    with pytest.raises(ArtifactCorrupt, match="entries.json"):
        load_artifact(host, "forged", folder)
    entries.unlink()
    with pytest.raises(ArtifactMissing, match="entries.json"):
        load_artifact(host, "forged", folder)
    assert "forged" not in host.memories


def test_a_memory_that_is_shown_nothing_keeps_nothing(host: AdapterHost, tmp_path: Path) -> None:
    memory = host.create("m", CONFIG)
    save_artifact(host, "m", tmp_path / "m", REPORT)
    assert memory.recall is None
    assert not (tmp_path / "m" / "experience").exists()
    assert [cue.token_ids for cue in host.cues("m", [_asked("switch on the radio")])] == [()]
    assert [cue.token_ids for cue in host.cues(None, [_asked("switch on the radio")])] == [()]


def test_training_goes_on_from_the_parents_experience(host: AdapterHost) -> None:
    parent, child = host.create("parent", CUED), host.create("child", CUED)
    assert parent.recall is not None
    parent.recall = parent.recall.with_entries(PAST)
    host.copy("parent", "child")
    assert child.recall is not None
    assert child.recall.pool == parent.recall.pool


def test_scores_are_of_the_memory_with_its_cues(host: AdapterHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """By likelihood and by answers, as the memory is served."""
    memory = host.create("m", CUED)
    randomise(memory, 1, spread=0.3)
    expert = Reference({"role": "assistant", "content": "on(radio)"}, {})
    items = [HeldOutItem(({"role": "user", "content": "switch on the radio"},), None, expert)] * 2
    bare = score_suite(host, "m", items, {"kind": "likelihood"})
    assert memory.recall is not None
    memory.recall = memory.recall.with_entries(PAST)
    cued = score_suite(host, "m", items, {"kind": "likelihood"})
    assert cued.score != pytest.approx(bare.score, rel=1e-4)
    asked: list[tuple[str | None, int]] = []
    cues = host.cues
    monkeypatch.setattr(host, "cues", lambda name, found: (asked.append((name, len(found))), cues(name, found))[1])
    score_suite(host, "m", items, {"kind": "exact"})
    assert asked == [("m", 2)]


def test_examples_and_recorded_turns_take_their_trajectorys_cue(backbone: Backbone) -> None:
    lines = [{**one, "reward": float(n)} for n, one in enumerate(conversations(1) * 2 + conversations(2)[1:] * 2)]
    recall = Recall(backbone, CUED).with_entries(PAST)
    cues = recall.cues([_asked(question) for question in ("lamp", "radio", "tea", "zebra")])
    data = build_examples(backbone.profile, lines, max_tokens=500, cues=cues)
    assert [example.cue_ids for example in data.examples] == [cue.token_ids for cue in cues]
    assert [bool(example.cue_ids) for example in data.examples] == [True, True, True, False]
    groups = groups_of_trajectories(backbone.profile, lines, max_tokens=500, cues=cues).groups
    turns = [turn for group in groups for rollout in group.rollouts for turn in rollout.turns]
    assert [turn.cue_ids for turn in turns] == [cue.token_ids for cue in cues]
    with pytest.raises(ValueError, match="zip"):
        build_examples(backbone.profile, lines, max_tokens=500, cues=cues[1:])


def test_the_tokens_and_insights_of_a_cue_have_bounds() -> None:
    for wrong in (-1, 5000):
        with pytest.raises(ConfigError, match=f"^cue_tokens is {wrong}"):
            replace(CONFIG, cue_tokens=wrong)
    with pytest.raises(ConfigError, match="^cue_insights is 33"):
        replace(CUED, cue_insights=33)
    with pytest.raises(ConfigError, match="cue_insights is 1, but cue_tokens is 0"):
        replace(CONFIG, cue_insights=1)


def test_states_of_the_question_are_the_pools(backbone: Backbone) -> None:
    """The mean of its tokens' states, which the entry of the same words has too."""
    recall = Recall(backbone, replace(CUED, cue_states=True)).with_entries(PAST)
    assert recall.pool.states is not None
    assert recall.pool.states.kind == "mean"
    assert torch.isfinite(recall.pool.states.vectors).all()
