"""The fast training forward against the literal reference, and the training loop."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from memgen.artifacts.artifact import load_artifact
from memgen.backbone.loading import Backbone
from memgen.config import MemoryConfig, TrainingConfig
from memgen.errors import Cancelled, ConfigError, NothingToTrain
from memgen.generation.engine import generate
from memgen.generation.requests import GenerationRequest
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.text.delimiters import DelimiterMatcher
from memgen.training import forward
from memgen.training.batches import batch_of_step
from memgen.training.examples import Example, ExampleSet, build_examples
from memgen.training.forward import PrefixStore, gathered, supervised_nll
from memgen.training.layout import insertion_points
from memgen.training.losses import mean_by_example
from memgen.training.run_control import RunControl
from memgen.training.weaver.sft import did_not_learn, train_weaver
from tests import reference
from tests.memgen.conftest import CONFIG, SHAPES, conversations
from tests.reference_memory import ReferenceMemory

EXAMPLES = [
    Example((5, 6, 7, 8, 9), (68, 11, 69, 12, 70, 71, 2)),
    Example((7,), (12, 2)),
    Example((9, 8, 7), (13, 14, 72, 15, 16, 2)),
]
RUN = TrainingConfig(steps=6, batch_size=4, warmup_steps=2, seed=3)


@pytest.fixture
def data(backbone: Backbone) -> ExampleSet:
    return build_examples(backbone.profile, conversations(10), max_tokens=500)


def _weights(host: AdapterHost, name: str) -> list[torch.Tensor]:
    return [p.detach().clone() for p in host.memories[name].weaver_parameters()]


@SHAPES
@pytest.mark.parametrize("max_insertions", [0, 3])
@pytest.mark.parametrize("prefix_bytes", [0, 10**9], ids=["encoded-anew", "cached-prefixes"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
def test_loss_and_gradients_equal_the_reference(
    host: AdapterHost,
    backbone: Backbone,
    random_artifact: Callable[..., Path],
    shape: dict[str, Any],
    max_insertions: int,
    prefix_bytes: int,
    checkpointing: bool,
) -> None:
    folder = random_artifact(**shape, max_insertions=max_insertions)
    memory = load_artifact(host, "m", folder)
    prefixes = PrefixStore(backbone, prefix_bytes, [[e.prompt_ids[:-1] for e in EXAMPLES]])
    supervised_nll(host, "m", EXAMPLES, prefixes)
    nll, rows = supervised_nll(host, "m", EXAMPLES, prefixes, checkpointing=checkpointing)
    loss = mean_by_example(nll, rows, len(EXAMPLES)).mean()
    loss.backward()

    literal = ReferenceMemory(backbone.model, folder, backbone.tokenizer)
    losses = [reference.loss(literal, backbone.model, list(e.prompt_ids), list(e.target_ids)) for e in EXAMPLES]
    expected = torch.stack(losses).mean()
    expected.backward()

    torch.testing.assert_close(loss, expected)
    _assert_same_gradients(dict(memory.named_parameters()), {k: t.grad for k, t in literal.tensors.items()})
    ours = {
        f"base_model.model.{name}.lora_{factor}.weight": parameter
        for name, pair in memory.weaver.factors.items()
        for factor, parameter in zip("AB", pair, strict=True)
    }
    _assert_same_gradients(ours, literal.lora_gradients("weaver"))
    # Every insertion took part: the inference queries learn exactly if there are any.
    assert (memory.inference_queries.latents.grad is not None) == (max_insertions > 0)


def _assert_same_gradients(parameters: dict[str, torch.nn.Parameter], expected: dict[str, torch.Tensor | None]) -> None:
    for name, parameter in parameters.items():
        theirs = expected.get(name)
        mine = parameter.grad
        if theirs is None:
            assert mine is None or not mine.any(), name
        elif mine is None:
            assert not theirs.any(), name
        else:
            torch.testing.assert_close(mine, theirs, atol=5e-5, rtol=1e-3, msg=lambda text, n=name: f"{n}: {text}")
    assert any(parameter.grad is not None for parameter in parameters.values())


def test_training_weaves_where_generation_would(
    host: AdapterHost, backbone: Backbone, random_artifact: Callable[..., Path]
) -> None:
    """Trained on what it wrote itself, a memory is woven at the very places where the engine wove it."""
    memory = load_artifact(host, "m", random_artifact(2, max_insertions=4))
    prompt = tuple(range(5, 24))
    [answer] = generate(host, [GenerationRequest(prompt, Sampling(24), "m")])
    matcher = DelimiterMatcher.of(backbone.tokenizer, memory.config.delimiters)
    points = insertion_points(Example(prompt, (*answer.token_ids, 2)), memory.config, matcher)
    assert len(points) >= 2
    assert [len(prompt) + point for point in points] == [d.position for d in answer.insertions[1:]]


def test_the_base_gets_no_gradient_and_does_not_change(host: AdapterHost, backbone: Backbone, data: ExampleSet) -> None:
    before = {name: p.clone() for name, p in backbone.model.named_parameters()}
    host.create("m", CONFIG)
    train_weaver(host, "m", data, RUN)
    for name, parameter in backbone.model.named_parameters():
        assert parameter.grad is None
        assert torch.equal(parameter, before[name])


def test_training_lowers_the_loss_and_reports_it(host: AdapterHost, data: ExampleSet) -> None:
    host.create("m", CONFIG)
    steps = []
    report = train_weaver(
        host,
        "m",
        data,
        TrainingConfig(steps=40, batch_size=4, warmup_steps=4),
        control=RunControl(on_step=steps.append),
    )
    assert report.losses[-1] < 0.8 * report.losses[0]
    assert report.flags == ()
    assert [s.step for s in steps] == list(range(1, 41))
    assert steps[-1].seconds_left == 0.0
    assert report.tokens == sum(e.tokens for s in range(40) for e in batch_of_step(data.examples, RUN_40, s))


RUN_40 = TrainingConfig(steps=40, batch_size=4, warmup_steps=4)


def test_a_stopped_run_goes_on_bit_for_bit(backbone: Backbone, data: ExampleSet, tmp_path: Path) -> None:
    whole, broken = AdapterHost(backbone), AdapterHost(backbone)
    whole.create("m", CONFIG, seed=1)
    expected = train_weaver(whole, "m", data, RUN)

    broken.create("m", CONFIG, seed=1)
    checkpoint, seen = tmp_path / "state.safetensors", []
    control = RunControl(checkpoint=checkpoint, on_step=seen.append, should_stop=lambda: len(seen) == 3)
    with pytest.raises(Cancelled):
        train_weaver(broken, "m", data, RUN, control=control)
    assert [step.step for step in seen] == [1, 2, 3]
    resumed = AdapterHost(backbone)
    resumed.create("m", CONFIG, seed=99)
    report = train_weaver(resumed, "m", data, RUN, control=RunControl(checkpoint=checkpoint))

    assert report.losses == expected.losses
    for one, other in zip(_weights(whole, "m"), _weights(resumed, "m"), strict=True):
        assert torch.equal(one, other)


def test_prefixes_beyond_the_memory_allowed_are_encoded_again(backbone: Backbone) -> None:
    prompts = [(5, 6, 7), (8, 9), (10, 11, 12, 13)]
    allowed = 6 * backbone.decoder.kv_shape.bytes_per_token
    store = PrefixStore(backbone, allowed, [prompts[:2], prompts[2:]])
    first, again = store.read(prompts), store.read(prompts)
    assert sorted(store._kept) == sorted(prompts[:2])
    assert [prefix.tokens for prefix in first] == [3, 2, 4]
    assert first[0].kv is again[0].kv
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.kv, other.kv)


def test_prompts_of_many_passes_are_read_in_one_go_and_none_of_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "READ_AHEAD", 5)
    passes = [[[(1, 2)], [(3,)]], [[(4, 5, 6)], []], [[(7,)], [(8, 9), (1, 1)]]]
    groups = list(gathered(passes))
    assert groups == [[(1, 2), (4, 5, 6)], [(3,)], [(7,)], [(8, 9), (1, 1)]]


def test_every_epoch_reads_every_example_once() -> None:
    examples = [Example((5,), (n,)) for n in range(6)]
    config = TrainingConfig(steps=6, batch_size=4, seed=5)
    drawn = [e.target_ids[0] for step in range(6) for e in batch_of_step(examples, config, step)]
    epochs = [drawn[n : n + 6] for n in range(0, 24, 6)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_nothing_to_train_is_an_error(host: AdapterHost) -> None:
    host.create("m", CONFIG)
    with pytest.raises(NothingToTrain, match="3 turns are longer than 1024 tokens or than .*, 1 have weight 0"):
        train_weaver(host, "m", ExampleSet((), 3, 1), RUN)


def test_flags_name_what_did_not_learn() -> None:
    same = [torch.ones(2)]
    assert did_not_learn([1.0] * 10, same, same) == (
        "no weight changed",
        "the loss did not fall: 1.000 at first, 1.000 at last",
    )
    assert did_not_learn([2.0, 1.0, 1.0, 1.0, 0.5], same, [torch.zeros(2)]) == ()


def test_a_child_starts_from_its_parent(host: AdapterHost, artifacts: dict[str, Path]) -> None:
    load_artifact(host, "parent", artifacts["yes"])
    host.create("child", CONFIG, seed=9)
    host.copy("parent", "child")
    for old, new in zip(_weights(host, "parent"), _weights(host, "child"), strict=True):
        assert torch.equal(old, new)


def test_config_refuses_unknown_and_impossible_values() -> None:
    with pytest.raises(ConfigError, match=r"unknown TrainingConfig fields \['step'\]; known:"):
        TrainingConfig.from_mapping({"step": 3})
    with pytest.raises(ConfigError, match="steps is 0; expected at least 1"):
        TrainingConfig(steps=0)
    with pytest.raises(ConfigError, match="^reread_tokens is -1; expected 0 to 4096"):
        MemoryConfig(reread_tokens=-1)
    with pytest.raises(ConfigError, match="a weaver of form 'embedding' reads the whole context for itself"):
        MemoryConfig(form="embedding", reread_tokens=8)


def test_supervised_turns_become_examples(backbone: Backbone) -> None:
    tokenizer = backbone.tokenizer
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "one"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "two", "weight": 0},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "three"},
    ]
    data = build_examples(backbone.profile, [{"messages": messages}], max_tokens=500)
    answers = [tokenizer.decode(e.target_ids) for e in data.examples]
    assert answers == ["one<|im_end|>", "three<|im_end|>"]
    assert data.skipped_weight == 1
    assert tokenizer.decode(data.examples[1].prompt_ids).endswith("user\nc<|im_end|>\n<|im_start|>assistant\n")
    assert build_examples(backbone.profile, [{"messages": messages}], max_tokens=60).skipped_long == 1
