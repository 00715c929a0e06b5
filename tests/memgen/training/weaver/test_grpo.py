"""GRPO of a weaver on the tiny base: it learns from reward, repeats, resumes, and says when it did not learn."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from torch import Tensor

from memgen.backbone.loading import Backbone
from memgen.backbone.prompt_cache import PromptCache
from memgen.config import GrpoConfig
from memgen.errors import ArtifactCorrupt, Cancelled, ConfigError, NothingToTrain
from memgen.generation.episodes import PlaySettings
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.tasks.graders import Grader, Reference
from memgen.tasks.task import SingleTurn
from memgen.text.answers import Answer
from memgen.training.examples import Example
from memgen.training.forward import supervised_nll
from memgen.training.reward.rollouts import Group, RolledTurn, Rollout, roll_out
from memgen.training.run_control import RunControl
from memgen.training.weaver.grpo import train_weaver_grpo, train_weaver_on_groups
from memgen.training.weaver.grpo_run import GrpoStep
from memgen.training.weaver.update import make_parts
from tests.memgen.conftest import CONFIG, SHAPES, randomise

SHORT = GrpoConfig(
    steps=4,
    items_per_step=2,
    group_size=4,
    max_new_tokens=6,
    warmup_steps=2,
    learning_rate=1e-2,
    query_learning_rate=1e-2,
)


def starts_with_letter(answer: Answer, _: Reference) -> float:
    """One of 52 of 259 tokens."""
    text = answer.content or ""
    return float(text[:1].isascii() and text[:1].isalpha())


def letters(answer: Answer, _: Reference) -> float:
    """Rarely equal for two answers."""
    text = answer.content or ""
    return sum(map(str.isalpha, text)) + len(set(text)) / 10


def items(count: int, grader: Grader = letters) -> list[SingleTurn]:
    reference = Reference({"role": "assistant", "content": "x"})
    return [SingleTurn(f"i{n}", ({"role": "user", "content": f"say {n}"},), grader, reference) for n in range(count)]


def weights(host: AdapterHost, name: str = "m") -> list[Tensor]:
    return [parameter.detach().clone() for parameter in host.memories[name].weaver_parameters()]


def same(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


def created(backbone: Backbone, seed: int = 1, **config: Any) -> AdapterHost:
    host = AdapterHost(backbone)
    host.create("m", replace(CONFIG, **config), seed=seed)
    return host


@pytest.mark.parametrize("loss", ["grpo", "bnpo", "dr_grpo"])
def test_it_learns_from_reward_alone(backbone: Backbone, loss: str) -> None:
    host = created(backbone)
    before = {name: parameter.clone() for name, parameter in backbone.model.named_parameters()}
    config = GrpoConfig(
        steps=30,
        items_per_step=4,
        group_size=8,
        batch_size=32,
        max_new_tokens=1,
        loss=loss,
        learning_rate=2e-2,
        query_learning_rate=2e-2,
    )
    report = train_weaver_grpo(host, "m", items(4, starts_with_letter), config)
    assert sum(report.rewards[:3]) / 3 < 0.45
    assert sum(report.rewards[-5:]) / 5 > 0.8
    assert report.flags == ()
    assert report.rollouts == 30 * 32
    for name, parameter in backbone.model.named_parameters():
        assert parameter.grad is None
        assert torch.equal(parameter, before[name])


@SHAPES
def test_the_first_step_pushes_the_better_answers_up(backbone: Backbone, shape: dict[str, Any]) -> None:
    """Whatever the form and the trigger: the advantage-weighted log probability of the rollouts rises."""
    host = created(backbone, **shape, trigger="head", max_insertions=2, delimiters=("e", "t", "a", " "))
    randomise(host.memories["m"], 3)
    with torch.no_grad():
        for parameter in host.memories["m"].trigger_head.parameters():
            parameter.zero_()
    config = replace(SHORT, items_per_step=4, max_new_tokens=24, learning_rate=1e-4, query_learning_rate=1e-4)
    prompts = PromptCache(backbone.decoder, 10**9)
    sampling = Sampling(24, temperature=1.0, trigger_temperature=1.0)
    groups = roll_out(host, "m", items(4), sampling, group_size=4, seed=0, settings=PlaySettings(prompts=prompts))
    report = train_weaver_on_groups(host, "m", groups, replace(config, steps=4, warmup_steps=0))
    # At first every ratio is 1, so the loss is minus the mean advantage of the tokens that memory is woven among.
    first = make_parts(host, "m", None, groups, prompts, config)
    expected = -sum(float((p.weights * p.advantages * _lengths(p.examples)).sum()) for p in first)
    assert report.losses[0] == pytest.approx(expected, abs=1e-4)
    assert report.losses[-1] < report.losses[0] - 1e-4


def _lengths(examples: Sequence[Any]) -> Tensor:
    return torch.tensor([float(len(example.target_ids)) for example in examples])


@pytest.mark.parametrize(
    ("loss", "weights", "best"),
    [("grpo", [1 / 10, 1 / 4, 1 / 10], 0.7070), ("bnpo", [1 / 7] * 3, 0.7070), ("dr_grpo", [1 / 12] * 3, 0.5)],
)
def test_all_turns_of_a_rollout_share_its_advantage(
    backbone: Backbone, loss: str, weights: list[float], best: float
) -> None:
    """A rollout of two turns, 2 and 3 tokens, against one of 2 tokens; of 6 at most."""
    first, second, other = (
        RolledTurn(tuple(range(5, 9)), tokens, tuple(-0.1 * token for token in tokens), ())
        for tokens in ((11, 12), (13, 14, 15), (16, 17))
    )
    group = Group((Rollout("i", "", (first, second), 1.0), Rollout("i", "", (other,), 0.0)))
    config = replace(SHORT, loss=loss, batch_size=2)
    parts = make_parts(created(backbone), "m", None, [group], PromptCache(backbone.decoder, 0), config)
    found = {
        example.target_ids: (advantage, weight)
        for part in parts
        for example, advantage, weight in zip(
            part.examples, part.advantages.tolist(), part.weights.tolist(), strict=True
        )
    }
    assert [len(part.examples) for part in parts] == [2, 1]
    assert [found[turn.token_ids][0] for turn in (first, second, other)] == pytest.approx([best, best, -best], abs=1e-4)
    in_order = [found[turn.token_ids][1] for turn in (first, other, second)]
    assert in_order == pytest.approx(weights)
    logged = [value for turn in (first, second, other) for value in turn.logprobs]
    assert torch.cat([part.sampled_logprobs for part in parts]).tolist() == pytest.approx(logged)


def test_parts_differentiate_as_one_batch_would(backbone: Backbone) -> None:
    found = []
    for batch_size in (3, 64):
        host = created(backbone)
        train_weaver_grpo(host, "m", items(2), replace(SHORT, steps=1, batch_size=batch_size, warmup_steps=0))
        found.append(weights(host))
    start = weights(created(backbone))
    assert not same(found[0], start)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("kl", [0.0, 0.1])
def test_a_stopped_run_goes_on_bit_for_bit(backbone: Backbone, tmp_path: Path, kl: float) -> None:
    config = replace(SHORT, kl_coefficient=kl, iterations=2)
    whole = created(backbone)
    expected = train_weaver_grpo(whole, "m", items(3), config)

    broken, checkpoint, seen, written = created(backbone), tmp_path / "state.safetensors", [], []
    with pytest.raises(Cancelled):
        train_weaver_grpo(
            broken,
            "m",
            items(3),
            config,
            control=RunControl(
                checkpoint=checkpoint,
                on_step=seen.append,
                on_checkpoint=written.append,
                should_stop=lambda: len(seen) == 2,
            ),
        )
    assert written == [checkpoint]
    resumed = created(backbone, seed=99)
    report = train_weaver_grpo(resumed, "m", items(3), config, control=RunControl(checkpoint=checkpoint))

    assert (report.rewards, report.losses) == (expected.rewards, expected.losses)
    assert (report.rollouts, report.optimizer_steps, report.tokens) == (32, 8, expected.tokens)
    assert same(weights(whole), weights(resumed))
    assert list(resumed.memories) == ["m"]


def test_a_checkpoint_of_another_kind_of_run_is_refused(backbone: Backbone, tmp_path: Path) -> None:
    checkpoint = tmp_path / "state.safetensors"
    control: RunControl[GrpoStep] = RunControl(checkpoint=checkpoint, checkpoint_interval_seconds=0.0)
    train_weaver_grpo(created(backbone), "m", items(2), SHORT, control=control)
    with pytest.raises(ArtifactCorrupt, match="is of another kind of run"):
        train_weaver_grpo(created(backbone), "m", items(2), replace(SHORT, kl_coefficient=0.1), control=control)


def test_stopping_while_rollouts_are_drawn_leaves_a_whole_step(backbone: Backbone, tmp_path: Path) -> None:
    calls: list[int] = []
    host = created(backbone)
    start = weights(host)

    def stop() -> bool:
        calls.append(1)
        return len(calls) == 2

    with pytest.raises(Cancelled):
        train_weaver_grpo(
            host, "m", items(2), SHORT, control=RunControl(checkpoint=tmp_path / "state", should_stop=stop)
        )
    assert same(weights(host), start)
    assert (tmp_path / "state").is_file()


def test_a_step_reports_what_it_did(backbone: Backbone) -> None:
    host, steps = created(backbone), []
    config = replace(SHORT, iterations=3, kl_coefficient=0.05, eps_low=1e-4, eps_high=1e-4)
    report = train_weaver_grpo(host, "m", items(3), config, control=RunControl(on_step=steps.append))
    assert [step.step for step in steps] == [1, 2, 3, 4]
    assert report.rewards == tuple(step.reward for step in steps)
    assert report.optimizer_steps == 3 * sum(step.groups > step.groups_skipped for step in steps)
    assert steps[0].kl < steps[-1].kl
    assert any(step.clip_share > 0.1 for step in steps)
    assert all(step.invoked == 1.0 and step.grad_norm > 0 for step in steps)
    assert steps[-1].seconds_left == 0.0


def test_kl_holds_the_policy_near_its_start(backbone: Backbone) -> None:
    kl = {}
    for coefficient in (1e-6, 6.0):
        steps: list[Any] = []
        config = replace(SHORT, steps=8, kl_coefficient=coefficient)
        train_weaver_grpo(created(backbone), "m", items(3), config, control=RunControl(on_step=steps.append))
        kl[coefficient] = steps[-1].kl
    assert kl[6.0] < 0.5 * kl[1e-6]


def test_groups_without_spread_are_skipped_and_said(backbone: Backbone) -> None:
    host, steps = created(backbone), []
    start = weights(host)
    report = train_weaver_grpo(
        host, "m", items(3, lambda answer, reference: 0.5), SHORT, control=RunControl(on_step=steps.append)
    )
    assert same(weights(host), start)
    assert (report.groups, report.groups_skipped, report.optimizer_steps) == (8, 8, 0)
    assert report.flags == (
        "no weight changed: weaver",
        "no weight changed: queries",
        "no group had a spread of rewards: all advantages were zero",
        "the reward did not rise: 0.500 at first, 0.500 at last",
    )
    assert {(step.loss, step.grad_norm) for step in steps} == {(0.0, 0.0)}


def test_a_trigger_that_never_fires_is_said(backbone: Backbone) -> None:
    host = created(backbone, trigger="head")
    report = train_weaver_grpo(host, "m", items(2), replace(SHORT, trigger_temperature=0.0))
    assert "no memory was woven into any turn of a group with a spread of rewards" in report.flags
    with pytest.raises(ConfigError, match="the trigger of 'm' is 'never'"):
        train_weaver_grpo(created(backbone, trigger="never"), "m", items(2), SHORT)


# ---- Recorded groups


@pytest.fixture
def recorded(backbone: Backbone) -> list[Group]:
    """Drawn by the bare base at temperature 1, with its logprobs; each group has a good half and a bad half."""
    sampling = Sampling(4, temperature=1.0)
    groups = roll_out(AdapterHost(backbone), None, items(4), sampling, group_size=6, seed=3)
    return [
        Group(tuple(replace(rollout, reward=float(n < 3)) for n, rollout in enumerate(group.rollouts)))
        for group in groups
    ]


@pytest.mark.parametrize("logged", [True, False])
def test_recorded_groups_teach_off_policy(backbone: Backbone, recorded: list[Group], logged: bool) -> None:
    """The good halves become likelier than the bad ones, by the record's logprobs or by those of the start."""
    groups = recorded if logged else [_logged(group, lambda turn: ()) for group in recorded]
    host = created(backbone)
    config = replace(SHORT, steps=15, items_per_step=4, eps_low=0.5, eps_high=2.0)
    before = _margin(host, recorded)
    report = train_weaver_on_groups(host, "m", groups, config)
    assert _margin(host, recorded) > before + 0.2
    assert report.rewards == (0.5,) * 15
    assert report.flags == ()
    assert list(host.memories) == ["m"]


