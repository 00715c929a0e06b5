"""Questions to an engine of vLLM in this process, and its answers beside the reference's."""

from collections.abc import Sequence
from typing import Any

from vllm import SamplingParams

NEW_TOKENS = 32
CLOSE = 2e-4
"""Largest difference of a token's log probability in float32."""


def answers(llm: Any, reference: Any, cases: Sequence[dict[str, Any]], *, together: bool = True) -> list[Any]:
    """vLLM's outputs for the cases, in one batch or one by one."""
    prompts = [{"prompt_token_ids": list(case["prompt"])} for case in cases]
    params = [sampling(case.get("settings", {})) for case in cases]
    loras = [reference.lora(case["memory"]) for case in cases]
    if together:
        return list(llm.generate(prompts, params, lora_request=loras, use_tqdm=False))
    return [
        llm.generate([prompt], each, lora_request=[lora], use_tqdm=False)[0]
        for prompt, each, lora in zip(prompts, params, loras, strict=True)
    ]


def sampling(settings: dict[str, Any]) -> SamplingParams:
    bias = {int(token): value for token, value in settings.get("logit_bias", {}).items()}
    rest = {name: value for name, value in settings.items() if name != "logit_bias"}
    return SamplingParams(
        **{"temperature": 0, "max_tokens": NEW_TOKENS, "logprobs": 1, **rest, "logit_bias": bias or None}
    )


def differences(outputs: Sequence[Any], cases: Sequence[dict[str, Any]]) -> list[str]:
    """In words, each answer that is not the reference's, in tokens or log probabilities."""
    found = []
    for output, case in zip(outputs, cases, strict=True):
        tokens = list(output.outputs[0].token_ids)
        label = f"{case['memory']} {case.get('settings', '')} ({len(case['prompt'])} tokens)"
        if tokens != case["tokens"]:
            found.append(f"{label}: tokens {tokens}, expected {case['tokens']}")
        elif (worst := worst_difference([output], [case])) > CLOSE:
            found.append(f"{label}: log probabilities differ by {worst}")
    return found


def worst_difference(outputs: Sequence[Any], cases: Sequence[dict[str, Any]]) -> float:
    """Largest difference of a log probability, of the tokens that both begin with."""
    worst = 0.0
    for output, case in zip(outputs, cases, strict=True):
        answer = output.outputs[0]
        for token, step, wanted, expected in zip(
            answer.token_ids, answer.logprobs, case["logprobs"], case["tokens"], strict=False
        ):
            if token != expected:
                break
            worst = max(worst, abs(step[token].logprob - wanted))
    return worst
