"""Two processes on the CPU do what one does, and end when they should.

Starting them takes seconds, so each of these tests asks for much.
"""

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from memgen.artifacts.report import TrainingReport
from memgen.backbone.loading import Backbone
from memgen.config import GrpoConfig, TrainingConfig, TriggerConfig
from memgen.errors import Cancelled, ConfigError, DeviceFailed, TrainingDiverged
from memgen.experience.pool import PastTrajectory
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.tasks.graders import Reference, make_grader
from memgen.text.answers import Answer
from memgen.training.devices import Devices, check_devices, run_distributed
from memgen.training.examples import ExampleSet, build_examples
from memgen.training.optimizing import StepReport
from memgen.training.reward.losses import has_spread
from memgen.training.reward.rollouts import roll_out
from memgen.training.run_control import RunControl
from memgen.training.several_devices import train_on_devices
from memgen.training.trigger.grpo import train_trigger
from memgen.training.weaver.grpo import train_weaver_grpo, train_weaver_on_groups
from memgen.training.weaver.grpo_run import GrpoStep
from memgen.training.weaver.sft import train_weaver
from tests.memgen.conftest import CONFIG, conversations, randomise
from tests.memgen.training.failing_work import work
from tests.memgen.training.weaver.test_grpo import SHORT, items

RUN = TrainingConfig(steps=6, batch_size=5, warmup_steps=2, seed=3, held_out_share=0.2, validate_every=2)


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes may share one core, if that is all there is."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)


@pytest.fixture
def data(backbone: Backbone) -> ExampleSet:
    trajectories = [{**c, "reward": 0.25 + n} for n, c in enumerate(conversations(10))]
    return build_examples(backbone.profile, trajectories, max_tokens=500, reward_weighting="reward")


def _weights(host: AdapterHost) -> list[torch.Tensor]:
    return [p.detach().clone() for p in host.memories["m"].weaver_parameters()]


def _run(
    backbone: Backbone, data: ExampleSet, config: TrainingConfig, seed: int = 1, **control: Any
) -> tuple[TrainingReport, list[torch.Tensor], AdapterHost]:
    host = AdapterHost(backbone)
    host.create("m", replace(CONFIG, max_insertions=2), seed=seed)
    cache_dir = Path(backbone.name).parent
    train = partial(train_weaver, data=data, config=config)
    report = train_on_devices(train, config.devices, host, "m", cache_dir=cache_dir, control=RunControl(**control))
    return report, _weights(host), host


def test_two_processes_train_what_one_does(backbone: Backbone, data: ExampleSet, tmp_path: Path) -> None:
    expected, expected_weights, _ = _run(backbone, data, RUN)
    two, checkpoint = replace(RUN, devices=2, accumulate_steps=2), tmp_path / "state.safetensors"
    steps: list[StepReport] = []
    saved: list[Path] = []
    named = {"checkpoint": checkpoint, "checkpoint_interval_seconds": 0.0, "on_checkpoint": saved.append}
    report, weights, _ = _run(backbone, data, two, **named, on_step=steps.append)
    assert [step.step for step in steps] == [1, 2, 3, 4, 5, 6]
    assert saved == [checkpoint] * 6
    assert report.losses == pytest.approx(expected.losses, abs=1e-5)
    assert [loss for _, loss in report.held_out_losses] == pytest.approx(
        [loss for _, loss in expected.held_out_losses], abs=1e-5
    )
    assert (report.best_step, report.tokens, report.examples) == (expected.best_step, expected.tokens, 8)
    for one, other in zip(weights, expected_weights, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)

    # The first process's checkpoint is whole: one process can end what two began.
    again, read, _ = _run(backbone, data, RUN, seed=9, checkpoint=checkpoint)
    assert again.losses == report.losses
    assert all(torch.equal(one, other) for one, other in zip(weights, read, strict=True))


def test_all_processes_stop_at_one_step_with_the_state_saved(
    backbone: Backbone, data: ExampleSet, tmp_path: Path
) -> None:
    steps: list[StepReport] = []
    saved: list[Path] = []
    with pytest.raises(Cancelled):
        _run(
            backbone,
            data,
            replace(RUN, steps=100_000, devices=2),
            checkpoint=tmp_path / "state.safetensors",
            on_checkpoint=saved.append,
            on_step=steps.append,
            should_stop=lambda: len(steps) >= 2,
        )
    assert saved == [tmp_path / "state.safetensors"]
    with safe_open(saved[0], framework="pt") as file:
        state = json.loads(file.metadata()["state"])
    assert len(state["losses"]) == state["trainable"]["steps"] == steps[-1].step


PLAYED = replace(
    SHORT, steps=3, items_per_step=3, group_size=4, iterations=2, batch_size=5, kl_coefficient=0.1, temperature=1.5
)


def _played(
    backbone: Backbone, train: Callable[..., Any], config: GrpoConfig | TriggerConfig, **control: Any
) -> tuple[Any, list[torch.Tensor]]:
    """What `train` makes of a memory that is cued and has a trigger."""
    host = AdapterHost(backbone)
    cued = {"cue_tokens": 60, "cue_states": True}
    shape = replace(CONFIG, max_insertions=2, trigger="lora", delimiters=("e", "t", "a", " "), **cued)
    memory = host.create("m", shape, seed=1)
    randomise(memory, 3)
    with torch.no_grad():
        for parameter in memory.trigger_head.parameters():
            parameter.mul_(0.1)
    assert memory.recall is not None
    memory.recall = memory.recall.with_entries([PastTrajectory("1", "t", "say 7", "yes", 1.0)])
    cache_dir = Path(backbone.name).parent
    report = train_on_devices(
        partial(train, config=config), config.devices, host, "m", cache_dir=cache_dir, control=RunControl(**control)
    )
    return report, [parameter.detach().clone() for parameter in memory.every_parameter()]


