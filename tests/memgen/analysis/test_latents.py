"""Collecting what a version weaves."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from memgen.analysis.items import ReadAnalysisItem, read_analysis_items
from memgen.analysis.latents import collect_latents, latents_of, open_latents
from memgen.analysis.runs import AnalysisRun
from memgen.artifacts.artifact import load_artifact
from memgen.errors import ArtifactCorrupt, ArtifactMissing, Cancelled, ConfigError, ModelError
from memgen.memory.host import AdapterHost
from tests.memgen.analysis.samples import RUN, answered_by, echoing, item, outcomes_of
from tests.memgen.conftest import SHAPES


@pytest.fixture
def weaving(host: AdapterHost, random_artifact: Callable[..., Path]) -> AdapterHost:
    load_artifact(host, "m", random_artifact(max_insertions=2))
    return host


def half_right(host: AdapterHost, count: int) -> list[ReadAnalysisItem]:
    """Items of which the memory `m` answers every other one right."""
    items = [one if n % 2 else answered_by(one, "another answer") for n, one in enumerate(echoing(host, "m", count))]
    return read_analysis_items(host, items)


@SHAPES
def test_every_latent_is_kept_with_its_place_and_outcome(
    host: AdapterHost, random_artifact: Callable[..., Path], shape: dict[str, object], tmp_path: Path
) -> None:
    load_artifact(host, "m", random_artifact(**shape, max_insertions=2))
    items = half_right(host, 6)
    collected = collect_latents(host, ["m"] * 6, items, tmp_path / "found", run=RUN)
    latents = open_latents(tmp_path / "found")
    outcomes = outcomes_of(host, "m", items)
    assert [outcome.right for outcome in outcomes] == [bool(n % 2) for n in range(6)]
    woven = sum(outcome.woven for outcome in outcomes)
    assert collected.latents == len(latents) == woven > 6 * 4
    assert collected.hidden == latents.states.shape[1] == host.backbone.hidden_size
    [task] = collected.tasks
    assert (task.task, task.items, task.left_out, task.right, task.latents) == ("words", 6, 0, 3, woven)
    assert sum(task.failures.values()) == 3
    for outcome in outcomes:
        own = [place for place in latents.places if place.item == outcome.item.item.item_id]
        assert {place.right for place in own} == {outcome.right}
        assert [place.latent for place in own if place.at_prompt_end] == [0, 1, 2, 3]
        assert [d.position for d in outcome.decisions for _ in range(d.latents)] == [place.position for place in own]
        assert sorted({place.insertion for place in own}) == list(range(outcome.insertions))
    assert bool(np.isfinite(latents.states).all())
    assert len(np.unique(latents.states.round(5), axis=0)) > 6


def test_the_file_is_one_that_the_library_reads(weaving: AdapterHost, tmp_path: Path) -> None:
    items = read_analysis_items(weaving, [item(n) for n in range(3)])
    collect_latents(weaving, ["m"] * 3, items, tmp_path, run=RUN)
    states = load_file(tmp_path / "latents.safetensors")["latents"]
    assert states.dtype == np.float32
    assert np.array_equal(states, open_latents(tmp_path).states)
    assert not list(tmp_path.glob("*.part"))


def test_nobodys_words_are_written(weaving: AdapterHost, tmp_path: Path) -> None:
    items = read_analysis_items(weaving, [item(n, "secretword") for n in range(3)])
    [said, *_] = outcomes_of(weaving, "m", items)
    collect_latents(weaving, ["m"] * 3, items, tmp_path, run=RUN)
    text = "".join(path.read_text() for path in tmp_path.glob("*.json*"))
    assert "secretword" not in text
    assert said.score.answer not in text
    rows = [json.loads(line) for line in (tmp_path / "items.jsonl").read_bytes().decode().split("\n") if line]
    assert [row["item"] for row in rows] == ["words-0", "words-1", "words-2"]
    assert {row["right"] for row in rows} == {False}


def test_equal_runs_write_equal_bytes(weaving: AdapterHost, tmp_path: Path) -> None:
    items = read_analysis_items(weaving, [item(n) for n in range(5)])
    for name in ("first", "second"):
        collect_latents(weaving, ["m"] * 5, items, tmp_path / name, run=RUN)
    assert (tmp_path / "first/manifest.json").read_bytes() == (tmp_path / "second/manifest.json").read_bytes()


def test_latents_are_written_as_batches_end(
    weaving: AdapterHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many items only a few batches' are in memory: what is answered stands in the file before the next begins."""
    sizes: list[int] = []

    def note(_: str, done: int, of: int) -> None:
        sizes.append((tmp_path / "latents.safetensors.part").stat().st_size)
        if done == of:
            assert of == 20

    items = read_analysis_items(weaving, [item(n) for n in range(20)])
    run = AnalysisRun(batch_size=1, on_progress=note)  # four at a time
    collect_latents(weaving, ["m"] * 20, items, tmp_path, run=run)
    whole = (tmp_path / "latents.safetensors").stat().st_size
    assert any(0 < size < whole * 0.75 for size in sizes)


