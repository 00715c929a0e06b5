"""Sampling and losses as pure functions, with hand-computed numbers."""

import math

import pytest
import torch

from memgen.errors import ConfigError
from memgen.sampling import Sampling, next_token, nucleus
from memgen.training.losses import mean_by_example, token_nll


def test_nucleus_keeps_the_smallest_set() -> None:
    probabilities = torch.tensor([0.3, 0.5, 0.2])
    torch.testing.assert_close(nucleus(probabilities, 0.6), torch.tensor([0.375, 0.625, 0.0]))
    torch.testing.assert_close(nucleus(probabilities, 0.5), torch.tensor([0.0, 1.0, 0.0]))
    torch.testing.assert_close(nucleus(probabilities, 1.0), probabilities)


def test_sampled_frequencies_follow_the_temperature() -> None:
    logits = torch.tensor([0.0, math.log(4.0)])
    generator = torch.Generator().manual_seed(0)
    drawn = [next_token(logits, Sampling(temperature=2.0), generator) for _ in range(4000)]
    # Temperature 2 halves the logit: odds 2 to 1.
    assert sum(drawn) / 4000 == pytest.approx(2 / 3, abs=0.03)
    assert next_token(logits, Sampling(), None) == 1


@pytest.mark.parametrize(
    "values", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.1}, {"max_new_tokens": 0}], ids=str
)
def test_impossible_sampling_is_refused(values: dict[str, float]) -> None:
    name = next(iter(values))
    with pytest.raises(ConfigError, match=f"{name} is "):
        Sampling(**values)  # type: ignore[arg-type]


def test_token_nll() -> None:
    nll = token_nll(torch.tensor([[0.0, 0.0], [0.0, math.log(3.0)]]), torch.tensor([0, 1]))
    torch.testing.assert_close(nll, torch.tensor([math.log(2.0), math.log(4 / 3)]))


def test_mean_by_example() -> None:
    means = mean_by_example(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 1]), 2)
    torch.testing.assert_close(means, torch.tensor([2.0, 5.0]))
