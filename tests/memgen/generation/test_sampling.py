"""Sampling and losses as pure functions, with hand-computed numbers and `transformers` as the reference."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from memgen.errors import ConfigError
from memgen.generation.draws import Chosen, Draws, choose
from memgen.generation.sampling import (
    Sampling,
    apply_count_penalties,
    apply_repetition_penalty,
    decide,
    draw,
    keep_top_k,
    make_generator,
    nucleus,
    uniform,
)
from memgen.training.losses import mean_by_example, token_nll

VOCABULARY = 30

logit_rows = st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=VOCABULARY).map(torch.tensor)
seeds = st.integers(0, 2**32)
samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.0, 0.3, 1.0, 2.0]),
    top_p=st.sampled_from([1.0, 0.9, 0.3]),
    top_k=st.sampled_from([0, 1, 5, 100]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.7]),
    logprobs=st.booleans(),
    seed=seeds,
)
_any = st.builds(
    replace,
    samplings,
    frequency_penalty=st.sampled_from([0.0, 0.5, -2.0]),
    presence_penalty=st.sampled_from([0.0, 2.0]),
    logit_bias=st.sampled_from([(), ((3, -100.0), (5, 2.5)), ((VOCABULARY + 7, 100.0),)]),
    min_tokens=st.sampled_from([0, 2]),
    logprobs=st.just(True),
    top_logprobs=st.sampled_from([0, 3, 40]),
)
batches = st.lists(st.one_of(samplings, _any), min_size=1, max_size=6)


def next_tokens(logits: Tensor, samplings: list[Sampling], seen: list[list[int]] | None = None) -> list[Chosen]:
    """The first tokens of answers behind the prompts `seen`."""
    prompts = seen or [[] for _ in samplings]
    return choose(logits, [Draws(s, prompt) for s, prompt in zip(samplings, prompts, strict=True)])


def next_token(logits: Tensor, sampling: Sampling, seen: list[int] | None = None) -> int:
    return next_tokens(logits[None], [sampling], [seen or []])[0].token


def random_rows(seed: int, rows: int) -> Tensor:
    return 3 * torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed))


# Settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 0),
        ("temperature", -1.0),
        ("temperature", math.nan),
        ("logprob_temperature", 0.0),
        ("logprob_temperature", math.inf),
        ("temperature", math.inf),
        ("trigger_temperature", -0.1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", math.nan),
        ("top_k", -1),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", math.inf),
        ("stop", ("a", "")),
        ("stop", "ab"),
        ("frequency_penalty", math.nan),
        ("presence_penalty", math.inf),
        ("logit_bias", ((-1, 1.0),)),
        ("logit_bias", ((1, math.nan),)),
        ("top_logprobs", -1),
        ("top_logprobs", 1),
        ("min_tokens", -1),
        ("min_tokens", 257),
        ("seed", 2**64),
        ("seed", -(2**63) - 1),
    ],
)
def test_impossible_sampling_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{name} is .*; expected "):
        Sampling(**{name: value})


def test_settings_by_position_are_the_old_five() -> None:
    old = Sampling(5, 0.5, 0.9, ("x",), 3)
    assert old == Sampling(max_new_tokens=5, temperature=0.5, top_p=0.9, stop=("x",), seed=3)
    with pytest.raises(TypeError):
        Sampling(5, 0.5, 0.9, ("x",), 3, 2)  # type: ignore[misc]  # the point of the test


def test_only_what_draws_has_a_generator() -> None:
    assert make_generator(Sampling(seed=1, top_k=5)) is None
    for sampling in (Sampling(temperature=1.0, seed=-1), Sampling(trigger_temperature=1.0, seed=2**64 - 1)):
        first, second = make_generator(sampling), make_generator(sampling)
        assert first is not None
        assert second is not None
        assert first.initial_seed() == second.initial_seed()
    unseeded = [make_generator(Sampling(temperature=1.0)) for _ in range(2)]
    assert len({g.initial_seed() for g in unseeded if g is not None}) == 2


# Repetition penalty, top-k, top-p


def test_a_penalty_counts_once() -> None:
    logits = torch.tensor([2.0, -2.0, 2.0])
    penalised = apply_repetition_penalty(logits, [0, 1, 0], 2.0)
    torch.testing.assert_close(penalised, torch.tensor([1.0, -4.0, 2.0]))
    torch.testing.assert_close(logits, torch.tensor([2.0, -2.0, 2.0]))
    torch.testing.assert_close(apply_repetition_penalty(logits, [], 2.0), logits)


@pytest.mark.parametrize("penalty", [1e-300, 1e-38, 1e38, 1e300])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_no_penalty_draws_a_token_that_is_impossible(penalty: float, temperature: float) -> None:
    logits = torch.tensor([[3.0, 2.0, 0.0, -math.inf]])
    sampling = Sampling(repetition_penalty=penalty, temperature=temperature, seed=0)

    assert apply_repetition_penalty(logits[0], [0, 1, 2, 3], penalty).isfinite().tolist() == [True, True, True, False]
    assert choose(logits, [Draws(sampling, [0, 1, 2, 3])])[0].token != 3


@settings(deadline=None)
@given(
    logits=logit_rows,
    token_ids=st.lists(st.integers(0, VOCABULARY + 5), min_size=1, max_size=40),
    penalty=st.floats(0.1, 5.0),
)
def test_the_penalty_is_that_of_transformers(logits: Tensor, token_ids: list[int], penalty: float) -> None:
    reference = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([token_ids]), logits[None])[0]
    torch.testing.assert_close(apply_repetition_penalty(logits, token_ids, penalty), reference)


def test_top_k_keeps_the_largest_and_their_ties() -> None:
    logits = torch.tensor([1.0, 3.0, 2.0, 2.0])
    none = -math.inf
    torch.testing.assert_close(keep_top_k(logits, 1), torch.tensor([none, 3.0, none, none]))
    torch.testing.assert_close(keep_top_k(logits, 2), torch.tensor([none, 3.0, 2.0, 2.0]))
    torch.testing.assert_close(keep_top_k(logits, 0), logits)


@settings(deadline=None)
@given(logits=logit_rows | st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=2).map(torch.tensor), k=st.integers(1))
def test_top_k_is_that_of_transformers(logits: Tensor, k: int) -> None:
    ids = torch.tensor([[0]])
    torch.testing.assert_close(keep_top_k(logits, k), TopKLogitsWarper(k)(ids, logits[None])[0], rtol=0, atol=0)


def test_nucleus_keeps_the_smallest_set() -> None:
    probabilities = torch.tensor([0.3, 0.5, 0.2])
    torch.testing.assert_close(nucleus(probabilities, 0.6), torch.tensor([0.375, 0.625, 0.0]))
    torch.testing.assert_close(nucleus(probabilities, 0.5), torch.tensor([0.0, 1.0, 0.0]))
    torch.testing.assert_close(nucleus(probabilities, 1.0), probabilities)


@pytest.mark.parametrize("size", [1, 3, 50_001])
def test_of_equally_likely_tokens_the_first_are_kept(size: int) -> None:
    equal = torch.full((size,), (1 - 1e-6) / size)  # softmax need not sum to 1 exactly
    for top_p in (1e-12, 0.5, 1 - 1e-9):
        kept = nucleus(equal, top_p)
        assert kept.count_nonzero() == pytest.approx(math.ceil(size * top_p), rel=1e-3)
        assert kept.nonzero().max() == kept.count_nonzero() - 1
        assert kept.sum() == pytest.approx(1.0, rel=1e-4)


@settings(deadline=None)
@given(logits=logit_rows, top_p=st.floats(0.01, 0.99))
def test_nucleus_is_that_of_transformers(logits: Tensor, top_p: float) -> None:
    assume(len(logits.unique()) == len(logits))
    probabilities = logits.softmax(dim=-1)
    ordered = probabilities.double().sort(descending=True).values
    # Where the mass reaches top_p within rounding, either set is right.
    assume((ordered.cumsum(dim=-1) - top_p).abs().min() > 1e-5)
    assume(ordered.diff().abs().min() > 1e-9)
    reference = TopPLogitsWarper(top_p)(torch.tensor([[0]]), logits[None])[0].softmax(dim=-1)
    torch.testing.assert_close(nucleus(probabilities, top_p), reference)


# Tokens


def test_sampled_frequencies_follow_the_temperature() -> None:
    logits = torch.tensor([0.0, math.log(4.0)])
    row = Draws(Sampling(temperature=2.0, seed=0))
    drawn = [choose(logits[None], [row])[0].token for _ in range(4000)]
    # Temperature 2 halves the logit: odds 2 to 1.
    assert sum(drawn) / 4000 == pytest.approx(2 / 3, abs=0.03)
    assert next_token(logits, Sampling()) == 1


@settings(deadline=None)
@given(seed=seeds, sampling=samplings, seen=st.lists(st.integers(0, VOCABULARY - 1), min_size=1))
def test_a_token_is_drawn_from_what_transformers_would_draw_from(
    seed: int, sampling: Sampling, seen: list[int]
) -> None:
    assume(sampling.temperature > 0)
    logits = random_rows(seed, 1)
    processors = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)])
    processors.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        processors.append(TopKLogitsWarper(sampling.top_k))
    processors.append(TopPLogitsWarper(sampling.top_p))
    cumulated = processors(torch.tensor([seen]), logits)[0].double().softmax(dim=-1).cumsum(dim=-1)
    assert sampling.seed is not None
    uniform = torch.rand((), dtype=torch.float64, generator=torch.Generator().manual_seed(sampling.seed))
    assume((cumulated - uniform).abs().min() > 1e-5)
    expected = int((cumulated < uniform).sum())
    assert next_token(logits[0], sampling, seen) == expected


@settings(deadline=None)
@given(
    seed=seeds,
    batch=batches,
    dtype=st.sampled_from(["float32", "bfloat16"]),
)
def test_a_row_does_not_depend_on_its_batch(seed: int, batch: list[Sampling], dtype: str) -> None:
    logits = random_rows(seed, len(batch)).to(getattr(torch, dtype))
    before = logits.clone()
    seen = [list(range(n, n + 4)) for n in range(len(batch))]
    together = [Draws(s, ids, stops=[0]) for s, ids in zip(batch, seen, strict=True)]
    alone = [Draws(s, ids, stops=[0]) for s, ids in zip(batch, seen, strict=True)]
    for _ in range(3):  # what was chosen before counts too
        chosen = choose(logits, together)
        single = [choose(logits[n : n + 1], [row])[0] for n, row in enumerate(alone)]
        assert [each.token for each in chosen] == [each.token for each in single]
        assert [each.logprob for each in chosen] == pytest.approx([each.logprob for each in single])
        for mine, own, sampling in zip(chosen, single, batch, strict=True):
            assert len(mine.alternatives) == len(own.alternatives) == min(sampling.top_logprobs, VOCABULARY)
            assert [a.logprob for a in mine.alternatives] == pytest.approx([a.logprob for a in own.alternatives])
        torch.testing.assert_close(logits, before, rtol=0, atol=0)


def test_a_penalised_row_without_temperature_is_greedy() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0]] * 3)
    batch = [Sampling(), Sampling(repetition_penalty=2.0), Sampling(repetition_penalty=2.0)]
    assert [each.token for each in next_tokens(logits, batch, [[0], [0], [1]])] == [0, 1, 0]


def test_logprobs_are_the_models_own() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)]] * 3)
    batch = [
        Sampling(logprobs=True),
        Sampling(),
        Sampling(logprobs=True, temperature=5.0, top_k=1, repetition_penalty=9.0, seed=0),
    ]
    chosen = next_tokens(logits, batch, [[], [], [1]])
    assert [each.token for each in chosen] == [1, 1, 1]
    assert [each.logprob for each in chosen] == [pytest.approx(math.log(0.75)), None, pytest.approx(math.log(0.75))]


def test_logprobs_at_a_temperature_are_of_what_it_draws_from() -> None:
    """Odds of 3 to 1 are 9 to 1 at temperature one half; the other row keeps its own."""
    logits = torch.tensor([[0.0, math.log(3.0)]] * 2)
    batch = [Sampling(logprobs=True, logprob_temperature=0.5), Sampling(logprobs=True)]
    assert [each.logprob for each in next_tokens(logits, batch)] == pytest.approx([math.log(0.9), math.log(0.75)])


@pytest.mark.parametrize("temperature", [1e-3, 1e-38, 5e-324])
def test_a_tiny_temperature_is_greedy(temperature: float) -> None:
    sampling = Sampling(temperature=temperature, seed=0)
    assert next_token(torch.tensor([-300.0, 300.0, 299.0]), sampling) == 1


def test_a_broken_row_stays_inside_the_vocabulary() -> None:
    logits = torch.tensor([[math.nan, 1.0], [0.0, 5.0]])
    batch = [Sampling(temperature=1.0, seed=0), Sampling()]
    tokens = [each.token for each in next_tokens(logits, batch)]
    assert tokens[0] in (0, 1)
    assert tokens[1] == 1


def test_a_draw_passes_over_impossible_tokens() -> None:
    probabilities = torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]])
    last_below_one = 1 - 2**-53
    for drawn, token in [(0.0, 1), (0.249, 1), (0.25, 3), (0.5, 3), (last_below_one, 3)]:
        assert draw(probabilities, [drawn]).tolist() == [token]
    # Rounding leaves the sum a little off 1; each row has a number of its own.
    assert draw(torch.tensor([[0.9, 0.0], [0.5, 0.6]]), [last_below_one] * 2).tolist() == [0, 1]


def test_sampling_needs_a_generator() -> None:
    with pytest.raises(ConfigError, match="no generator; expected one from make_generator"):
        uniform(None)
    with pytest.raises(ConfigError, match="generator"):
        decide(torch.zeros(2), 1.0, None)


# Triggers


def test_a_greedy_trigger_takes_the_likelier() -> None:
    assert decide(torch.tensor([0.0, math.log(3.0)]), 0.0, None) == (True, pytest.approx(0.75))
    assert decide(torch.tensor([math.log(3.0), 0.0]), 0.0, None) == (False, pytest.approx(0.25))
    assert decide(torch.tensor([1.0, 1.0]), 0.0, None) == (False, pytest.approx(0.5))


def test_a_sampled_trigger_follows_its_temperature() -> None:
    logits = torch.tensor([0.0, math.log(4.0)])
    generator = torch.Generator().manual_seed(0)
    drawn = [decide(logits, 2.0, generator) for _ in range(4000)]
    assert sum(invoked for invoked, _ in drawn) / 4000 == pytest.approx(2 / 3, abs=0.03)
    # What is reported is the trigger's own, at temperature 1.
    assert all(probability == pytest.approx(0.8) for _, probability in drawn)


@settings(deadline=None)
@given(
    logits=st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=2).map(torch.tensor),
    temperature=st.sampled_from([0.0, 1e-300, 1.0, 1e300]),
)
def test_a_triggers_probability_is_softmax(logits: Tensor, temperature: float) -> None:
    _, probability = decide(logits, temperature, torch.Generator())
    assert probability == pytest.approx(logits.double().softmax(dim=-1)[1].item(), rel=1e-9)


# Losses


def test_token_nll() -> None:
    nll = token_nll(torch.tensor([[0.0, 0.0], [0.0, math.log(3.0)]]), torch.tensor([0, 1]))
    torch.testing.assert_close(nll, torch.tensor([math.log(2.0), math.log(4 / 3)]))


def test_mean_by_example() -> None:
    means = mean_by_example(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 1]), 2)
    torch.testing.assert_close(means, torch.tensor([2.0, 5.0]))


# Penalties of OpenAI's, bias, early ends, alternatives


def test_count_penalties_by_hand() -> None:
    logits = torch.tensor([[2.0, 2.0, 2.0], [0.0, -1.0, 1.0]])
    counts = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 1.0]])
    penalised = apply_count_penalties(logits, counts, torch.tensor([0.5, -1.0]), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(penalised, torch.tensor([[-0.5, 0.5, 2.0], [0.0, 1.0, 2.0]]))


def test_penalties_count_the_answer_and_not_the_prompt() -> None:
    """Logits 3, 2.5, 2 with 0.4 for each time: the leader's second time is the first that is beaten."""
    logits = torch.tensor([[3.0, 2.5, 2.0]])
    row = Draws(Sampling(frequency_penalty=0.4), [0, 0, 0, 0])
    # 3.0 | 2.6 2.5 2.0 | 2.2 2.5 2.0 | 2.2 2.1 2.0 | 1.8 2.1 2.0 | 1.8 1.7 2.0
    assert [choose(logits, [row])[0].token for _ in range(6)] == [0, 0, 1, 0, 1, 2]
    once = Draws(Sampling(presence_penalty=0.8), [0, 0])
    # 3.0 | 2.2 2.5 2.0 | 2.2 1.7 2.0 | and then no more is taken
    assert [choose(logits, [once])[0].token for _ in range(4)] == [0, 1, 0, 0]


