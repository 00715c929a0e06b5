"""Cues in serving and in training against the literal reference, and their window against a plain causal pass."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from memgen.artifacts.artifact import load_artifact
from memgen.backbone.decoder import Decoder
from memgen.backbone.fused_decoder import FusedDecoder
from memgen.backbone.kv_cache import SlotCache, Window
from memgen.backbone.loading import Backbone
from memgen.backbone.prompt_cache import PromptCache, read_prompts
from memgen.backbone.tape import Tape
from memgen.backbone.transformers_decoder import TransformersDecoder
from memgen.config import TrainingConfig
from memgen.errors import PromptTooLong
from memgen.generation.engine import generate
from memgen.generation.requests import Generation, GenerationRequest
from memgen.generation.sampling import Sampling
from memgen.memory.cue_window import CuedWindow
from memgen.memory.host import AdapterHost
from memgen.training.examples import Example, ExampleSet
from memgen.training.forward import PrefixStore, supervised_nll, texts_read
from memgen.training.losses import mean_by_example
from memgen.training.weaver.sft import train_weaver
from tests import reference
from tests.memgen.conftest import CONFIG, SHAPES
from tests.reference_memory import ReferenceMemory

GREEDY = Sampling(max_new_tokens=24)
PROMPTS = [tuple(range(5, 5 + n)) for n in (1, 2, 7, 19)]
CUES: list[tuple[int, ...]] = [tuple(range(100, 109)), (), (70, 71, 72), tuple(range(80, 105))]
"""Unequal, and one row without."""
EXAMPLES = [
    Example((5, 6, 7, 8, 9), (68, 11, 69, 12, 70, 71, 2), cue_ids=tuple(range(100, 109))),
    Example((7,), (12, 2), cue_ids=(70, 71, 72)),
    Example((9, 8, 7), (13, 14, 72, 15, 16, 2)),
]


def _requests(cues: Sequence[tuple[int, ...]], memory: str | None = "m") -> list[GenerationRequest]:
    pairs = zip(PROMPTS, cues, strict=True)
    return [GenerationRequest(prompt, GREEDY, memory, return_latents=True, cue_ids=cue) for prompt, cue in pairs]


@pytest.fixture(params=["fused", "transformers"])
def any_backbone(request: pytest.FixtureRequest, backbone: Backbone) -> Backbone:
    """The tiny base under each decoder."""
    made = Backbone(backbone.name, backbone.revision, backbone.model, backbone.tokenizer)
    if request.param == "transformers":
        made.__dict__["decoder"] = TransformersDecoder(backbone.model)
    assert isinstance(made.decoder, FusedDecoder) == (request.param == "fused")
    return made


@SHAPES
@pytest.mark.parametrize("trigger", ["always", "lora"])
def test_with_cues_equals_reference(
    any_backbone: Backbone, random_artifact: Callable[..., Path], shape: dict[str, Any], trigger: str
) -> None:
    """Unequal prompts and cues, and a row without one, in one batch."""
    folder, host = random_artifact(**shape, trigger=trigger, max_insertions=5), AdapterHost(any_backbone)
    load_artifact(host, "m", folder)
    model, tokenizer, stops = any_backbone.model, any_backbone.tokenizer, any_backbone.stop_token_ids
    literal = ReferenceMemory(model, folder, tokenizer)
    answers = generate(host, _requests(CUES))
    for prompt, cue, answer in zip(PROMPTS, CUES, answers, strict=True):
        expected = reference.generate(literal, model, list(prompt), 24, stops, tokenizer, cue)
        assert list(answer.token_ids) == expected.tokens
        assert [(d.position, d.invoked) for d in answer.decisions] == [
            (d.position, d.invoked) for d in expected.decisions
        ]
        for ours, theirs in zip(answer.decisions, expected.decisions, strict=True):
            assert ours.probability == pytest.approx(theirs.probability, abs=1e-4)
    assert sum(len(answer.insertions) for answer in answers) > len(answers)


@SHAPES
def test_a_cue_changes_the_latents_of_its_row_alone(
    host: AdapterHost, random_artifact: Callable[..., Path], shape: dict[str, Any]
) -> None:
    load_artifact(host, "m", random_artifact(**shape, max_insertions=5))
    cued, plain = generate(host, _requests(CUES)), generate(host, _requests([()] * 4))
    for cue, one, other in zip(CUES, cued, plain, strict=True):
        assert torch.allclose(_latents(one), _latents(other), atol=1e-4) == (not cue)
    assert cued[1].token_ids == plain[1].token_ids
    for request, beside in zip(_requests(CUES), cued, strict=True):
        [alone] = generate(host, [request])
        assert alone.token_ids == beside.token_ids
        torch.testing.assert_close(_latents(alone), _latents(beside), atol=1e-4, rtol=1e-4)


def _latents(answer: Generation) -> torch.Tensor:
    states = answer.insertions[0].states
    assert states is not None
    return states


@pytest.mark.parametrize("form", ["cache", "embedding"])
def test_where_nothing_is_woven_a_cue_is_not_read(
    host: AdapterHost, backbone: Backbone, random_artifact: Callable[..., Path], form: str
) -> None:
    load_artifact(host, "m", random_artifact(form=form, trigger="never"))
    bare = [answer.token_ids for answer in generate(host, _requests([()] * 4, None))]
    for memory in ("m", None):
        prompts = PromptCache(backbone.decoder, max_bytes=10**8)
        answers = generate(host, _requests(CUES, memory), prompts=prompts)
        assert [answer.token_ids for answer in answers] == bare
        prompts.read(CUES[3:])
        assert prompts.reused_tokens == 0


def test_a_cue_is_read_once_for_all_requests(
    host: AdapterHost, backbone: Backbone, random_artifact: Callable[..., Path]
) -> None:
    for seed in (0, 1):
        load_artifact(host, f"m{seed}", random_artifact(seed=seed))
    prompts = PromptCache(backbone.decoder, max_bytes=10**8)
    requests = [GenerationRequest(PROMPTS[3], GREEDY, m, cue_ids=CUES[3]) for m in ("m0", "m1")]
    answers = generate(host, requests, prompts=prompts)
    assert prompts.reused_tokens == 18 + 25
    again = generate(host, requests, prompts=prompts)
    assert prompts.reused_tokens == 3 * (18 + 25)
    assert [a.token_ids for a in again] == [a.token_ids for a in answers]


def test_too_long_a_cue_is_refused(host: AdapterHost, random_artifact: Callable[..., Path]) -> None:
    load_artifact(host, "cache", random_artifact(form="cache", max_insertions=0))
    load_artifact(host, "embedding", random_artifact(form="embedding", max_insertions=0))

    def ask(memory: str, length: int) -> GenerationRequest:
        return GenerationRequest((5, 6), Sampling(10), memory, cue_ids=(9,) * length)

    generate(host, [ask("cache", 1024), ask("embedding", 1024 - 16)])
    with pytest.raises(PromptTooLong, match=r"the cue has 1025 tokens, and 0 may follow it.*model takes 1024"):
        generate(host, [ask("cache", 1025)])
    with pytest.raises(PromptTooLong, match="^the cue has 1009"):
        generate(host, [ask("embedding", 1009)])


@pytest.mark.parametrize("form", ["cache", "embedding"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
def test_loss_and_gradients_with_cues_equal_the_reference(
    any_backbone: Backbone, random_artifact: Callable[..., Path], form: str, checkpointing: bool
) -> None:
    folder, host = random_artifact(form=form, max_insertions=3), AdapterHost(any_backbone)
    memory = load_artifact(host, "m", folder)
    prefixes = PrefixStore(any_backbone, 10**9, [texts_read(EXAMPLES, memory.config)])
    nll, rows = supervised_nll(host, "m", EXAMPLES, prefixes, checkpointing=checkpointing)
    loss = mean_by_example(nll, rows, len(EXAMPLES)).mean()
    loss.backward()

    model = any_backbone.model
    literal = ReferenceMemory(model, folder, any_backbone.tokenizer)
    expected = torch.stack(
        [reference.loss(literal, model, list(e.prompt_ids), list(e.target_ids), e.cue_ids) for e in EXAMPLES]
    ).mean()
    expected.backward()

    torch.testing.assert_close(loss, expected)
    compared = 0
    theirs = {name: tensor.grad for name, tensor in literal.tensors.items()} | literal.lora_gradients("weaver")
    for name, parameter in _named_weights(memory.named_parameters(), memory.weaver.factors).items():
        if theirs.get(name) is not None and parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, theirs[name], atol=5e-5, rtol=1e-3, msg=name)
            compared += 1
    # In form `cache` nothing reads more of latents in the last layer than their keys and values.
    assert compared == (26 if form == "cache" else 40)


def _named_weights(tensors: object, factors: dict[str, tuple[torch.nn.Parameter, torch.nn.Parameter]]) -> dict:
    named = {
        f"base_model.model.{name}.lora_{factor}.weight": parameter
        for name, pair in factors.items()
        for factor, parameter in zip("AB", pair, strict=True)
    }
    return dict(tensors) | named


def test_the_bare_base_trains_past_a_cue(host: AdapterHost, backbone: Backbone) -> None:
    """Its loss, as a baseline's, is that of the examples without cues."""
    prefixes = PrefixStore(backbone, 0)
    plain = [Example(e.prompt_ids, e.target_ids) for e in EXAMPLES]
    losses = [supervised_nll(host, None, some, prefixes)[0] for some in (EXAMPLES, plain)]
    assert torch.equal(*losses)


