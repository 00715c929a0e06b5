"""From trajectories to weighted examples: tool turns, rewards, what is held out."""

from typing import Any

import pytest
import torch

from memgen.artifacts.artifact import load_artifact
from memgen.backbone.loading import Backbone
from memgen.errors import ConfigError
from memgen.memory.host import AdapterHost
from memgen.training.examples import Example, ExampleSet, build_examples, hold_out
from memgen.training.forward import PrefixStore, supervised_nll
from memgen.training.losses import mean_by_example
from tests.memgen.conftest import conversations

TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}]


def _call(arguments: str) -> dict[str, Any]:
    return {"id": "call_0", "type": "function", "function": {"name": "add", "arguments": arguments}}


WITH_TOOLS: dict[str, Any] = {
    "messages": [
        {"role": "user", "content": "1+2?"},
        {"role": "assistant", "content": None, "tool_calls": [_call('{"a": 1, "b": 2}')]},
        {"role": "tool", "tool_call_id": "call_0", "content": "3"},
        {"role": "assistant", "content": "It is 3."},
        {"role": "user", "content": "and 4?"},
        {"role": "assistant", "content": None, "tool_calls": [_call('{"a": 3, "b": 4}')], "weight": 0},
        {"role": "tool", "tool_call_id": "call_0", "content": "7"},
        {"role": "assistant", "content": "7"},
    ],
    "tools": TOOLS,
}


def test_each_supervised_turn_of_a_tool_conversation_is_an_example(backbone: Backbone) -> None:
    data = build_examples(backbone.profile, [WITH_TOOLS], max_tokens=1000)
    decode = backbone.tokenizer.decode
    assert [decode(example.target_ids) for example in data.examples] == [
        '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call><|im_end|>',
        "It is 3.<|im_end|>",
        "7<|im_end|>",
    ]
    assert data.skipped_weight == 1
    last = decode(data.examples[-1].prompt_ids)
    # A turn that is not trained on is context of those behind it, as are the calls' results.
    assert '{"a": 3, "b": 4}}</tool_call><|im_end|>' in last
    assert last.endswith("<tool_response>7</tool_response><|im_end|>\n<|im_start|>assistant\n")
    assert {example.trajectory for example in data.examples} == {0}


def test_unequal_conversations_share_a_batch(host: AdapterHost, backbone: Backbone, random_artifact: Any) -> None:
    """Each example's loss in the batch is what it is alone: padding and neighbours change nothing."""
    load_artifact(host, "m", random_artifact(max_insertions=3))
    data = build_examples(backbone.profile, [WITH_TOOLS, *conversations(3)], max_tokens=1000)
    lengths = [example.tokens for example in data.examples]
    assert max(lengths) > 3 * min(lengths)

    def losses(examples: tuple[Example, ...]) -> torch.Tensor:
        nll, rows = supervised_nll(host, "m", examples, PrefixStore(backbone, 0))
        return mean_by_example(nll, rows, len(examples))

    alone = torch.cat([losses((example,)) for example in data.examples])
    torch.testing.assert_close(losses(data.examples), alone)


def _rewarded(*rewards: float | None) -> list[dict[str, Any]]:
    return [{**c, "reward": reward} for c, reward in zip(conversations(len(rewards)), rewards, strict=True)]


def test_low_rewards_are_left_out_and_counted(backbone: Backbone) -> None:
    data = build_examples(backbone.profile, _rewarded(0.2, 0.5, None, 1.0), max_tokens=500, min_reward=0.5)
    assert [backbone.tokenizer.decode(e.target_ids) for e in data.examples] == [f"yes {n}<|im_end|>" for n in (1, 2, 3)]
    assert [e.weight for e in data.examples] == [1.0, 1.0, 1.0]
    assert data.skipped_reward == 1


def test_an_example_weighs_its_trajectorys_reward(backbone: Backbone) -> None:
    trajectories = _rewarded(0.25, 0.0, None, -1.0, 2.0)
    data = build_examples(backbone.profile, trajectories, max_tokens=500, reward_weighting="reward")
    assert [e.weight for e in data.examples] == [0.25, 1.0, 2.0]
    assert data.skipped_reward == 2
    with pytest.raises(ConfigError, match="reward_weighting is 'rewards'; expected one of"):
        build_examples(backbone.profile, trajectories, max_tokens=500, reward_weighting="rewards")


def test_whole_trajectories_are_held_out_with_their_repetitions(backbone: Backbone) -> None:
    trajectories = [WITH_TOOLS, *conversations(8), WITH_TOOLS]
    data = build_examples(backbone.profile, trajectories, max_tokens=1000)
    sizes = set()
    for seed in range(20):
        rest, held = hold_out(data, 0.2, seed)
        assert sorted(map(hash, (*rest.examples, *held))) == sorted(map(hash, data.examples))
        assert not {e.trajectory for e in rest.examples} & {e.trajectory for e in held}
        assert len({e.trajectory for e in held}) == 2
        assert hold_out(data, 0.2, seed) == (rest, held)
        sizes.add(len(held))
    # Either two short conversations, or one and both copies of the long one.
    assert sizes == {2, 7}


def test_held_out_examples_that_stand_alone_are_counted_alone() -> None:
    data = ExampleSet(tuple(Example((5,), (n,)) for n in range(10)), 0, 0)
    rest, held = hold_out(data, 0.01, 0)
    assert (len(rest.examples), len(held)) == (9, 1)
    with pytest.raises(ConfigError, match="held_out_share 0.9 of 1 trajectories leaves none"):
        hold_out(ExampleSet(data.examples[:1], 0, 0), 0.9, 0)