def test_the_first_ratio_is_to_the_logged_policy(backbone: Backbone, recorded: list[Group]) -> None:
    """Logged as half as likely as they are under the memory, every token has ratio 2; the good ones' is cut to 1.2."""
    host = created(backbone)
    halved = [_logged(group, lambda turn: [v - math.log(2) for v in logprobs_of(host, turn)]) for group in recorded]
    steps: list[Any] = []
    config = replace(SHORT, steps=1, items_per_step=4, loss="grpo")
    train_weaver_on_groups(host, "m", halved, config, control=RunControl(on_step=steps.append))
    # Three of six with advantage +a at ratio 1.2, three with -a at ratio 2: a loss of (2 - 1.2) / 2 * a.
    advantage = 0.5 / (math.sqrt(0.3) + 1e-4)
    good, every = (sum(r.tokens for g in recorded for r in g.rollouts if r.reward >= least) for least in (1.0, 0.0))
    assert steps[0].loss == pytest.approx(0.4 * advantage, rel=1e-3)
    assert steps[0].clip_share == pytest.approx(good / every)


def test_an_end_that_was_not_logged_is_the_starts(backbone: Backbone, recorded: list[Group]) -> None:
    """The other tokens keep what was logged, here half of what they are; a turn without any is the start's whole."""
    host, expected = created(backbone), []
    host.create("m@start", host.memories["m"].config)
    host.copy("m", "m@start")
    own = [logprobs_of(host, turn) for group in recorded for rollout in group.rollouts for turn in rollout.turns]
    known = iter([n % 3 for n in range(len(own))])

    def cut(turn: RolledTurn) -> list[float]:
        values, kind = logprobs_of(host, turn), next(known)
        logged = [v - math.log(2) for v in values][: (len(values), len(values) - 1, 0)[kind]]
        expected.append([*logged, *values[len(logged) :]])
        return logged

    groups = [_logged(group, cut) for group in recorded]
    config = replace(SHORT, loss="grpo", kl_coefficient=0.0, batch_size=len(own))
    [part] = make_parts(host, "m", "m@start", groups, PromptCache(backbone.decoder, 0), config)
    turns = [turn for group in groups for rollout in group.rollouts for turn in rollout.turns]
    by_tokens = {(t.prompt_ids, t.token_ids, t.logprobs): values for t, values in zip(turns, expected, strict=True)}
    in_order = sorted(turns, key=lambda turn: len(turn.token_ids) // 16)
    wanted = [v for t in in_order for v in by_tokens[t.prompt_ids, t.token_ids, t.logprobs]]
    assert part.sampled_logprobs.tolist() == pytest.approx(wanted, abs=1e-4)
    assert part.start_logprobs is None
    report = train_weaver_on_groups(created(backbone), "m", groups, replace(SHORT, steps=2, items_per_step=4))
    assert not [flag for flag in report.flags if "weight" in flag]


def test_groups_that_teach_nothing_are_an_error(backbone: Backbone, recorded: list[Group]) -> None:
    flat = [Group(tuple(replace(r, reward=1.0) for r in group.rollouts)) for group in recorded]
    with pytest.raises(NothingToTrain, match="none of 4 groups has rewards that differ"):
        train_weaver_on_groups(created(backbone), "m", flat, SHORT)
    with pytest.raises(NothingToTrain, match="no items to play"):
        train_weaver_grpo(created(backbone), "m", [], SHORT)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"group_size": 1}, "group_size is 1; expected at least 2"),
        ({"loss": "ppo"}, "loss is 'ppo'; expected one of"),
        ({"eps_low": 1.0}, "eps_low is 1.0; expected more than 0 and less than 1"),
        ({"temperature": 0.0}, "temperature is 0.0; expected more than 0"),
        ({"kl_coefficient": -1.0}, "kl_coefficient is -1.0; expected 0 or more"),
        ({"steps": 0}, "^steps is 0"),
    ],
)
def test_config_refuses_impossible_values(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GrpoConfig(**values)


@torch.no_grad()
def logprobs_of(host: AdapterHost, turn: RolledTurn) -> list[float]:
    """Under the memory `m` as it is."""
    example = Example(turn.prompt_ids, turn.token_ids)
    nll, _ = supervised_nll(host, "m", [example], PromptCache(host.backbone.decoder, 0))
    return (-nll).tolist()


def _logged(group: Group, logprobs: Callable[[RolledTurn], Sequence[float]]) -> Group:
    rollouts = [
        replace(rollout, turns=tuple(replace(turn, logprobs=tuple(logprobs(turn))) for turn in rollout.turns))
        for rollout in group.rollouts
    ]
    return Group(tuple(rollouts))


def _margin(host: AdapterHost, groups: Sequence[Group]) -> float:
    """Mean log probability of a rollout with reward 1, less that of one with 0."""
    totals: dict[float, list[float]] = {0.0: [], 1.0: []}
    for rollout in (rollout for group in groups for rollout in group.rollouts):
        totals[rollout.reward].append(sum(sum(logprobs_of(host, turn)) for turn in rollout.turns))
    return fmean(totals[1.0]) - fmean(totals[0.0])
