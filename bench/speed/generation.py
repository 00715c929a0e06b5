"""Generation with six insertions against plain `transformers.generate`; what insertions and mixed versions cost."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from bench.speed.memories import GENERATING, INSERTIONS, check_insertions, plant
from bench.speed.ratios import Bench, Findings, InvalidRun, NotHere, Ratio
from memgen.backbone.loading import Backbone
from memgen.backbone.prompt_cache import PromptCache
from memgen.errors import ConfigError
from memgen.generation.decoding import Decoding
from memgen.generation.engine import generate
from memgen.generation.requests import Generation, GenerationRequest
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.tasks.bfcl import single_calls

PROMPT_TOKENS = 128
_ASK = "Explain in detail, in a few paragraphs, how you would go about each of these tasks: "
_MARK = "\N{WHITE SQUARE}"


def over_plain(bench: Bench) -> Findings:
    """Keys `generate_over_plain_b1` and `_b8`."""
    return _over_plain(bench, bench.backbone, "")


def packed_over_plain(bench: Bench) -> Findings:
    """Keys `generate_over_plain_packed_b1` and `_b8`: the same with `pack_weights`, on a base of its own."""
    packed = replace(bench.backbone, model=copy.deepcopy(bench.backbone.model), pack_weights=True)
    try:
        _ = packed.decoder
    except ConfigError as error:
        raise NotHere(str(error)) from error
    return _over_plain(bench, packed, "packed_")


def _over_plain(bench: Bench, backbone: Backbone, kind: str) -> Findings:
    host = AdapterHost(backbone)
    plant(host, "m0", GENERATING)
    new_tokens = 96 if bench.quick else 256
    ratios: list[Ratio] = []
    last: dict[str, dict[str, float]] = {}
    for rows, pairs in ((1, 5), (8, 3)):
        prompts = real_prompts(bench.backbone, rows, PROMPT_TOKENS)
        answers: list[Generation] = []

        def ours(prompts: list[tuple[int, ...]] = prompts, answers: list[Generation] = answers) -> None:
            answers[:] = answer_whole(host, prompts, ["m0"] * len(prompts), new_tokens)

        def plain(prompts: list[tuple[int, ...]] = prompts) -> None:
            generate_plainly(bench.backbone, prompts, new_tokens)

        key = f"generate_over_plain_{kind}b{rows}"
        what = f"{new_tokens} new tokens, batch {rows}, {INSERTIONS} insertions: time over transformers.generate"
        ratios.append(bench.ratio(key, what, ours, plain, pairs=pairs))
        took = answers[0].timings
        last[f"engine_seconds_{kind}b{rows}"] = {
            part: round(getattr(took, part), 3) for part in ("prompt", "trigger", "weave", "decode", "total")
        }
    method = {
        "how": f"real questions cut to {PROMPT_TOKENS} tokens, greedy, end of turn off on both sides; learned `lora` "
        f"trigger, LoRA with random nonzero B, {INSERTIONS} insertions in every row, each where that row's own answer "
        f"comes to one of the delimiters {list(GENERATING.delimiters)}; both sides encode the prompts",
        **last,
    }
    return Findings(tuple(ratios), method)


def mixed_versions(bench: Bench) -> Findings:
    """Key `mixed_over_single`."""
    host = AdapterHost(bench.backbone)
    names = [f"m{n}" for n in range(8)]
    for name in names:
        plant(host, name, GENERATING)
    new_tokens = 160  # in 96, some of the answers end too few sentences for all insertions
    prompts = real_prompts(bench.backbone, 8, PROMPT_TOKENS)
    ratio = bench.ratio(
        "mixed_over_single",
        f"8 versions in one batch of 8, {new_tokens} new tokens, {INSERTIONS} insertions: throughput over one version",
        lambda: answer_whole(host, prompts, names[:1] * 8, new_tokens),
        lambda: answer_whole(host, prompts, names, new_tokens),
        pairs=3,
    )
    how = "the eight versions are separate tensors of equal values, so both sides weave at the same places"
    return Findings((ratio,), {"how": how})


def insertion_growth(bench: Bench) -> Findings:
    """Key `insertion_growth`."""
    host = AdapterHost(bench.backbone)
    plant(host, "m0", GENERATING)
    short, long = (64, 256) if bench.quick else (256, 4096)
    known = PromptCache(bench.backbone.decoder, max_bytes=10**10)
    [short_prompt] = real_prompts(bench.backbone, 1, short)
    [long_prompt] = real_prompts(bench.backbone, 1, long)
    known.read([short_prompt[:-1], long_prompt[:-1]])
    costs: list[tuple[float, float]] = []
    for _ in range(1 + bench.pairs(9)):
        costs.append(
            (_insertion_seconds(bench, host, known, long_prompt), _insertion_seconds(bench, host, known, short_prompt))
        )
    costs = costs[1:]
    ratio = Ratio(
        "insertion_growth",
        f"one insertion (trigger read and {GENERATING.latents} latents) at {long} tokens of context over {short}",
        tuple(at_long / at_short for at_long, at_short in costs),
    )
    method = {
        "how": "a decoding step with an insertion less the same step without one, the prompt already read",
        "seconds": {str(long): _middle([a for a, _ in costs]), str(short): _middle([b for _, b in costs])},
    }
    return Findings((ratio,), method)


def _insertion_seconds(bench: Bench, host: AdapterHost, known: PromptCache, prompt: tuple[int, ...]) -> float:
    took = {}
    for memory in (None, "m0"):
        request = GenerationRequest(prompt, Sampling(128), memory)
        decoding = Decoding(host, prompts=known)
        number = decoding.add(request)
        took[memory] = bench.seconds(decoding.step)
        decoding.cancel(number)
        [(_, answer)] = decoding.ended()
        if isinstance(answer, Exception):
            raise answer
        if len(answer.insertions) != (memory is not None):
            raise InvalidRun(f"memory {memory!r} made {len(answer.insertions)} insertions at the prompt's end")
    return took["m0"] - took[None]


def answer_whole(
    host: AdapterHost, prompts: Sequence[tuple[int, ...]], memories: Sequence[str], new_tokens: int
) -> list[Generation]:
    """Greedy answers of exactly `new_tokens`, checked for their insertions."""
    requests = [GenerationRequest(p, Sampling(new_tokens), m) for p, m in zip(prompts, memories, strict=True)]
    with endless(host.backbone):
        answers = generate(host, requests)
    if any(len(answer.token_ids) != new_tokens for answer in answers):
        raise InvalidRun(f"answers have {[len(a.token_ids) for a in answers]} tokens; expected {new_tokens} each")
    check_insertions(answers)
    return answers


def generate_plainly(backbone: Backbone, prompts: Sequence[tuple[int, ...]], new_tokens: int) -> None:
    """The same by `transformers`, without memory."""
    ids = torch.tensor(prompts, device=backbone.device)
    with endless(backbone), torch.inference_mode():
        model: Any = backbone.model
        whole = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new_tokens)
    if whole.shape[1] != ids.shape[1] + new_tokens:
        raise InvalidRun(f"transformers.generate gave {whole.shape[1] - ids.shape[1]} new tokens, not {new_tokens}")


@contextmanager
def endless(backbone: Backbone) -> Iterator[None]:
    """No token ends an answer, on either side."""
    configured, profile = backbone.model.generation_config, backbone.profile
    kept, configured.eos_token_id = configured.eos_token_id, [-1]
    vars(backbone)["profile"] = replace(profile, stop_token_ids=frozenset())
    try:
        yield
    finally:
        vars(backbone)["profile"] = profile
        configured.eos_token_id = kept


def real_prompts(backbone: Backbone, rows: int, tokens: int) -> list[tuple[int, ...]]:
    """Different chat prompts of exactly `tokens` tokens each: questions of BFCL, cut off at the right length."""
    questions = [trajectory["messages"][0]["content"] for trajectory in single_calls("simple_python")]
    head, _, tail = backbone.profile.prompt_text([{"role": "user", "content": _MARK}]).partition(_MARK)
    prompts = []
    for row in range(rows):
        text = " ".join([*questions[16 * row :], *questions[: 16 * row]])
        end = backbone.profile.control.ids(tail)
        prompts.append((*backbone.profile.control.ids(head + _ASK + text)[: tokens - len(end)], *end))
    return prompts


def _middle(values: Sequence[float]) -> float:
    return round(sorted(values)[len(values) // 2], 4)
