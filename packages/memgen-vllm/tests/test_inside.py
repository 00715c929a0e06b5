"""Seen from inside of the engine: where the adapter is on, what must not go unnoticed, what the prefix cache shares."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from answering import CLOSE, answers, differences, sampling
from vllm.lora.request import LoRARequest

from memgen_vllm import worker_v1
from memgen_vllm.memory import adapter_path, is_memory, memory_of
from memgen_vllm.virtual_ids import QUERY, woven_inside, woven_prompt

BLOCK = 32


@pytest.fixture(scope="module")
def llm(engine: Any) -> Any:
    return engine(max_num_batched_tokens=64, max_num_seqs=16)


@pytest.fixture
def woven(reference: Any) -> list[dict[str, Any]]:
    names = {name for name in reference.artifacts if (lora := reference.lora(name)) and is_memory(lora)}
    return [case for case in reference.cases if case["memory"] in names - {"never"}]


@pytest.fixture
def trace() -> Iterator[dict[str, list[tuple[int, int]]]]:
    """By request, the ids that were read of it and the adapter of each."""
    seen: dict[str, list[tuple[int, int]]] = {}

    def note(request: str, ids: list[int], adapters: list[int]) -> None:
        seen.setdefault(request.split("-")[0], []).extend(zip(ids, adapters, strict=True))

    worker_v1.traces.append(note)
    yield seen
    worker_v1.traces.remove(note)


def expected_context(reference: Any, case: dict[str, Any]) -> list[int]:
    """All ids that stand in the context when the answer's last token is read; that one itself never is."""
    prompt, tokens = case["prompt"], case["tokens"][:-1]
    memory = memory_of(reference.lora(case["memory"]))
    if memory is None or not memory.weaves:
        return [*prompt, *tokens]
    context = woven_prompt(memory.config, prompt)
    inside = {position - len(prompt) for position in case["positions"][1:]}
    for place, token in enumerate(tokens):
        context += [*(woven_inside(memory.config) if place in inside else []), token]
    return context


def test_the_adapter_is_on_at_exactly_the_right_positions(llm: Any, reference: Any, trace: Any) -> None:
    llm.reset_prefix_cache()
    # Each once: a version's repeat shares its own virtual blocks too.
    cases = list({(case["memory"], tuple(case["prompt"])): case for case in reference.cases}.values())
    outputs = answers(llm, reference, cases)
    assert differences(outputs, cases) == []
    on = 0
    for output, case in zip(outputs, cases, strict=True):
        lora = reference.lora(case["memory"])
        number = lora.lora_int_id if lora is not None else 0
        wanted = [
            (token, number if token >= QUERY or (lora is not None and not is_memory(lora)) else 0)
            for token in expected_context(reference, case)
        ]
        read = trace[output.request_id]
        assert read == wanted[len(wanted) - len(read) :], case["memory"]
        assert len(wanted) - len(read) <= (len(case["prompt"]) - 1) // BLOCK * BLOCK, "only plain blocks were shared"
        on += sum(adapter != 0 for _, adapter in read)
    assert on > 300


def test_controls_fail(llm: Any, reference: Any, woven: Any, monkeypatch: Any) -> None:
    """Each breaks one thing on purpose, and most answers must turn."""
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    def wrong() -> int:
        llm.reset_prefix_cache()
        return len(differences(answers(llm, reference, woven), woven))

    assert wrong() == 0
    with monkeypatch.context() as patch:
        patch.setattr(PunicaWrapperCPU, "add_lora_linear", lambda *_, **__: None)
        assert wrong() > 0.8 * len(woven), "the adapter was off"
    with monkeypatch.context() as patch:
        patch.setattr(worker_v1, "QUERY", 0)
        assert wrong() > 0.8 * len(woven), "the adapter was on everywhere"
    table = _embedding(llm).queries
    kept = table.clone()
    table.copy_(kept.roll(1, dims=1))
    assert wrong() > 0.8 * len(woven), "the queries were shifted by one"
    table.copy_(kept)
    assert wrong() == 0


def test_versions_share_the_cache_of_plain_prompts_and_never_each_others(llm: Any, reference: Any) -> None:
    """`upper` and `lower` have one shape: the same ids, other weights."""
    llm.reset_prefix_cache()
    prompt = max((case["prompt"] for case in reference.cases), key=len)
    plain = (len(prompt) - 1) // BLOCK * BLOCK
    params = sampling({})

    def cached(name: str | None) -> tuple[int, list[int]]:
        lora = reference.lora(name)
        [output] = llm.generate([{"prompt_token_ids": list(prompt)}], params, lora_request=lora, use_tqdm=False)
        return output.num_cached_tokens, list(output.outputs[0].token_ids)

    assert cached(None)[0] == 0
    shared, first = cached("upper")
    assert shared == plain
    shared, second = cached("lower")
    assert shared == plain
    assert first != second
    again, repeated = cached("upper")
    assert again >= plain
    assert repeated == first
    assert cached("plain")[0] == 0, "a plain adapter reads the whole prompt otherwise"


def test_several_choices_are_those_of_their_seeds(llm: Any, reference: Any) -> None:
    prompt, lora = {"prompt_token_ids": list(reference.cases[0]["prompt"])}, reference.lora("many")
    hot = {"temperature": 1.0, "ignore_eos": True}
    [both] = llm.generate([prompt], sampling({**hot, "n": 2, "seed": 5}), lora_request=lora, use_tqdm=False)
    for index, choice in enumerate(both.outputs):
        params = sampling({**hot, "seed": 5 + index})
        [alone] = llm.generate([prompt], params, lora_request=lora, use_tqdm=False)
        assert list(choice.token_ids) == list(alone.outputs[0].token_ids)


