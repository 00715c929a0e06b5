"""Settings that look back over the answer, across insertions inside it."""

import json
from typing import Any

import torch
from answering import answers, differences, sampling

VOCABULARY = 259


def test_penalties_and_limits_go_on_across_insertions(engine: Any, reference: Any) -> None:
    """Against the plain formulas, computed over the literal reference's logits."""
    cases = reference.settings
    woven = [case for case in cases if len(case["positions"]) > 1]
    assert {str(case["settings"]) for case in woven} == {str(case["settings"]) for case in cases}
    # The backend that the service starts its servers with.
    llm = engine(max_logprobs=VOCABULARY, structured_outputs_config={"backend": "guidance"})
    assert differences(answers(llm, reference, cases), cases) == []
    _check_draws(llm, reference)
    _check_grammar(llm, reference)


def _check_draws(llm: Any, reference: Any) -> None:
    """A seeded answer takes one number a token of its own generator, on and on: none is begun anew."""
    prompt, lora, seeds = reference.cases[0]["prompt"], reference.lora("many"), range(8)
    params = [
        sampling({"temperature": 1.0, "seed": seed, "logprobs": VOCABULARY, "ignore_eos": True, "max_tokens": 60})
        for seed in seeds
    ]
    prompts = [{"prompt_token_ids": list(prompt)} for _ in seeds]
    outputs = llm.generate(prompts, params, lora_request=[lora for _ in seeds], use_tqdm=False)
    for seed, output in zip(seeds, outputs, strict=True):
        generator = torch.Generator().manual_seed(seed)
        for token, step in zip(output.outputs[0].token_ids, output.outputs[0].logprobs, strict=True):
            logits = torch.full((1, VOCABULARY), -torch.inf)
            for number, known in step.items():
                logits[0, number] = known.logprob
            number = torch.randint(0, 2**31, (1,), generator=generator, dtype=torch.long)
            assert int(torch.ops._C.fused_gumbel_argmax(logits, number)) == token
    inside = [insertions(llm, reference, "many", prompt, output.outputs[0].token_ids) for output in outputs]
    assert inside.count(3) >= 2, "answers with all of their insertions are among them"


def _check_grammar(llm: Any, reference: Any) -> None:
    """A grammar goes on behind an insertion: the answer is one JSON object of the schema."""
    from vllm.sampling_params import StructuredOutputsParams

    schema = {
        "type": "object",
        "properties": {"place": {"enum": ["a bad cab", "ocean", "deep lake"]}, "good": {"type": "boolean"}},
        "required": ["place", "good"],
        "additionalProperties": False,
    }
    for name in ("many", "short", None):
        for case in reference.cases[:3]:
            params = sampling({"max_tokens": 200})
            params.structured_outputs = StructuredOutputsParams(json=schema)
            [output] = llm.generate(
                [{"prompt_token_ids": case["prompt"]}], params, lora_request=reference.lora(name), use_tqdm=False
            )
            answer = output.outputs[0]
            assert answer.finish_reason == "stop", answer.text
            assert json.loads(answer.text).keys() == {"place", "good"}
            if name is not None:
                assert insertions(llm, reference, name, case["prompt"], answer.token_ids) >= 1, answer.text


def insertions(llm: Any, reference: Any, name: str, prompt: list[int], tokens: Any) -> int:
    """How many there are inside an answer, by the rule of the wire contract."""
    from memgen.text.delimiters import DelimiterMatcher
    from memgen_vllm.memory import memory_of

    config = memory_of(reference.lora(name)).config
    matcher = DelimiterMatcher.of(llm.get_tokenizer(), config.delimiters)
    return len(matcher.insertion_points([*prompt, *tokens], len(prompt), config.max_insertions))
