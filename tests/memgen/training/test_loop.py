"""The one loop of all training, with a learner that only counts and with those of each training."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from memgen.backbone.loading import Backbone
from memgen.config import GrpoConfig, TrainingConfig, TriggerConfig
from memgen.errors import ArtifactCorrupt, Cancelled
from memgen.memory.host import AdapterHost
from memgen.training import loop
from memgen.training.examples import build_examples
from memgen.training.loop import Learner, run_steps
from memgen.training.run_control import RunControl
from memgen.training.trigger import grpo as trigger_grpo
from memgen.training.trigger.grpo import train_trigger
from memgen.training.weaver import grpo_run, sft
from memgen.training.weaver.grpo import train_weaver_grpo
from memgen.training.weaver.sft import train_weaver
from tests.memgen.conftest import CONFIG, conversations
from tests.memgen.training.weaver.test_grpo import items


class Counter(Learner[int, str]):
    """Collects the step's number and learns it."""

    def __init__(self, learned: list[int] | None = None, stops_in: int | None = None) -> None:
        self.learned = learned or []
        self.saved: list[list[int]] = []
        self.began_with: list[int] = []
        self.seconds = 0.0
        self.is_satisfied = False
        self._stops_in = stops_in

    @property
    def steps_done(self) -> int:
        return len(self.learned)

    @property
    def is_over(self) -> bool:
        return self.is_satisfied

    def begin(self) -> None:
        self.began_with = list(self.learned)

    def collect(self, step: int) -> int:
        if step == self._stops_in:
            raise Cancelled("stopped while playing")
        return step

    def learn(self, batch: int) -> str:
        self.learned.append(batch)
        return f"learned {batch}"

    def timed(self, report: str, elapsed: float, seconds_left: float) -> str:
        return f"{report}, {'some' if elapsed > 0 else 'no'} time gone, {'some' if seconds_left > 0 else 'none'} left"

    def resume(self, path: Path) -> None:
        self.learned = [int(number) for number in path.read_text().split()]

    def save(self, path: Path) -> None:
        path.write_text(" ".join(map(str, self.learned)))
        self.saved.append(list(self.learned))


def test_the_steps_that_are_left_are_taken_in_order() -> None:
    learner, reports = Counter([7, 7]), []
    run_steps(learner, 5, RunControl(on_step=reports.append))
    assert learner.learned == [7, 7, 2, 3, 4]
    assert reports == [
        "learned 2, some time gone, some left",
        "learned 3, some time gone, some left",
        "learned 4, some time gone, none left",
    ]
    assert learner.seconds > 0


@pytest.mark.parametrize("stopper", ["collect", "should_stop"])
def test_a_stop_leaves_the_last_whole_step_saved(tmp_path: Path, stopper: str) -> None:
    learner = Counter(stops_in=2 if stopper == "collect" else None)
    stop: Callable[[], bool] | None = (lambda: learner.steps_done == 2) if stopper == "should_stop" else None
    written: list[Path] = []
    with pytest.raises(Cancelled, match="^stopped before step 3 of 5$"):
        run_steps(learner, 5, RunControl(checkpoint=tmp_path / "state", on_checkpoint=written.append, should_stop=stop))
    assert learner.saved == [[0, 1]]
    assert written == [tmp_path / "state"]


def test_a_checkpoint_is_written_when_its_interval_is_over(tmp_path: Path) -> None:
    often, never = Counter(), Counter()
    run_steps(often, 3, RunControl(checkpoint=tmp_path / "often", checkpoint_interval_seconds=0.0))
    run_steps(never, 3, RunControl(checkpoint=tmp_path / "never", checkpoint_interval_seconds=1e6))
    assert often.saved == [[0], [0, 1], [0, 1, 2]]
    assert never.saved == []


def test_a_saved_state_is_gone_on_from_before_the_run_begins(tmp_path: Path) -> None:
    learner, checkpoint = Counter(), tmp_path / "state"
    checkpoint.write_text("5 6")
    run_steps(learner, 4, RunControl(checkpoint=checkpoint))
    assert learner.began_with == [5, 6]
    assert learner.learned == [5, 6, 2, 3]


def test_a_learner_that_is_over_takes_no_further_step() -> None:
    learner = Counter()

    def on_step(report: str) -> None:
        learner.is_satisfied = learner.steps_done == 2

    run_steps(learner, 5, RunControl(on_step=on_step))
    assert learner.learned == [0, 1]