def _close(some: list[torch.Tensor], others: list[torch.Tensor]) -> None:
    for one, other in zip(some, others, strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-3)


def test_two_processes_play_and_learn_what_one_does(backbone: Backbone, tmp_path: Path) -> None:
    """Three items on two devices, so that shares are unequal; rewards, advantages and weights are of the whole step."""
    train = partial(train_weaver_grpo, items=items(5), task="t")
    expected, expected_weights = _played(backbone, train, PLAYED)
    steps: list[GrpoStep] = []
    checkpoint = tmp_path / "state.safetensors"
    saving = {"checkpoint": checkpoint, "checkpoint_interval_seconds": 0.0}
    found, weights = _played(backbone, train, replace(PLAYED, devices=2), **saving, on_step=steps.append)
    assert [step.step for step in steps] == [1, 2, 3]
    assert expected.rewards == pytest.approx(found.rewards, abs=1e-6)
    assert len(set(found.rewards)) == 3
    assert expected.losses == pytest.approx(found.losses, abs=1e-4)
    assert (found.rollouts, found.groups, found.tokens) == (36, 9, expected.tokens)
    _close(weights, expected_weights)
    again, read = _played(backbone, train, PLAYED, checkpoint=checkpoint)
    assert again.rewards == found.rewards
    assert all(torch.equal(one, other) for one, other in zip(read, weights, strict=True))


def test_two_processes_compare_recorded_groups_as_one_does(backbone: Backbone) -> None:
    host = AdapterHost(backbone)
    host.create("m", CONFIG, seed=4)
    groups = roll_out(host, "m", items(4), Sampling(6, temperature=1.0), group_size=4, seed=0)
    assert all(has_spread(group.rewards) for group in groups)
    train = partial(train_weaver_on_groups, groups=groups)
    expected, expected_weights = _played(backbone, train, PLAYED)
    found, weights = _played(backbone, train, replace(PLAYED, devices=2))
    assert expected.losses == pytest.approx(found.losses, abs=1e-4)
    _close(weights, expected_weights)


def test_two_processes_train_a_trigger_as_one_does(backbone: Backbone) -> None:
    config = TriggerConfig(steps=3, items_per_step=3, group_size=4, max_new_tokens=12, warmup_steps=1, loss="grpo")
    train = partial(train_trigger, items={"a": items(3), "b": items(2)})
    expected, expected_weights = _played(backbone, train, config)
    found, weights = _played(backbone, train, replace(config, devices=2))
    assert expected.rewards == pytest.approx(found.rewards, abs=1e-6)
    assert (found.groups, found.groups_skipped) == (expected.groups, expected.groups_skipped)
    assert found.groups_skipped < found.groups
    assert {task: rate.asked for task, rate in found.by_task.items()} == {
        task: rate.asked for task, rate in expected.by_task.items()
    }
    _close(weights, expected_weights)


def test_playing_stops_on_all_devices_with_the_state_saved(backbone: Backbone, tmp_path: Path) -> None:
    steps: list[GrpoStep] = []
    saved: list[Path] = []
    with pytest.raises(Cancelled):
        _played(
            backbone,
            partial(train_weaver_grpo, items=items(5)),
            replace(PLAYED, steps=100_000, devices=2),
            checkpoint=tmp_path / "state.safetensors",
            on_checkpoint=saved.append,
            on_step=steps.append,
            should_stop=lambda: len(steps) >= 1,
        )
    assert saved == [tmp_path / "state.safetensors"]
    with safe_open(saved[0], framework="pt") as file:
        assert len(json.loads(file.metadata()["state"])["rewards"]) == steps[-1].step


def test_graders_can_be_sent_and_other_closures_are_named(backbone: Backbone) -> None:
    graded = pickle.loads(pickle.dumps(make_grader({"kind": "exact", "ignore_case": True})))
    assert graded(Answer("YES"), Reference({"role": "assistant", "content": "yes"})) == 1.0
    local = partial(train_weaver_grpo, items=items(5, lambda answer, reference: 1.0))
    with pytest.raises(ConfigError, match="can't be sent to other processes: .*lambda.*on one device"):
        _played(backbone, local, replace(PLAYED, devices=2))


def test_shares_follow_one_another() -> None:
    for count, ranks in ((3, 2), (7, 3), (2, 2), (8, 4)):
        shares = []
        for rank in range(ranks):
            devices = Devices()
            devices.rank, devices.count = rank, ranks
            shares.append(list(devices.share(count)))
        assert [place for share in shares for place in share] == list(range(count))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    for config in (GrpoConfig, TriggerConfig):
        with pytest.raises(ConfigError, match="devices is 9; expected 1 to items_per_step, 8"):
            config(devices=9)


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("fails", DeviceFailed, "process 1 of 2: .*RuntimeError: out of luck"),
        ("dies", DeviceFailed, "process . of 2: "),
        ("diverges", TrainingDiverged, "both say so"),
    ],
)
def test_a_process_that_fails_ends_all(how: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"(?s){message}"):
        run_distributed(work, how, kind="cpu", count=2)


def test_more_devices_than_there_are_is_an_error(backbone: Backbone, data: ExampleSet) -> None:
    with pytest.raises(ConfigError, match="asks for 3 cpu devices, this machine has 2; lower `devices`"):
        _run(backbone, data, replace(RUN, devices=3))
    with pytest.raises(ConfigError, match="kind 'mps' can't train together"):
        check_devices("mps", 2)
