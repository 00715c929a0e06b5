"""What a step costs that is held to a JSON schema, over one that is free."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace

from bench.serving.workload import questions
from bench.speed.ratios import Findings, InvalidRun, Ratio
from memgen.backbone.loading import Backbone
from memgen.generation.constraints import prepare
from memgen.generation.decoding import Decoding
from memgen.generation.requests import GenerationRequest
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.text.answer_grammars import Constraint
from memgen.text.json_schemas import grammar_schema

TOKENS = 96
"""Of each answer, held or free: no end is drawn before, and the schema has room for them."""
_ZIP = {"type": "string", "pattern": "^[0-9]{5}$"}
_WORDS = {"type": "string", "minLength": 400}
_SCHEMA = {
    "type": "object",
    "properties": {
        "id": {"type": "integer", "minimum": 0, "maximum": 99999},
        "state": {"enum": ["new", "paid", "sent"]},
        "lines": {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "string", "maxLength": 40}},
        "address": {
            "type": "object",
            "properties": {"zip": {"type": "string", "pattern": "^[0-9]{5}$"}, "street": _WORDS},
        },
    },
    "required": ["id", "state", "lines", "address"],
}


def constrained_over_free(backbone: Backbone, rounds: int) -> Findings:
    """Keys `constrained_over_free`, of one answer alone, and `constrained_over_free_b8`."""
    host = AdapterHost(backbone)
    ratios = tuple(
        Ratio(
            f"constrained_over_free{ending}",
            f"CPU time of a decode step under a JSON schema over a free one, batch {batch}",
            _ratios(host, batch, rounds),
        )
        for batch, ending in ((1, ""), (8, "_b8"))
    )
    return Findings(ratios, {"how": f"{TOKENS} tokens drawn at temperature 1, the schema compiled before"})


def _ratios(host: AdapterHost, batch: int, rounds: int) -> tuple[float, ...]:
    """CPU seconds of answers that are held to a schema over those of free ones, in rounds that take turns.

    The grammar is compiled before, as it is while a prompt is read.
    """
    backbone = host.backbone
    constraint = Constraint(grammar_schema(_SCHEMA, strict=True))
    prompts = [
        backbone.profile.prompt_ids([{"role": "user", "content": text}]) for text in questions(backbone, batch, (80,))
    ]
    free = Sampling(TOKENS, min_tokens=TOKENS, temperature=1.0, seed=1)
    prepare(backbone, constraint, prompts[0])
    ratios = []
    for turn in range(rounds + 1):
        seconds = {
            held: _decode_seconds(host, prompts, replace(free, constraint=constraint) if held else free)
            for held in ((True, False) if turn % 2 else (False, True))
        }
        if turn:  # the first one warms up
            ratios.append(seconds[True] / seconds[False])
    return tuple(ratios)


def _decode_seconds(host: AdapterHost, prompts: Sequence[tuple[int, ...]], sampling: Sampling) -> float:
    """CPU seconds of a step, behind the prompts and the first token."""
    decoding = Decoding(host)
    for prompt in prompts:
        decoding.add(GenerationRequest(prompt, sampling))
    while decoding.running < len(prompts):
        decoding.step()
    began, steps = time.process_time(), 0
    while not decoding.done:
        decoding.step()
        steps += 1
    seconds = (time.process_time() - began) / steps
    for _, ended in decoding.ended():
        if isinstance(ended, Exception):
            raise ended
        if sampling.constraint is not None and not ended.text.startswith('{"id": '):
            raise InvalidRun(f"held to a schema, and wrote {json.dumps(ended.text[:80])}")
    return seconds