def _sft(host: AdapterHost, control: RunControl[Any]) -> object:
    data = build_examples(host.backbone.profile, conversations(6), max_tokens=500)
    return train_weaver(host, "m", data, TrainingConfig(steps=5, batch_size=2), control=control)


def _weaver_grpo(host: AdapterHost, control: RunControl[Any]) -> object:
    config = GrpoConfig(steps=5, items_per_step=2, group_size=2, max_new_tokens=4)
    return train_weaver_grpo(host, "m", items(2), config, control=control)


def _trigger_grpo(host: AdapterHost, control: RunControl[Any]) -> object:
    config = TriggerConfig(steps=5, items_per_step=2, group_size=2, max_new_tokens=4)
    return train_trigger(host, "m", {"t": items(2)}, config, control=control)


def test_every_training_goes_through_the_one_loop_and_stops_alike(backbone: Backbone, tmp_path: Path) -> None:
    """Cancelled at one place, each has saved one whole state, from which the same control would go on."""
    assert sft.run_steps is grpo_run.run_steps is trigger_grpo.run_steps is loop.run_steps
    texts = {}
    for train in (_sft, _weaver_grpo, _trigger_grpo):
        host = AdapterHost(backbone)
        host.create("m", CONFIG if train is not _trigger_grpo else replace(CONFIG, trigger="head"), seed=1)
        steps: list[Any] = []
        written: list[Path] = []
        control: RunControl[Any] = RunControl(
            checkpoint=tmp_path / f"{train.__name__}.safetensors",
            on_checkpoint=written.append,
            on_step=steps.append,
            should_stop=lambda seen=steps: len(seen) == 2,
        )
        with pytest.raises(Cancelled) as stopped:
            train(host, control)
        texts[train] = str(stopped.value)
        assert [step.step for step in steps] == [1, 2]
        assert all(step.seconds_left > 0 for step in steps)
        assert written == [control.checkpoint]
        assert control.saved_state == control.checkpoint
        with safe_open(written[0], framework="pt") as file:
            state = json.loads(file.metadata()["state"])
            names = [name for name in file.keys() if name.endswith(".value")]  # noqa: SIM118 - no dict
            saved = [file.get_tensor(f"{number}.value") for number in range(len(names))]
        assert len(state["losses"] if train is _sft else state["rewards"]) == 2
        memory = host.memories["m"]
        trained = memory.trigger_parameters() if train is _trigger_grpo else memory.weaver_parameters()
        assert all(torch.equal(one, other) for one, other in zip(saved, trained, strict=True))
    assert texts == {
        _sft: "stopped before step 3 of 5",
        _weaver_grpo: "stopped before step 3 of 5 was learned from",
        _trigger_grpo: "stopped before step 3 of 5 was learned from",
    }


def test_a_checkpoint_of_another_training_is_refused_in_words(backbone: Backbone, tmp_path: Path) -> None:
    """Each kind of run on the state of the other that trains the same weights."""
    data = build_examples(backbone.profile, conversations(4), max_tokens=500)
    sft_config = TrainingConfig(steps=1, batch_size=2, warmup_steps=1)
    grpo_config = GrpoConfig(steps=1, items_per_step=1, group_size=2, max_new_tokens=2)

    def host() -> AdapterHost:
        made = AdapterHost(backbone)
        made.create("m", CONFIG, seed=0)
        return made

    def by_sft(control: RunControl[Any]) -> None:
        train_weaver(host(), "m", data, sft_config, control=control)

    def by_grpo(control: RunControl[Any]) -> None:
        train_weaver_grpo(host(), "m", items(2), grpo_config, control=control)

    for first, second in ((by_sft, by_grpo), (by_grpo, by_sft)):
        path = tmp_path / f"{first.__name__}.safetensors"
        with pytest.raises(Cancelled):
            first(RunControl(checkpoint=path, should_stop=lambda: True))
        assert path.is_file()
        with pytest.raises(ArtifactCorrupt, match=r"is of another kind of run: .*; delete it to start over"):
            second(RunControl(checkpoint=path))


@pytest.mark.parametrize("error", [KeyError("losses"), TypeError("unexpected keyword"), ValueError("no number")])
def test_whatever_a_foreign_state_leads_to_is_one_error(tmp_path: Path, error: Exception) -> None:
    class Foreign(Counter):
        def resume(self, path: Path) -> None:
            raise error

    (tmp_path / "state").touch()
    with pytest.raises(ArtifactCorrupt, match="is of another kind of run"):
        run_steps(Foreign(), 3, RunControl(checkpoint=tmp_path / "state"))
