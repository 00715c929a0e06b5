"""The pool as a value and as a folder."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from memgen.backbone.loading import Backbone
from memgen.errors import ArtifactCorrupt, ArtifactMismatch, ArtifactMissing, ConfigError
from memgen.experience.pool import EntryStates, Experience, Insight, PastTrajectory, past_trajectory, question_of
from memgen.experience.retrieval import with_states

POOL = Experience(
    (
        PastTrajectory("t1", "sums", "2 + 3?", "5", 1.0),
        PastTrajectory("t2", "sums", "2 + 3?", "6 “maybe”", 0.0),
    ),
    (Insight("i1", "sums", "Carry the ten.", ("2 + 3?",)),),
)


@pytest.mark.parametrize("kind", [None, "mean", "last"])
def test_a_saved_pool_comes_back(backbone: Backbone, tmp_path: Path, kind: str | None) -> None:
    pool = POOL if kind is None else with_states(POOL, backbone, kind=kind)
    digest = pool.save(tmp_path / "pool")
    again = Experience.load(tmp_path / "pool", backbone, manifest_sha256=digest)
    assert again.entries == pool.entries
    assert (again.states is None) == (kind is None)
    if again.states and pool.states:
        assert torch.equal(again.states.vectors, pool.states.vectors)
        assert (again.states.kind, again.states.base_revision) == (kind, backbone.revision)
    assert not list(tmp_path.rglob("*.pkl"))


@pytest.mark.parametrize("name", ["entries.json", "states.safetensors"])
def test_a_changed_byte_is_found(backbone: Backbone, tmp_path: Path, name: str) -> None:
    with_states(POOL, backbone).save(tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[-3] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ArtifactCorrupt, match=name):
        Experience.load(tmp_path)


def test_another_manifest_and_a_missing_file_are_found(tmp_path: Path) -> None:
    with pytest.raises(ArtifactMissing, match="manifest.json"):
        Experience.load(tmp_path)
    POOL.save(tmp_path)
    with pytest.raises(ArtifactCorrupt, match="registry"):
        Experience.load(tmp_path, manifest_sha256="00")
    (tmp_path / "entries.json").unlink()
    with pytest.raises(ArtifactMissing, match="^[^ ]*entries.json"):
        Experience.load(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "error", "match"),
    [
        ('"reward": 1.0', '"prize": 1.0', ArtifactCorrupt, "does not hold a pool: TypeError"),
        ('"t2"', '"t1"', ArtifactCorrupt, r"entry ids \['t1'\] stand for more than one"),
        ('"format": 1', '"format": 7', ArtifactMismatch, "format is 7; this version reads 1"),
        ("{", "[", ArtifactCorrupt, "does not hold a pool: JSONDecodeError"),
        ('"reward": 1.0', '"reward": "much"', ArtifactCorrupt, "reward is 'much'; expected a number"),
        ('"reward": 1.0', '"reward": NaN', ArtifactCorrupt, "reward is nan; expected a number"),
        ('"t2"', "2", ArtifactCorrupt, "entry_id is 2; expected a value of type str"),
    ],
    ids=["field", "ids", "format", "json", "text for a number", "no number", "number for a text"],
)
def test_a_file_that_is_no_pool_is_refused(
    tmp_path: Path, old: str, new: str, error: type[Exception], match: str
) -> None:
    """Files whose hashes are right: written so, not broken later."""
    from memgen.checked_files import write_manifest

    POOL.save(tmp_path)
    path = tmp_path / "entries.json"
    path.write_text(path.read_text().replace(old, new, 1))
    write_manifest(tmp_path)
    with pytest.raises(error, match=match):
        Experience.load(tmp_path)


def test_states_of_another_base_are_refused(backbone: Backbone, tmp_path: Path) -> None:
    with_states(POOL, backbone).save(tmp_path)
    other = replace(backbone, revision="other")
    with pytest.raises(ArtifactMismatch, match="the states are of base .* but the loaded base .* is 'other'"):
        Experience.load(tmp_path, other)
    assert Experience.load(tmp_path).states is not None


def test_a_pool_refuses_twins_and_states_of_other_entries() -> None:
    with pytest.raises(ConfigError, match=r"entry ids \['t1'\] stand for more than one entry"):
        POOL.with_entries([replace(POOL.trajectories[1], entry_id="t1")])
    with pytest.raises(ConfigError, match="2 states for 3 entries"):
        replace(POOL, states=EntryStates(torch.zeros(2, 4), "mean", "r"))


def test_a_grown_pool_forgets_its_states(backbone: Backbone) -> None:
    grown = with_states(POOL, backbone).with_entries([PastTrajectory("t3", "sums", "1 + 1?", "2", 1.0)])
    assert [entry.entry_id for entry in grown.entries] == ["t1", "t2", "t3", "i1"]
    assert grown.states is None


def test_a_conversation_is_told_by_its_turns() -> None:
    call = {"type": "function", "function": {"name": "look", "arguments": '{"at": "door"}'}}
    messages = [
        {"role": "system", "content": "You play a game."},
        {"role": "user", "content": "Leave the room."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "It is open."},
        {"role": "assistant", "content": "I walk out."},
    ]
    assert past_trajectory("t", "game", messages, 0.5) == PastTrajectory(
        "t",
        "game",
        "Leave the room.",
        '<tool_call>{"name": "look", "arguments": {"at": "door"}}</tool_call>\nQ: It is open.\nA: I walk out.',
        0.5,
    )
    assert question_of(messages[:2]) == "Leave the room."


def test_calls_of_any_form_are_part_of_an_answer() -> None:
    custom = {"id": "c", "type": "custom", "custom": {"name": "run", "input": "ls"}}
    entry = past_trajectory(
        "t",
        "task",
        [
            {"role": "user", "content": "list"},
            {"role": "assistant", "weight": 0, "content": None, "tool_calls": [custom]},
            {"role": "assistant", "weight": 0, "content": "", "function_call": {"name": "see", "arguments": "{}"}},
            {"role": "assistant", "content": "done", "refusal": [1]},
        ],
        1.0,
    )
    assert entry.answer.split("\n") == [
        '<tool_call>{"name": "run", "arguments": {"input": "ls"}}</tool_call>',
        'A: <tool_call>{"name": "see", "arguments": {}}</tool_call>',
        "A: done",
    ]
