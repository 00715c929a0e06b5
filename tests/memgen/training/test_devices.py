"""Two processes on the CPU do what one does, and end when they should.

Starting them takes seconds, so each of these tests asks for much.
"""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from memgen.backbone import Backbone
from memgen.config import TrainingConfig
from memgen.errors import Cancelled, ConfigError, DeviceFailed, TrainingDiverged
from memgen.host import AdapterHost
from memgen.training.devices import Devices, Line, check_devices, run_distributed
from memgen.training.examples import ExampleSet, build_examples
from memgen.training.optimizing import StepReport
from memgen.training.several_devices import train_weaver_on_devices
from memgen.training.weaver_sft import TrainingReport
from tests.memgen.conftest import CONFIG, conversations

RUN = TrainingConfig(steps=6, batch_size=5, warmup_steps=2, seed=3, held_out_share=0.2, validate_every=2)


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes may share one core, if that is all there is."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)


@pytest.fixture
def data(backbone: Backbone) -> ExampleSet:
    trajectories = [{**c, "reward": 0.25 + n} for n, c in enumerate(conversations(10))]
    return build_examples(backbone.tokenizer, trajectories, max_tokens=500, reward_weighting="reward")


def _weights(host: AdapterHost) -> list[torch.Tensor]:
    return [p.detach().clone() for p in host.memories["m"].weaver_parameters()]


def _run(
    backbone: Backbone, data: ExampleSet, config: TrainingConfig, seed: int = 1, **named: object
) -> tuple[TrainingReport, list[torch.Tensor], AdapterHost]:
    host = AdapterHost(backbone)
    host.create("m", replace(CONFIG, max_insertions=2), seed=seed)
    cache_dir = Path(backbone.name).parent
    report = train_weaver_on_devices(host, "m", data, config, cache_dir=cache_dir, **named)  # type: ignore[arg-type]
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
    with pytest.raises(Cancelled, match="stopped before step .* of 100000"):
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


def work(devices: Devices, device: torch.device, line: Line, how: str) -> float:
    """What the processes of the next test do."""
    if how == "fails" and devices.rank == 1:
        raise RuntimeError("out of luck")
    if how == "dies" and devices.rank == 1:
        os._exit(9)
    if how == "diverges":
        # The second is slower to say so.
        time.sleep(devices.rank)
        raise TrainingDiverged("both say so")
    return float(devices.total(torch.ones(1, device=device)))


@pytest.mark.parametrize(
    ("how", "error", "told"),
    [
        ("fails", DeviceFailed, "process 1 of 2: .*RuntimeError: out of luck"),
        ("dies", DeviceFailed, "process . of 2: "),
        ("diverges", TrainingDiverged, "both say so"),
    ],
)
def test_a_process_that_fails_ends_all(how: str, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=f"(?s){told}"):
        run_distributed(work, how, kind="cpu", count=2)


def test_more_devices_than_there_are_is_an_error(backbone: Backbone, data: ExampleSet) -> None:
    with pytest.raises(ConfigError, match="asks for 3 cpu devices, this machine has 2; lower `devices`"):
        _run(backbone, data, replace(RUN, devices=3))
    with pytest.raises(ConfigError, match="kind 'mps' can't train together"):
        check_devices("mps", 2)
