"""Training of form `lora`: PEFT's own loss and gradients, and the loops that memories are trained in."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from memgen.artifacts.artifact import load_artifact
from memgen.backbone.loading import Backbone
from memgen.config import GrpoConfig, MemoryConfig, TrainingConfig
from memgen.errors import Cancelled
from memgen.generation.engine import generate
from memgen.generation.requests import GenerationRequest
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.training.batches import batch_of_step
from memgen.training.examples import Example, ExampleSet, build_examples
from memgen.training.forward import PrefixStore, supervised_nll
from memgen.training.losses import mean_by_example
from memgen.training.run_control import RunControl
from memgen.training.weaver.grpo import train_weaver_grpo
from memgen.training.weaver.sft import train_weaver
from tests.memgen.conftest import conversations
from tests.memgen.training.weaver.test_grpo import items, starts_with_letter

PLAIN = MemoryConfig(form="lora", rank=4, alpha=8)
EXAMPLES = [
    Example((5, 6, 7, 8, 9), (68, 11, 69, 12, 70, 71, 2)),
    Example((7,), (12, 2)),
    Example((9, 8, 7), (13, 14, 72, 15, 16, 2)),
]
RUN = TrainingConfig(steps=6, batch_size=4, warmup_steps=2, seed=3)


@pytest.fixture
def data(backbone: Backbone) -> ExampleSet:
    return build_examples(backbone.profile, conversations(10), max_tokens=500)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
def test_loss_and_gradients_are_pefts(
    host: AdapterHost, backbone: Backbone, random_artifact: Callable[..., Path], checkpointing: bool
) -> None:
    folder = random_artifact(form="lora", rank=4, latents=0, inference_latents=0, delimiters=())
    memory = load_artifact(host, "m", folder)
    nll, rows = supervised_nll(host, "m", EXAMPLES, PrefixStore(backbone, 10**9), checkpointing=checkpointing)
    loss = mean_by_example(nll, rows, len(EXAMPLES)).mean()
    loss.backward()

    model = PeftModel.from_pretrained(copy.deepcopy(backbone.model), folder, is_trainable=True)
    losses = []
    for example in EXAMPLES:
        ids = torch.tensor([[*example.prompt_ids, *example.target_ids]])
        labels = torch.tensor([[*[-100] * len(example.prompt_ids), *example.target_ids]])
        losses.append(model(input_ids=ids, labels=labels).loss)
    expected = torch.stack(losses).mean()
    expected.backward()

    torch.testing.assert_close(loss, expected)
    theirs = [p.grad for name, p in model.named_parameters() if "lora_" in name]
    for ours, other in zip(memory.weaver.parameters(), theirs, strict=True):
        assert other is not None
        torch.testing.assert_close(ours.grad, other, rtol=1e-3, atol=1e-5)
    assert all(parameter.grad is None for parameter in backbone.model.parameters())


def test_it_learns_its_answers(host: AdapterHost, backbone: Backbone) -> None:
    host.create("m", PLAIN)
    text = conversations(1)[0]["messages"]
    data = build_examples(backbone.profile, [{"messages": text}], max_tokens=500)
    report = train_weaver(host, "m", data, TrainingConfig(steps=30, batch_size=1, learning_rate=1e-2))
    [example] = data.examples
    [answer] = generate(host, [GenerationRequest(example.prompt_ids, Sampling(16), "m")])
    assert report.flags == ()
    assert answer.token_ids == example.target_ids[: len(answer.token_ids)]
    assert len(answer.token_ids) >= len(example.target_ids) - 1


def test_a_run_that_was_killed_goes_on_bit_for_bit(backbone: Backbone, data: ExampleSet, tmp_path: Path) -> None:
    whole = AdapterHost(backbone)
    whole.create("m", PLAIN)
    expected = train_weaver(whole, "m", data, RUN)
    state, seen = tmp_path / "state.safetensors", []
    interrupted = RunControl(checkpoint=state, should_stop=lambda: len(seen) >= 3, on_step=seen.append)
    broken = AdapterHost(backbone)
    broken.create("m", PLAIN)
    with pytest.raises(Cancelled):
        train_weaver(broken, "m", data, RUN, control=interrupted)
    resumed = AdapterHost(backbone)
    resumed.create("m", PLAIN)
    report = train_weaver(resumed, "m", data, RUN, control=RunControl(checkpoint=state))
    assert report.losses == expected.losses
    for one, other in zip(
        whole.memories["m"].weaver_parameters(), resumed.memories["m"].weaver_parameters(), strict=True
    ):
        assert torch.equal(one, other)


def test_passes_of_a_step_add_up(backbone: Backbone, data: ExampleSet) -> None:
    losses = []
    for passes in (1, 2):
        host = AdapterHost(backbone)
        host.create("m", PLAIN)
        losses.append(train_weaver(host, "m", data, replace(RUN, accumulate_steps=passes)).losses)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert len(batch_of_step(data.examples, RUN, 0)) == 4


def test_it_learns_from_reward_alone(backbone: Backbone) -> None:
    host = AdapterHost(backbone)
    host.create("m", PLAIN)
    config = GrpoConfig(steps=30, items_per_step=4, group_size=8, batch_size=32, max_new_tokens=1, learning_rate=1e-2)
    report = train_weaver_grpo(host, "m", items(4, starts_with_letter), config)
    assert sum(report.rewards[:3]) / 3 < 0.45
    assert sum(report.rewards[-5:]) / 5 > 0.8
    assert report.flags == ()
