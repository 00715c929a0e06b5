"""The hooks of model runner V2, which a CPU cannot run: what they hand on, from its own state objects."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from memgen_vllm import register, worker_v2
from memgen_vllm.memory import memory_of
from memgen_vllm.virtual_ids import QUERY, woven_inside, woven_prompt

register()

from vllm.lora.request import LoRARequest  # noqa: E402
from vllm.v1.core.sched.output import NewRequestData  # noqa: E402
from vllm.v1.worker.gpu.lora_utils import LoraState, get_num_active_loras_for_dispatch  # noqa: E402
from vllm.v1.worker.gpu.sample import penalties  # noqa: E402

NAMES = ["woven", "plain", "bare"]


class Runner:
    """As much of a model runner as `add_requests` touches before it comes to a device."""

    def __init__(self) -> None:
        self.lora_state = LoraState(8)
        numbers = {name: place for place, name in enumerate(NAMES)}
        self.req_states = SimpleNamespace(num_computed_tokens_np=np.zeros(8, np.int32), req_id_to_index=numbers)

    def add(self, name: str, tokens: list[int], prompt: list[int], lora: Any) -> None:
        new = NewRequestData(name, prompt, [], None, None, ([0],), 0, lora, prefill_token_ids=tokens)
        self.lora_state.add_request(name, NAMES.index(name), lora)
        worker_v2.note_spans(lambda *_: None, self, SimpleNamespace(scheduled_new_reqs=[new]))

    def step(self, counts: list[int], done: list[int]) -> tuple[list[int], list[int], int]:
        """Of a step: the adapter of each token, of each row's logits, and how many the graph is chosen for."""
        self.req_states.num_computed_tokens_np[:3] = done
        graph = get_num_active_loras_for_dispatch(True, self.lora_state, NAMES, False)
        sampled, tokens, active = self.lora_state.make_lora_inputs(NAMES, np.arange(3), np.array(counts))
        assert graph == len(active)
        return [int(each) for each in tokens], [int(each) for each in sampled], graph


@pytest.fixture
def many(reference: Any) -> LoRARequest:
    return reference.lora("many")


def test_adapters_of_chunks_and_of_tokens(many: LoRARequest, reference: Any) -> None:
    plain, prompt = reference.lora("plain"), list(range(40, 60))
    memory = memory_of(many)
    assert memory is not None
    woven = woven_prompt(memory.config, prompt)
    virtual = [token >= QUERY for token in woven]
    runner = Runner()
    runner.add("woven", woven, woven, many)
    runner.add("plain", prompt, prompt, plain)
    runner.add("bare", prompt, prompt, None)
    on, other = many.lora_int_id, plain.lora_int_id

    tokens, sampled, graph = runner.step([30, 2, 1], [0, 5, 9])
    assert tokens == [on * each for each in virtual[:30]] + [other, other, 0]
    assert sampled == [0, other, 0]
    assert graph == 2
    rest = len(woven) - 30
    tokens, _, graph = runner.step([rest, 1, 1], [30, 7, 10])
    assert tokens == [on * each for each in virtual[30:]] + [other, 0]
    assert graph == 2
    tokens, _, graph = runner.step([1, 1, 1], [len(woven), 8, 11])
    assert tokens == [0, other, 0]
    assert graph == 1, "behind the span the step takes the graph without it"


def test_an_answer_that_goes_on_is_a_span_again(many: LoRARequest) -> None:
    memory = memory_of(many)
    assert memory is not None
    woven, inside = woven_prompt(memory.config, list(range(40, 60))), woven_inside(memory.config)
    context = [*woven, 7, 8, *inside, 9]
    runner = Runner()
    runner.add("woven", context, woven, many)
    runner.add("plain", [1], [1], None)
    runner.add("bare", [1], [1], None)
    tokens, _, _ = runner.step([len(inside) + 1, 1, 1], [len(woven) + 2, 0, 0])
    assert tokens == [*[many.lora_int_id] * len(inside), 0, 0, 0]


def test_penalties_count_no_virtual_id(many: LoRARequest) -> None:
    """In the tables of V2's kernels; theirs would write outside of them."""
    memory = memory_of(many)
    assert memory is not None
    vocabulary, prompt, answer = 70, [5, 31, 32, 63, 69], [7, 7, *woven_inside(memory.config), 69]
    woven = woven_prompt(memory.config, prompt)
    context = torch.zeros(3, 200, dtype=torch.int32)
    context[2, : len(woven) + len(answer)] = torch.tensor([*woven, *answer])
    lengths = [torch.tensor([0, 0, length]) for length in (len(woven), len(woven) + len(answer))]
    mask = torch.full((3, 3), -1, dtype=torch.int32)
    counts = torch.full((3, vocabulary), 9, dtype=torch.int32)
    penalties.bincount(torch.tensor([2]), context, *lengths, mask, counts, len(woven) + len(answer))
    bits = [token for token in range(96) if int(mask[2, token // 32]) >> (token % 32) & 1]
    assert bits == sorted(prompt)
    assert counts[2].nonzero()[:, 0].tolist() == [7, 69]
    assert counts[2, [7, 69]].tolist() == [2, 1]
    assert int(counts[0, 0]) == 9, "other rows stay"
