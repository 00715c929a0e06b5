"""The loop of weaver SFT: weights of examples, accumulation, early stopping, and going on after a kill."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from memgen.artifacts.report import TrainingReport
from memgen.backbone.loading import Backbone, load_backbone
from memgen.config import TrainingConfig
from memgen.errors import Cancelled, ConfigError
from memgen.memory.host import AdapterHost
from memgen.training.batches import batch_of_step
from memgen.training.examples import Example, ExampleSet, build_examples
from memgen.training.losses import weighted_mean
from memgen.training.optimizing import StepReport
from memgen.training.run_control import RunControl
from memgen.training.weaver.sft import did_not_learn, train_weaver
from tests.memgen.conftest import CONFIG, conversations, unlike_queries

RUN = TrainingConfig(steps=8, batch_size=5, warmup_steps=2, seed=3, prefix_cache_bytes=40_000, query_start="words")
WATCHED = replace(RUN, held_out_share=0.2, validate_every=2, accumulate_steps=3)


@pytest.fixture
def data(backbone: Backbone) -> ExampleSet:
    """Ten examples of unequal length and weight."""
    trajectories = [{**c, "reward": 0.25 + n} for n, c in enumerate(conversations(10))]
    return build_examples(backbone.profile, trajectories, max_tokens=500, reward_weighting="reward")


@pytest.fixture
def contrary(backbone: Backbone) -> tuple[Example, ...]:
    """What becomes less likely the better the data are learned."""
    return build_examples(backbone.profile, conversations(4, "qqqqqqqq"), max_tokens=500).examples


def _weights(host: AdapterHost) -> list[torch.Tensor]:
    return [p.detach().clone() for p in host.memories["m"].weaver_parameters()]


def _run(
    backbone: Backbone, *args: object, seed: int = 1, **named: object
) -> tuple[TrainingReport, list[torch.Tensor]]:
    host = AdapterHost(backbone)
    unlike_queries(host.create("m", CONFIG, seed=seed), backbone, seed)
    report = train_weaver(host, "m", *args, **named)  # type: ignore[arg-type]  # as the caller gives them
    return report, _weights(host)


def test_the_weighted_mean_of_parts_adds_up() -> None:
    values, weights = torch.tensor([2.0, 5.0, 4.0]), torch.tensor([1.0, 0.5, 2.5])
    assert weighted_mean(values[:2], weights[:2]).item() == pytest.approx(3.0)
    assert weighted_mean(values, weights).item() == pytest.approx(3.625)
    parts = [weighted_mean(values[n : n + 1], weights[n : n + 1], 4.0).item() for n in range(3)]
    assert parts == pytest.approx([0.5, 0.625, 2.5])


def test_equal_weights_are_no_weights_and_others_matter(backbone: Backbone, data: ExampleSet) -> None:
    def weighing(weight: Callable[[Example], float]) -> TrainingReport:
        examples = tuple(replace(e, weight=weight(e)) for e in data.examples)
        return _run(backbone, replace(data, examples=examples), replace(RUN, steps=2))[0]

    plain, equal, unequal = weighing(lambda e: 1.0), weighing(lambda e: 0.25), weighing(lambda e: e.weight)
    assert equal.losses == pytest.approx(plain.losses, rel=1e-5)
    assert unequal.losses[0] != pytest.approx(plain.losses[0], rel=1e-3)


def test_an_example_of_nearly_no_weight_is_nearly_not_there(backbone: Backbone, data: ExampleSet) -> None:
    batch = batch_of_step(data.examples, RUN, 0)
    light = tuple(replace(e, weight=1e-9 if e is batch[0] else e.weight) for e in data.examples)
    without = ExampleSet(tuple(batch[1:]), 0, 0)
    one = _run(backbone, replace(data, examples=light), replace(RUN, steps=1))[0]
    other = _run(backbone, without, replace(RUN, steps=1, batch_size=4))[0]
    assert one.losses == pytest.approx(other.losses, rel=1e-5)


@pytest.mark.parametrize("passes", [2, 5])
def test_accumulated_steps_are_those_of_the_undivided_batch(backbone: Backbone, data: ExampleSet, passes: int) -> None:
    norms: dict[int, list[float]] = {1: [], passes: []}
    found = {
        count: _run(
            backbone,
            data,
            replace(RUN, accumulate_steps=count),
            control=RunControl(on_step=lambda step, n=count: norms[n].append(step.grad_norm)),
        )
        for count in (1, passes)
    }
    (whole, whole_weights), (parts, parts_weights) = found[1], found[passes]
    assert parts.losses == pytest.approx(whole.losses, abs=1e-5)
    assert norms[passes] == pytest.approx(norms[1], rel=1e-4)
    for one, other in zip(whole_weights, parts_weights, strict=True):
        torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-4)


def test_the_best_weights_are_kept(backbone: Backbone, data: ExampleSet, contrary: tuple[Example, ...]) -> None:
    """Learning what the held-out examples are not, it ends where it was best on them."""
    config = replace(RUN, steps=60, validate_every=1, patience=4)
    report, weights = _run(backbone, data, config, held_out=contrary)
    losses = dict(report.held_out_losses)
    assert report.best_step == min(losses, key=lambda step: losses[step])
    assert report.best_step > 0
    assert report.steps == report.best_step + 4 < 60
    assert list(losses) == list(range(report.steps + 1))
    assert report.held_out == 4

    # The same run, ended at its best step: the schedule still spans 60 steps.
    reached: list[list[torch.Tensor]] = []
    host = AdapterHost(backbone)
    unlike_queries(host.create("m", CONFIG, seed=1), backbone)

    def should_stop() -> bool:
        reached.append(_weights(host))
        return len(reached) > report.best_step

    with pytest.raises(Cancelled):
        train_weaver(
            host, "m", data, replace(config, patience=0), held_out=contrary, control=RunControl(should_stop=should_stop)
        )
    assert all(torch.equal(one, other) for one, other in zip(weights, reached[-1], strict=True))


def test_looking_at_what_is_held_out_changes_no_step(backbone: Backbone, data: ExampleSet) -> None:
    held = data.examples[:2]
    plain, _ = _run(backbone, data, RUN)
    watched, _ = _run(backbone, data, replace(RUN, validate_every=3), held_out=held)
    assert watched.losses == pytest.approx(plain.losses, abs=1e-5)
    assert [step for step, _ in watched.held_out_losses] == [0, 3, 6, 8]


def test_a_share_is_held_out_and_not_trained_on(backbone: Backbone, data: ExampleSet) -> None:
    report, _ = _run(backbone, data, WATCHED)
    assert (report.examples, report.held_out) == (8, 2)
    assert report.best_step in dict(report.held_out_losses)
    with pytest.raises(ConfigError, match="patience is 2, but nothing is held out"):
        _run(backbone, data, replace(RUN, patience=2))


class _Killed(Exception): ...


@pytest.mark.parametrize("patience", [0, 3])
def test_a_run_killed_at_any_step_goes_on_bit_for_bit(
    backbone: Backbone, data: ExampleSet, contrary: tuple[Example, ...], tmp_path: Path, patience: int
) -> None:
    """With accumulation, looks between the steps, prefixes that do not all fit, and weights far from the given."""
    config = replace(WATCHED, held_out_share=0.0, patience=patience)
    expected, weights = _run(backbone, data, config, held_out=contrary)
    for killed_at in (1, 2, 3, 5, expected.steps):

        def die(step: StepReport, last: int = killed_at) -> None:
            if step.step == last:
                raise _Killed

        checkpoint = tmp_path / f"{killed_at}.safetensors"
        control: RunControl[StepReport] = RunControl(
            checkpoint=checkpoint, checkpoint_interval_seconds=0.0, on_step=die
        )
        with pytest.raises(_Killed):
            _run(backbone, data, config, held_out=contrary, control=control)
        seen: list[int] = []
        control = replace(control, on_step=lambda step, s=seen: s.append(step.step))
        report, resumed = _run(backbone, data, config, seed=9, held_out=contrary, control=control)
        assert seen == list(range(killed_at + 1, expected.steps + 1))
        assert replace(report, seconds=0.0) == replace(expected, seconds=0.0)
        assert all(torch.equal(one, other) for one, other in zip(weights, resumed, strict=True))


def test_a_run_stopped_before_its_first_step_has_saved_its_first_look(
    backbone: Backbone, data: ExampleSet, contrary: tuple[Example, ...], tmp_path: Path
) -> None:
    expected, _ = _run(backbone, data, RUN, held_out=contrary)
    control: RunControl[StepReport] = RunControl(checkpoint=tmp_path / "state.safetensors", should_stop=lambda: True)
    with pytest.raises(Cancelled):
        _run(backbone, data, RUN, held_out=contrary, control=control)
    with safe_open(tmp_path / "state.safetensors", framework="pt") as file:
        state = json.loads(file.metadata()["state"])
    assert (state["looks"], state["losses"]) == ([list(expected.held_out_losses[0])], [])
    report, _ = _run(backbone, data, RUN, seed=9, held_out=contrary, control=replace(control, should_stop=None))
    assert replace(report, seconds=0.0) == replace(expected, seconds=0.0)


def test_a_base_in_bfloat16_trains_float32(tiny_base: Path, data: ExampleSet) -> None:
    half = load_backbone(str(tiny_base), cache_dir=tiny_base.parent, dtype=torch.bfloat16)
    report, weights = _run(half, data, RUN)
    assert {p.dtype for p in half.model.parameters()} == {torch.bfloat16}
    assert {w.dtype for w in weights} == {torch.float32}
    assert report.losses[-1] < report.losses[0]


def test_a_config_for_more_devices_is_not_run_on_one(backbone: Backbone, data: ExampleSet) -> None:
    with pytest.raises(ConfigError, match="asks for 2 devices, the run has 1; start it with memgen.training"):
        _run(backbone, data, replace(RUN, devices=2))
    with pytest.raises(ConfigError, match="accumulate_steps 3 x devices 2 is more than batch_size 5"):
        replace(RUN, devices=2, accumulate_steps=3)


def test_flags_tell_of_zero_gradients_and_of_nothing_gained_on_what_is_held_out() -> None:
    old, new = [torch.ones(2)], [torch.zeros(2)]
    falling = [2.0, 1.0, 1.0, 1.0, 0.5]
    assert did_not_learn(falling, old, new, zero_gradients=2, held_out_losses=[2.0, 2.5, 1.9]) == ()
    assert did_not_learn(falling, old, new, zero_gradients=3) == ("every gradient was zero in 3 of 5 steps",)
    assert did_not_learn(falling, old, new, held_out_losses=[2.0, 2.5, 2.0]) == (
        "the held-out loss was never below its start, 2.000",
    )
