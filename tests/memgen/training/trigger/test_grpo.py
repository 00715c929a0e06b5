"""A trigger learns where to weave: on a task that a planted memory helps, one it hurts, and one it does not touch."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from memgen.backbone.loading import Backbone
from memgen.config import MemoryConfig, TriggerConfig
from memgen.errors import Cancelled, ConfigError, NothingToTrain
from memgen.generation.engine import generate
from memgen.generation.invocations import invocation_rate
from memgen.generation.requests import Generation, GenerationRequest
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.memory.weights import Memory
from memgen.tasks.graders import Reference
from memgen.tasks.task import SingleTurn
from memgen.text.answers import Answer, parse_answer
from memgen.training.run_control import RunControl
from memgen.training.trigger.grpo import train_trigger
from memgen.training.trigger.report import TriggerReport, entropy
from tests.memgen.conftest import LETTERS, randomise, unlike_queries

NEW_TOKENS = 6
TRAINED, HELD_OUT = 8, 8
RUN = TriggerConfig(
    steps=20, items_per_step=8, group_size=4, max_new_tokens=NEW_TOKENS, learning_rate=1e-2, head_learning_rate=5e-2
)
KINDS = pytest.mark.parametrize("kind", ["head", "lora"])


def questions(subject: str, first: int, count: int) -> list[str]:
    return [f"{subject} {number:02d}" for number in range(first, first + count)]


def same(answer: Answer, reference: Reference) -> float:
    return float((answer.content or "") == reference.message["content"])


def item(question: str, answer: str) -> SingleTurn:
    message = {"role": "assistant", "content": answer}
    return SingleTurn(question, ({"role": "user", "content": question},), same, Reference(message, {}))


class Planted:
    """A host with an untrained trigger over a weaver with random weights, which answers otherwise than the base.

    `m` is the memory, `always` the same one under the trigger `always`.
    """

    def __init__(self, backbone: Backbone, kind: str, max_insertions: int = 0) -> None:
        self.host = AdapterHost(backbone)
        config = MemoryConfig(
            latents=4,
            inference_latents=3,
            rank=4,
            alpha=8,
            target_modules=("q_proj", "v_proj"),
            delimiters=LETTERS,
            max_insertions=max_insertions,
        )
        self.memory = self.host.create("m", replace(config, trigger=kind))
        always = self.host.create("always", config)
        randomise(unlike_queries(always, backbone, seed=0), 3, spread=0.2)
        with torch.no_grad():
            pairs = zip(self.memory.weaver_parameters(), always.weaver_parameters(), strict=True)
            for ours, theirs in pairs:
                ours.copy_(theirs)

    def answers(self, memory: str | None, prompts: Sequence[str]) -> list[Generation]:
        profile = self.host.backbone.profile
        asked = [profile.prompt_ids([{"role": "user", "content": prompt}]) for prompt in prompts]
        sampling = Sampling(NEW_TOKENS)
        return generate(self.host, [GenerationRequest(ids, sampling, memory) for ids in asked])

    def items(self, memory: str | None, prompts: Sequence[str]) -> list[SingleTurn]:
        """For which the right answer is what `memory` says."""
        answers = self.answers(memory, prompts)
        return [
            item(prompt, parse_answer(answer.text).content or "")
            for prompt, answer in zip(prompts, answers, strict=True)
        ]

    def reward(self, memory: str | None, items: Sequence[SingleTurn]) -> float:
        answers = self.answers(memory, [str(one.prompt[0]["content"]) for one in items])
        pairs = zip(answers, items, strict=True)
        return sum(same(parse_answer(a.text), one.reference) for a, one in pairs) / len(items)

    def rate(self, items: Sequence[SingleTurn]) -> float:
        prompts = [str(one.prompt[0]["content"]) for one in items]
        rate = invocation_rate([answer.decisions for answer in self.answers("m", prompts)]).rate
        assert rate is not None
        return rate


@KINDS
def test_it_weaves_where_memory_helps_and_not_where_it_hurts(backbone: Backbone, kind: str) -> None:
    planted = Planted(backbone, kind)
    helped = planted.items("always", questions("say yes", 0, TRAINED + HELD_OUT))
    hurt = planted.items(None, questions("COUNT", 0, TRAINED + HELD_OUT))
    unseen = [*helped[TRAINED:], *hurt[TRAINED:]]
    assert planted.reward("always", unseen) == planted.reward(None, unseen) == 0.5

    tasks = {"helped": helped[:TRAINED], "hurt": hurt[:TRAINED]}
    report = train_trigger(planted.host, "m", tasks, RUN)

    assert planted.reward("m", unseen) >= 0.9
    assert planted.rate(helped[TRAINED:]) >= 0.9
    assert planted.rate(hurt[TRAINED:]) <= 0.1
    assert report.flags == ()
    assert report.rewards[0] < 0.8 < report.rewards[-1]
    assert report.by_task["helped"].rate > 0.7 > 0.3 > report.by_task["hurt"].rate
    assert report.rollouts == 20 * 8 * 4
    assert all(parameter.grad is None for parameter in planted.memory.weaver_parameters())


def indifferent(subject: str = "say yes") -> dict[str, list[SingleTurn]]:
    def full(answer: Answer, reference: Reference) -> float:
        return 1.0

    return {"any": [replace(item(question, ""), grader=full) for question in questions(subject, 0, TRAINED)]}


@KINDS
def test_needless_insertions_vanish_at_a_price_alone(backbone: Backbone, kind: str) -> None:
    """Without one there is nothing to learn: the trigger stays undecided, and says so."""
    free, priced = Planted(backbone, kind), Planted(backbone, kind)
    run = replace(RUN, steps=8)
    report = train_trigger(free.host, "m", indifferent(), replace(run, penalty=0.0))
    assert report.groups_skipped == report.groups == 64
    assert report.optimizer_steps == 0
    assert report.by_task["any"].rate == pytest.approx(0.5, abs=0.15)
    parts = ["trigger", "trigger head"] if kind == "lora" else ["trigger head"]
    assert report.flags[:-1] == (
        *(f"no weight changed: {part}" for part in parts),
        "no group was learned from: each had equal penalised rewards, or earned nothing",
    )
    assert report.flags[-1].startswith("the trigger is undecided: 0.693 of 0.693")

    report = train_trigger(priced.host, "m", indifferent(), replace(run, penalty=0.1))
    assert report.rewards == (1.0,) * 8
    assert report.invoked[0] == pytest.approx(0.5, abs=0.2)
    assert report.invoked[-1] <= 0.2
    assert priced.rate(indifferent()["any"]) == 0.0


def test_without_a_price_a_habit_spreads(backbone: Backbone) -> None:
    """Weaving pays on one task and makes no difference on the other, which then does what the first taught."""
    rates = {}
    for penalty in (0.0, 0.1):
        planted = Planted(backbone, "head")
        helped, neutral = planted.items("always", questions("say yes", 0, TRAINED)), indifferent("COUNT")
        train_trigger(planted.host, "m", {"helped": helped, **neutral}, replace(RUN, penalty=penalty))
        assert planted.rate(helped) == 1.0
        rates[penalty] = planted.rate(neutral["any"])
    assert rates[0.0] >= 0.9
    assert rates[0.1] == 0.0


def leading(answer: Answer, reference: Reference) -> float:
    """Share of the reference that the answer begins with."""
    text, wanted = answer.content or "", reference.message["content"]
    alike = next((n for n, (a, b) in enumerate(zip(text, wanted, strict=False)) if a != b), min(len(text), len(wanted)))
    return alike / max(1, len(wanted))


def test_it_tells_places_of_one_answer_apart(backbone: Backbone) -> None:
    """Memory is right at the prompt's end and wrong at every sentence's end."""
    planted = Planted(backbone, "head", max_insertions=3)
    once = Planted(backbone, "head")
    found = [replace(one, grader=leading) for one in once.items("always", questions("say yes", 0, TRAINED))]
    assert planted.reward("always", found) < 1.0
    train_trigger(planted.host, "m", {"once": found}, replace(RUN, steps=30))
    answers = planted.answers("m", [one.item_id for one in found])
    first, later = [a.decisions[0].invoked for a in answers], [d.invoked for a in answers for d in a.decisions[1:]]
    assert len(later) >= TRAINED
    assert sum(first) / len(first) >= 0.9
    assert sum(later) / len(later) <= 0.2
    assert planted.reward("m", found) > planted.reward("always", found)


def weights(memory: Memory) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in memory.trigger_parameters()]


@KINDS
def test_a_stopped_run_goes_on_bit_for_bit(backbone: Backbone, kind: str, tmp_path: Path) -> None:
    run = replace(RUN, steps=4, items_per_step=3, iterations=2, learning_rate=1e-3, head_learning_rate=1e-3)

    def tasks(planted: Planted) -> dict[str, list[SingleTurn]]:
        return {"helped": planted.items("always", questions("say yes", 0, 4))}

    whole, broken, resumed = (Planted(backbone, kind) for _ in range(3))
    expected = train_trigger(whole.host, "m", tasks(whole), run)
    checkpoint, seen = tmp_path / "state.safetensors", []
    with pytest.raises(Cancelled):
        train_trigger(
            broken.host,
            "m",
            tasks(broken),
            run,
            control=RunControl(checkpoint=checkpoint, on_step=seen.append, should_stop=lambda: len(seen) == 2),
        )
    report = train_trigger(resumed.host, "m", tasks(resumed), run, control=RunControl(checkpoint=checkpoint))
    assert timeless(report) == timeless(expected)
    assert expected.optimizer_steps >= 4
    assert expected.optimizer_steps % 2 == 0
    for one, other in zip(weights(whole.memory), weights(resumed.memory), strict=True):
        assert torch.equal(one, other)


def timeless(report: TriggerReport) -> TriggerReport:
    return replace(report, seconds=0.0)


def test_the_weaver_and_the_base_stay_as_they_are(backbone: Backbone) -> None:
    planted = Planted(backbone, "lora", max_insertions=2)
    frozen = [*planted.memory.weaver_parameters(), *backbone.model.parameters()]
    before = [parameter.detach().clone() for parameter in frozen]
    items = planted.items("always", questions("say yes", 0, 4))
    steps = []
    train_trigger(planted.host, "m", {"helped": items}, replace(RUN, steps=2), control=RunControl(on_step=steps.append))
    assert all(torch.equal(old, new) for old, new in zip(before, frozen, strict=True))
    assert any(not torch.equal(b, torch.zeros_like(b)) for _, b in planted.memory.trigger.factors.values())
    assert [step.step for step in steps] == [1, 2]
    assert steps[0].entropy == pytest.approx(0.6931, abs=1e-4)
    assert steps[0].penalised_reward < steps[0].reward
    assert steps[1].seconds_left == 0.0


def test_a_habit_is_flagged(backbone: Backbone) -> None:
    for bias, words in ((9.0, "the trigger always fires: 100.0%"), (-9.0, "the trigger never fires: 0.0%")):
        planted = Planted(backbone, "head")
        with torch.no_grad():
            planted.memory.trigger_head.bias[1] = bias
        report = train_trigger(planted.host, "m", indifferent(), replace(RUN, steps=2))
        assert report.flags[-1].startswith(words)


def test_what_can_not_be_trained_is_refused(backbone: Backbone) -> None:
    planted = Planted(backbone, "head")
    with pytest.raises(ConfigError, match="the trigger of 'always' is 'always' and has nothing to learn"):
        train_trigger(planted.host, "always", indifferent(), RUN)
    with pytest.raises(NothingToTrain, match="no items"):
        train_trigger(planted.host, "m", {"none": []}, RUN)


@pytest.mark.parametrize(("probability", "expected"), [(0.0, 0.0), (1.0, 0.0), (0.5, 0.693147), (0.25, 0.562335)])
def test_entropy(probability: float, expected: float) -> None:
    assert entropy(probability) == pytest.approx(expected, abs=1e-6)
