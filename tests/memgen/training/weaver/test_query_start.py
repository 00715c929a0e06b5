"""Where the queries of a weaver that was never trained start."""

from dataclasses import replace

import pytest
import torch

from memgen.backbone.loading import Backbone
from memgen.config import TrainingConfig
from memgen.memory.host import AdapterHost
from memgen.training.examples import Example, ExampleSet
from memgen.training.weaver.query_start import answer_tokens, start_from_answers
from memgen.training.weaver.sft import train_weaver
from tests.memgen.conftest import CONFIG

STANDING_STILL = TrainingConfig(steps=1, batch_size=1, learning_rate=1e-12, query_learning_rate=1e-12)


def _nearest(backbone: Backbone, latents: torch.Tensor) -> list[int]:
    """The tokens whose embeddings the latents `(K, H)` are nearest to."""
    table = backbone.decoder.embed(torch.arange(backbone.model.config.vocab_size)).detach()
    return [int(token) for token in torch.cdist(latents.detach(), table).argmin(dim=1)]


def test_answers_that_differ_are_said_without_special_tokens_until_the_count_is_reached() -> None:
    answers = [(1, 2, 99), (3,), (1, 2), (99,), (4, 5)]
    assert answer_tokens(answers, 20, [0], {99}) == [0, 1, 2, 0, 3, 0, 4, 5]
    assert answer_tokens(answers, 5, [0], {99}) == [0, 1, 2, 0, 3]
    assert answer_tokens([(99,)], 5, [0], {99}) == []


def test_queries_start_as_an_answer_said_again_and_again(backbone: Backbone) -> None:
    memory = AdapterHost(backbone).create("m", replace(CONFIG, latents=6))
    end = int(backbone.tokenizer.eos_token_id)
    inside = memory.inference_queries.latents.detach().clone()
    start_from_answers(memory, backbone, [Example((5,), (20, 21, end))], seed=0)
    once = [*backbone.profile.text_ids("\n"), 20, 21]
    assert _nearest(backbone, memory.prompt_queries.latents) == (once * 6)[-6:]
    assert torch.equal(memory.inference_queries.latents, inside)


def test_the_seed_draws_the_answers(backbone: Backbone) -> None:
    examples = [Example((5,), (n, n + 1, n + 2)) for n in range(20, 50, 3)]
    starts = []
    for seed in (0, 0, 1):
        memory = AdapterHost(backbone).create("m", CONFIG)
        start_from_answers(memory, backbone, examples, seed)
        starts.append(memory.prompt_queries.latents.detach().clone())
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


@pytest.mark.parametrize(
    ("start", "trained", "anew"), [("answers", False, True), ("words", False, False), ("answers", True, False)]
)
def test_training_starts_the_queries_of_an_untrained_weaver_alone(
    backbone: Backbone, start: str, trained: bool, anew: bool
) -> None:
    host = AdapterHost(backbone)
    memory = host.create("m", CONFIG)
    assert memory.has_untrained_weaver
    data = ExampleSet((Example((5, 6), (20, 21, 22, 23)),), 0, 0)
    if trained:
        train_weaver(host, "m", data, replace(STANDING_STILL, learning_rate=1e-3, query_start="words"))
        assert not memory.has_untrained_weaver
    before = memory.prompt_queries.latents.detach().clone()
    train_weaver(host, "m", data, replace(STANDING_STILL, query_start=start))
    assert (not torch.allclose(memory.prompt_queries.latents, before, atol=1e-6)) == anew