def test_a_bias_is_added_and_forbids_at_its_end() -> None:
    logits = torch.tensor([[3.0, 2.5, 2.0]] * 4)
    batch = [
        Sampling(logit_bias=((2, 1.5),)),
        Sampling(logit_bias=((0, -100.0),)),
        Sampling(logit_bias=((2, 0.6), (2, 0.6))),
        Sampling(logit_bias=((7, 100.0),)),
    ]
    assert [each.token for each in next_tokens(logits, batch)] == [2, 1, 2, 0]


def test_no_end_comes_too_early() -> None:
    logits = torch.tensor([[5.0, 4.0, 1.0, 0.0]])
    row = Draws(Sampling(min_tokens=2), stops=[0, 1])
    assert [choose(logits, [row])[0].token for _ in range(3)] == [2, 2, 0]


def test_alternatives_are_the_models_likeliest() -> None:
    """Of odds 1 to 2 to 5, whatever bias and penalty make of them."""
    logits = torch.tensor([[0.0, math.log(2.0), math.log(5.0)]] * 2)
    batch = [Sampling(logprobs=True, top_logprobs=2, logit_bias=((0, 50.0),)), Sampling(logprobs=True, top_logprobs=9)]
    biased, free = next_tokens(logits, batch)
    assert (biased.token, biased.logprob) == (0, pytest.approx(math.log(1 / 8)))
    assert [(a.token, a.logprob) for a in biased.alternatives] == [
        (2, pytest.approx(math.log(5 / 8))),
        (1, pytest.approx(math.log(2 / 8))),
    ]
    assert [a.token for a in free.alternatives] == [2, 1, 0]