def test_a_weaver_learns_to_read_its_cue(host: AdapterHost) -> None:
    """The same prompt, another answer for each cue: only the cue can tell."""
    examples = tuple(Example((5, 6, 7), (30 + n, 2), cue_ids=(100 + 10 * n,) * 3) for n in range(4))
    host.create("m", CONFIG)
    run = TrainingConfig(steps=60, batch_size=4, warmup_steps=4, learning_rate=2e-2, query_learning_rate=2e-2)
    report = train_weaver(host, "m", ExampleSet(examples, 0, 0), run)
    # Whoever does not see the cue is left with ln 4 on the first of two tokens, 0.69 in the mean.
    assert report.losses[-1] < 0.2
    answers = generate(host, [GenerationRequest((5, 6, 7), Sampling(1), "m", cue_ids=e.cue_ids) for e in examples])
    assert [a.token_ids for a in answers] == [e.target_ids[:1] for e in examples]


@pytest.mark.parametrize("kind", ["slots", "tape"])
def test_only_readers_see_the_cue(any_backbone: Backbone, kind: str) -> None:
    """A reader's keys are the cue's and its row's; another token's state is what it is without a cue."""
    decoder = any_backbone.decoder
    prompts, cue = [(5, 6, 7, 8), (9, 10)], tuple(range(60, 66))
    cues = [read_prompts(decoder, [cue])[0], None]
    new = torch.tensor([[20, 21, 22], [23, 24, 25]])
    readers = torch.tensor([[True, False, False], [True, True, True]])

    def read(make: Callable[[Window], Window]) -> torch.Tensor:
        return decoder.forward(decoder.embed(new), make(_window(decoder, prompts, kind)))

    plain, none_reads = read(lambda w: w), read(lambda w: CuedWindow(w, cues, torch.zeros_like(readers)))
    torch.testing.assert_close(none_reads, plain)
    first_reads = read(lambda w: CuedWindow(w, cues, readers))
    torch.testing.assert_close(first_reads[1], plain[1])
    # Later tokens see the cue through the reader only, from the second layer on.
    assert not torch.allclose(first_reads[0, 0], plain[0, 0], atol=1e-3)
    all_read = read(lambda w: CuedWindow(w, cues))
    torch.testing.assert_close(all_read[0, 0], first_reads[0, 0])
    assert not torch.allclose(all_read[0, 1], first_reads[0, 1], atol=1e-3)


def _window(decoder: Decoder, prompts: Sequence[tuple[int, ...]], kind: str) -> Window:
    prefixes = read_prompts(decoder, prompts)
    if kind == "slots":
        return SlotCache.of_prefixes(decoder.kv_shape, prefixes).window([0, 1], 3)
    starts = torch.tensor([[prefix.tokens] for prefix in prefixes])
    return Tape(prefixes).window(starts + torch.arange(3))


def test_a_window_without_any_cue_is_an_error(backbone: Backbone) -> None:
    with pytest.raises(ValueError, match="no row has a cue"):
        CuedWindow(_window(backbone.decoder, PROMPTS[:2], "slots"), [None, None])
