"""A memory per task: what an artifact says of the others, which prompt goes where, and that serving follows."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from memgen.artifacts.artifact import MOMENTS_FILE, load_artifact, save_artifact
from memgen.artifacts.report import TrainingReport
from memgen.backbone.loading import Backbone
from memgen.backbone.states import prompt_states
from memgen.checked_files import check_files
from memgen.errors import ArtifactCorrupt, ArtifactMismatch, ArtifactMissing, ConfigError
from memgen.evaluation.accuracy import item_of, read_items, score_items, score_suite
from memgen.memory.host import AdapterHost
from memgen.routing.isolated import Isolated, region_prompts, with_task
from memgen.routing.loaded import Choice, LoadedMemories
from memgen.training.examples import Example, build_examples
from tests.memgen.conftest import CONFIG, conversations

REPORT = TrainingReport(1, 0, 0, 1, 1, 1.0, (1.0,), ())


def _examples(backbone: Backbone, word: str) -> tuple[Example, ...]:
    return build_examples(backbone.profile, conversations(40, word), max_tokens=500).examples


@pytest.fixture(scope="module")
def first(backbone: Backbone) -> Isolated:
    return with_task(None, None, backbone, "yes", _examples(backbone, "yes"))


@pytest.fixture(scope="module")
def second(backbone: Backbone, first: Isolated) -> Isolated:
    return with_task(first, "a" * 64, backbone, "no", _examples(backbone, "nnnnnnnnnnnnnnn"))


def test_a_new_task_leaves_the_others_as_they_are(backbone: Backbone, first: Isolated, second: Isolated) -> None:
    assert (first.task, first.others) == ("yes", {})
    assert (second.task, second.others) == ("no", {"yes": "a" * 64})
    assert torch.equal(first.router.regions["yes"].mean, second.router.regions["yes"].mean)
    again = with_task(second, "b" * 64, backbone, "yes", _examples(backbone, "yes"))
    assert (again.task, again.others) == ("yes", {"no": "b" * 64})


def test_prompts_go_to_their_task_or_to_the_base(backbone: Backbone, second: Isolated) -> None:
    def share(word: str, task: str | None) -> float:
        prompts = [example.prompt_ids for example in _examples(backbone, word)]
        chosen = second.choose(prompt_states(backbone, prompts))
        return chosen.count(task) / len(chosen)

    assert share("yes", "yes") > 0.9
    assert share("nnnnnnnnnnnnnnn", "no") > 0.9


def test_one_prompt_a_conversation_and_none_twice() -> None:
    def turn(token: int, trajectory: int | None) -> Example:
        return Example((token,), (9,), trajectory=trajectory)

    turns = [turn(1, 0), turn(2, 0), turn(3, 1), turn(4, 1), turn(5, 2), turn(6, None), turn(6, None)]
    assert region_prompts(turns) == [(1,), (4,), (5,), (6,)]


def test_a_task_too_small_to_be_recognised_is_refused(backbone: Backbone) -> None:
    with pytest.raises(ConfigError, match="task 'few': 5 prompts; a region needs at least 20"):
        with_task(None, None, backbone, "few", _examples(backbone, "few")[:5])


def _store(host: AdapterHost, folder: Path, isolated: Isolated | None, seed: int) -> str:
    memory = host.create("stored", CONFIG, seed=seed)
    if isolated is not None:
        isolated.save(folder)
    manifest = save_artifact(host, memory.name, folder, REPORT)
    host.remove(memory.name)
    return manifest


def test_what_is_saved_is_loaded_and_covered_by_the_manifest(
    host: AdapterHost, backbone: Backbone, second: Isolated, tmp_path: Path
) -> None:
    folder = tmp_path / "artifact"
    _store(host, folder, second, seed=0)
    assert {"router.safetensors", "isolated.json"} <= set(json.loads((folder / "manifest.json").read_text()))
    found = Isolated.load(folder, backbone)
    assert found is not None
    assert (found.task, found.others, set(found.router.regions)) == ("no", {"yes": "a" * 64}, {"yes", "no"})
    load_artifact(host, "a", folder)
    (folder / "isolated.json").write_text('{"format": 1, "task": "no"}')
    with pytest.raises(ArtifactCorrupt, match="does not describe memories by task"):
        Isolated.load(folder, backbone)
    (folder / "isolated.json").write_text('{"format": 9, "task": "no", "others": {}}')
    with pytest.raises(ArtifactMismatch, match="format is 9"):
        Isolated.load(folder, backbone)
    (folder / "isolated.json").unlink()
    assert Isolated.load(folder, backbone) is None


def test_moments_may_be_left_behind_but_not_be_wrong(host: AdapterHost, tmp_path: Path) -> None:
    folder = tmp_path / "artifact"
    folder.mkdir()
    (folder / MOMENTS_FILE).write_bytes(b"moments")
    manifest = _store(host, folder, None, seed=0)
    check_files(folder, manifest, may_lack=[MOMENTS_FILE])
    check_files(folder, manifest, only=[MOMENTS_FILE])
    (folder / MOMENTS_FILE).write_bytes(b"forged")
    for only in (None, [MOMENTS_FILE]):
        with pytest.raises(ArtifactCorrupt, match="optimizer.safetensors"):
            check_files(folder, manifest, only=only)
    (folder / MOMENTS_FILE).unlink()
    check_files(folder, manifest, may_lack=[MOMENTS_FILE])
    with pytest.raises(ArtifactMissing):
        check_files(folder, manifest, only=[MOMENTS_FILE])


def test_only_the_memory_that_answers_is_fetched(
    host: AdapterHost, backbone: Backbone, first: Isolated, second: Isolated, tmp_path: Path
) -> None:
    one = _store(host, tmp_path / "one", first, seed=1)
    two = _store(host, tmp_path / "two", replace(second, others={"yes": one}), seed=2)
    folders, fetched = {one: tmp_path / "one", two: tmp_path / "two"}, []

    def fetch(artifact_hash: str, folder: Path) -> None:
        fetched.append(artifact_hash)
        for path in folders[artifact_hash].rglob("*"):
            if path.is_file():
                target = folder / path.relative_to(folders[artifact_hash])
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())

    memories = LoadedMemories(host, capacity=2)
    memories.ensure("v2", two, lambda folder: fetch(two, folder))
    states = {task: region.mean for task, region in second.router.regions.items()}
    assert memories.choose("v2", lambda: states["no"], fetch) == Choice("v2", "no")
    assert memories.choose("v2", lambda: states["no"] * 100, fetch) == Choice(None)
    assert fetched == [two]
    assert memories.choose("v2", lambda: states["yes"], fetch) == Choice(one, "yes")
    assert memories.choose("v2", lambda: states["yes"], fetch) == Choice(one, "yes")
    assert fetched == [two, one]


def test_scores_by_item_are_those_of_each_memory(host: AdapterHost, artifacts: dict[str, Path]) -> None:
    for name, folder in artifacts.items():
        load_artifact(host, name, folder)
    items = [item_of(c["messages"], None, {}) for c in conversations(6)]
    grader, done = {"kind": "likelihood"}, []
    memories = ["yes", "no", None, "no", "yes", None]
    mixed = score_items(host, memories, read_items(host, items), grader, on_done=done.append)
    whole = {name: score_suite(host, name, items, grader) for name in ("yes", "no", None)}
    expected = [whole[name].items[place].score for place, name in enumerate(memories)]
    assert [item.score for item in mixed.items] == pytest.approx(expected, rel=1e-4)
    assert mixed.score == pytest.approx(sum(expected) / 6, rel=1e-4)
    assert done[-1] == 6