def test_what_a_cut_prompt_drew_is_taken_back(llm: Any, reference: Any, monkeypatch: Any) -> None:
    """A step that reads a chunk only draws for nothing: the answer is the same as where one step reads the prompt."""
    from memgen_vllm.cpu_draws import RewindableGenerator

    taken_back: list[int] = []
    original = RewindableGenerator.set_offset

    def note(self: Any, offset: int) -> Any:
        taken_back.append(offset)
        return original(self, offset)

    monkeypatch.setattr(RewindableGenerator, "set_offset", note)
    prompt = {"prompt_token_ids": list(max((case["prompt"] for case in reference.cases), key=len))}
    params = sampling({"temperature": 1.0, "seed": 3})

    def answer() -> list[int]:
        [output] = llm.generate([prompt], params, lora_request=reference.lora("upper"), use_tqdm=False)
        return list(output.outputs[0].token_ids)

    llm.reset_prefix_cache()
    cold = answer()
    assert len(taken_back) >= 3
    taken_back.clear()
    warm = answer()
    assert taken_back == []
    assert cold == warm


def test_preempted_answers_go_on_as_they_were(engine: Any, reference: Any, monkeypatch: Any) -> None:
    from vllm.v1.core.sched.scheduler import Scheduler

    preempted: list[int] = []
    original = Scheduler._preempt_request

    def count(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        preempted.append(getattr(request, "memgen_insertions", 0))
        return original(self, request, *args, **kwargs)

    monkeypatch.setattr(Scheduler, "_preempt_request", count)
    llm = engine(num_gpu_blocks_override=24)
    cases = reference.cases * 2
    assert differences(answers(llm, reference, cases), cases) == []
    assert len(preempted) >= 3
    assert max(preempted) > 0, "some behind an insertion inside their answer"


def test_answers_that_all_stand_at_an_insertion_in_a_full_cache_go_on(engine: Any, reference: Any) -> None:
    """Each fills its two blocks with its prompt, and needs a third for what its first token weaves."""
    from memgen.text.delimiters import DelimiterMatcher

    llm = engine(num_gpu_blocks_override=17, max_num_seqs=8)
    core = llm.llm_engine.engine_core.engine_core
    config = memory_of(reference.lora("many")).config
    length = 2 * BLOCK - config.reread_tokens - config.latents
    letter = llm.get_tokenizer().encode("a")[-1]
    assert DelimiterMatcher.of(llm.get_tokenizer(), config.delimiters).ends_sentence([letter], 0)
    params = sampling({"logit_bias": {letter: 100.0}, "max_tokens": 6})
    prompts = [{"prompt_token_ids": [10 + number, *range(60, 59 + length)]} for number in range(8)]
    alone = [
        llm.generate([prompt], params, lora_request=reference.lora("many"), use_tqdm=False)[0] for prompt in prompts
    ]
    llm.reset_prefix_cache()
    for number, prompt in enumerate(prompts):
        llm.llm_engine.add_request(f"{number}", prompt, params, lora_request=reference.lora("many"))
    found: dict[str, Any] = {}
    stood = 0
    for _ in range(200):
        found |= {output.request_id: output for output in llm.llm_engine.step() if output.finished}
        stood += not core.scheduler.running and len(core.scheduler.kv_holding_waiting) == 8
    assert stood, "all stood at their insertion at once"
    assert len(found) == 8
    for number, expected in enumerate(alone):
        answer, wanted = found[f"{number}"].outputs[0], expected.outputs[0]
        assert answer.token_ids == wanted.token_ids
        for token, step, known in zip(wanted.token_ids, answer.logprobs, wanted.logprobs, strict=True):
            assert abs(step[token].logprob - known[token].logprob) < CLOSE


@pytest.mark.parametrize("left", ["nothing", "its folders"])
def test_a_version_that_vanished_is_refused_alone(engine: Any, reference: Any, tmp_path: Path, left: str) -> None:
    """Another has taken its place in the worker's memory, and no store has it."""
    kept, other = reference.lora("upper"), reference.lora("lower")
    folder = shutil.copytree(Path(kept.lora_path).parent, tmp_path / kept.lora_name)
    vanishing = LoRARequest(kept.lora_name, kept.lora_int_id, str(adapter_path(folder)))
    llm = engine(max_loras=1, max_cpu_loras=1)
    prompt, params = {"prompt_token_ids": list(reference.cases[0]["prompt"])}, sampling({})

    def answer(lora: Any) -> list[int]:
        [output] = llm.generate([prompt], params, lora_request=lora, use_tqdm=False)
        return list(output.outputs[0].token_ids)

    answer(vanishing)
    expected = answer(other)
    if left == "nothing":
        shutil.rmtree(folder)
    else:
        for path in [path for path in folder.rglob("*") if path.is_file()]:
            path.unlink()
    for name, lora in (("gone", vanishing), ("other", other), ("gone too", vanishing)):
        llm.llm_engine.add_request(name, prompt, params, lora_request=lora)
    found: dict[str, Any] = {}
    for _ in range(200):
        found |= {output.request_id: output.outputs[0] for output in llm.llm_engine.step() if output.finished}
    assert [name for name, each in found.items() if each.finish_reason == "error"] == ["gone", "gone too"]
    assert list(found["other"].token_ids) == expected
    assert not llm.llm_engine.has_unfinished_requests()


def _embedding(llm: Any) -> Any:
    from memgen_vllm.embedding import MemoryEmbedding

    worker = llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker
    found = [module for module in worker.model_runner.model.modules() if isinstance(module, MemoryEmbedding)]
    assert len(found) == 1
    assert isinstance(found[0].queries, torch.Tensor)
    return found[0]