def test_items_that_nobody_can_be_judged_on_are_left_out(weaving: AdapterHost, tmp_path: Path) -> None:
    items = [item(0), item(1, "x" * (weaving.backbone.max_tokens + 1)), item(2, task="other")]
    collected = collect_latents(weaving, ["m"] * 3, read_analysis_items(weaving, items), tmp_path, run=RUN)
    assert {task.task: (task.items, task.left_out) for task in collected.tasks} == {"words": (2, 1), "other": (1, 0)}
    assert {place.item for place in open_latents(tmp_path).places} == {"words-0", "other-2"}


def test_a_version_that_never_weaves_has_no_latents(
    host: AdapterHost, random_artifact: Callable[..., Path], tmp_path: Path
) -> None:
    load_artifact(host, "m", random_artifact(trigger="never"))
    items = read_analysis_items(host, [item(0), item(1)])
    assert collect_latents(host, ["m", None], items, tmp_path, run=RUN).latents == 0
    assert open_latents(tmp_path).states.shape == (0, host.backbone.hidden_size)
    assert load_file(tmp_path / "latents.safetensors")["latents"].shape == (0, host.backbone.hidden_size)


def test_a_run_tells_how_far_it_is_and_can_be_ended(weaving: AdapterHost, tmp_path: Path) -> None:
    items = read_analysis_items(weaving, [item(n) for n in range(6)])
    told: list[tuple[str, int, int]] = []
    collect_latents(
        weaving, ["m"] * 6, items, tmp_path / "a", run=replace(RUN, on_progress=lambda *at: told.append(at))
    )
    assert told[-1] == ("collect", 6, 6)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)

    def stop(*_: object) -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        collect_latents(weaving, ["m"] * 6, items, tmp_path / "b", run=replace(RUN, on_progress=stop))


def test_as_many_memories_as_items(weaving: AdapterHost, tmp_path: Path) -> None:
    items = read_analysis_items(weaving, [item(0), item(1)])
    for memories, some in ((["m"], items), ([], [])):
        with pytest.raises(ConfigError, match="expected one or more, and as many"):
            collect_latents(weaving, memories, some, tmp_path, run=RUN)
    with pytest.raises(ConfigError, match="seed is -1"):
        AnalysisRun(seed=-1)


@pytest.mark.parametrize("name", ["latents.safetensors", "latents.jsonl"])
def test_a_changed_or_missing_file_is_seen(weaving: AdapterHost, tmp_path: Path, name: str) -> None:
    collect_latents(weaving, ["m"], read_analysis_items(weaving, [item(0)]), tmp_path, run=RUN)
    path = tmp_path / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ArtifactCorrupt):
        open_latents(tmp_path)
    path.unlink()
    with pytest.raises(ArtifactMissing):
        open_latents(tmp_path)


def test_places_are_as_many_as_latents(weaving: AdapterHost, tmp_path: Path) -> None:
    collect_latents(weaving, ["m"], read_analysis_items(weaving, [item(0)]), tmp_path, run=RUN)
    latents = open_latents(tmp_path)
    assert asdict(latents.places[0])["item"] == "words-0"
    with pytest.raises(ConfigError, match="as many rows as places"):
        latents_of(np.asarray(latents.states), latents.places[1:])


def test_what_is_no_number_is_refused(host: AdapterHost, random_artifact: Callable[..., Path], tmp_path: Path) -> None:
    """Of a memory whose training went astray."""
    load_artifact(host, "astray", random_artifact(max_insertions=2))
    with torch.no_grad():
        for parameter in host.memories["astray"].parameters():
            parameter.fill_(torch.nan)
    with pytest.raises(ModelError, match="memory astray can't be chosen: its state is NaN"):
        collect_latents(host, ["astray"], read_analysis_items(host, [item(0)]), tmp_path, run=RUN)
