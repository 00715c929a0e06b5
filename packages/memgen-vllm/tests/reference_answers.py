"""What answers must be, computed by the repository's own engine and by its literal reference. Needs no vLLM.

    python packages/memgen-vllm/tests/reference_answers.py OUT       (in the service's environment, from the root)

OUT gets a tiny random base, artifacts in folders named by their hash, and `reference.json`. The weights are random and
large enough that each insertion turns the answer: nothing here needs a training, and a wrong position shows at once.
"""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from memgen.artifacts.artifact import save_artifact, save_lora
from memgen.artifacts.report import TrainingReport
from memgen.backbone.loading import load_backbone
from memgen.checked_files import write_json, write_manifest
from memgen.config import MemoryConfig
from memgen.generation.engine import generate
from memgen.generation.requests import GenerationRequest
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.memory.weights import Memory
from tests.fixtures_model import save_tiny_base
from tests.reference import ends_in_delimiter, open_context
from tests.reference_memory import ReferenceMemory

LETTERS = tuple("abcdefghijklmnop,.\n")
"""Delimiters that a random model writes often."""
SHAPES = {
    "upper": {"latents": 16, "max_insertions": 0},
    "lower": {"latents": 16, "max_insertions": 0},
    "again": {"latents": 8, "reread_tokens": 32, "max_insertions": 0},
    "many": {"latents": 8, "reread_tokens": 16, "inference_latents": 4, "max_insertions": 3, "delimiters": LETTERS},
    "short": {"latents": 4, "reread_tokens": 7, "inference_latents": 3, "max_insertions": 2, "delimiters": LETTERS},
    "never": {"latents": 4, "trigger": "never"},
    "undecided": {"latents": 4, "inference_latents": 2, "max_insertions": 1, "trigger": "head", "delimiters": LETTERS},
}
SERVED = [*SHAPES, "plain"]
REFUSED = {
    "embedding": {"latents": 4, "form": "embedding"},
    "decided": {"latents": 4, "trigger": "head"},
    "cued": {"latents": 4, "cue_tokens": 16},
    "isolated": {"latents": 4},
    "foreign": {"latents": 4},
    "untrained": {"latents": 4},
    "wide": {"latents": 4, "rank": 64},
    "broken": {"latents": 4},
}
REPORT = TrainingReport(1, 0, 0, 1, 1, 1.0, (1.0,), ())
FILL = "The quick brown fox jumps over the lazy dog while it rains. "
TEXTS = [
    *("Process the word garden.", "What is the capital of France?", "Hi", "List three colours."),
    *("Process the word mountain. " + FILL * 2, FILL * 3 + "Process the word coffee.", FILL * 3 + "Another word."),
]
SETTINGS: list[dict[str, Any]] = [
    {"frequency_penalty": 0.9},
    {"presence_penalty": 1.2},
    {"repetition_penalty": 1.3},
    {"frequency_penalty": 0.4, "presence_penalty": 0.4, "repetition_penalty": 1.1},
    {"min_tokens": 20, "logit_bias": {"2": 30.0}},
    {"logit_bias": {"40": 4.0}},
]
NEW_TOKENS = 32
END = 2


def main(out: Path) -> None:
    torch.set_num_threads(1)
    base = save_tiny_base(out / "base", hidden_size=128)
    other = save_tiny_base(out / "other-base", seed=1, hidden_size=128)
    host = AdapterHost(load_backbone(str(base), cache_dir=out, dtype=torch.float32))
    artifacts = {name: made(host, out, name, shape, seed) for seed, (name, shape) in enumerate(SHAPES.items())}
    artifacts["plain"] = _plain_lora(host, out)
    foreign = AdapterHost(load_backbone(str(other), cache_dir=out, dtype=torch.float32))
    for name, shape in REFUSED.items():
        artifacts[name] = made(foreign if name == "foreign" else host, out, name, shape, 9)
    write_json(
        out / "reference.json",
        {
            "artifacts": artifacts,
            "cases": cases(host, out, artifacts, SERVED, TEXTS),
            "settings": _literal(base, out, artifacts, host),
        },
    )


def made(host: AdapterHost, out: Path, name: str, shape: dict[str, Any], seed: int, spread: float = 0.15) -> str:
    """Hash of a new artifact. `spread` is the standard deviation of the LoRA's second factors."""
    memory = host.create(name, MemoryConfig(**{"rank": 8, **shape}), seed=seed)
    randomize(memory, torch.Generator().manual_seed(seed), spread)
    if name == "decided":
        torch.nn.init.normal_(memory.trigger_head.weight)
    if name == "isolated":
        (out / "isolated").mkdir()
        write_json(out / "isolated" / "isolated.json", {"format": 1, "task": "a", "others": {}})
    report = REPORT if name != "untrained" else TrainingReport(1, 0, 0, 0, 1, 1.0, (1.0,), ())
    return _named_by_hash(out, out / name, save_artifact(host, name, out / name, report))


def randomize(memory: Memory, generator: torch.Generator, spread: float = 0.15) -> None:
    """Let the weaver do something: a LoRA begins as nothing."""
    with torch.no_grad():
        for _, b in memory.weaver.factors.values():
            b.normal_(0, spread, generator=generator)


def _plain_lora(host: AdapterHost, out: Path) -> str:
    memory = Memory("plain", MemoryConfig(rank=8), host.backbone, host.backbone, seed=5)
    randomize(memory, torch.Generator().manual_seed(5))
    save_lora(memory.weaver, memory.config, str(out / "base"), out / "plain")
    return _named_by_hash(out, out / "plain", write_manifest(out / "plain"))


def _named_by_hash(out: Path, folder: Path, sha256: str) -> str:
    (out / "artifacts").mkdir(exist_ok=True)
    shutil.move(folder, out / "artifacts" / sha256)
    return sha256


@dataclass(frozen=True)
class Answer:
    """Tokens with the one that ended the answer, and the log probability of each under the model itself."""

    tokens: list[int]
    logprobs: list[float]
    positions: list[int]
    """How many tokens stand in front of each insertion."""


def _prompts(host: AdapterHost, texts: Sequence[str]) -> list[list[int]]:
    return [list(host.backbone.profile.prompt_ids([{"role": "user", "content": text}], None)) for text in texts]


def cases(
    host: AdapterHost, out: Path, artifacts: dict[str, str], names: Sequence[str], texts: Sequence[str]
) -> list[dict[str, Any]]:
    """Every text with three of the versions or the bare base, and one with all: by the engine, one by one."""
    mix: list[str | None] = [None, *names]
    prompts = _prompts(host, texts)
    pairs = [(prompt, mix[(n * 3 + k) % len(mix)]) for n, prompt in enumerate(prompts) for k in range(3)]
    pairs += [(prompts[0], name) for name in mix]
    for memory in host.memories.values():
        memory.weave_until_trigger_is_trained()
    found = []
    for prompt, name in pairs:
        if name == "plain":
            answer = _plain_answer(out, artifacts["plain"], prompt)
        else:
            sampling = Sampling(max_new_tokens=NEW_TOKENS, logprobs=True)
            [made] = generate(host, [GenerationRequest(tuple(prompt), sampling, name)])
            ended = made.end_token is not None
            answer = Answer(
                [*made.token_ids, *([made.end_token] if ended else [])],
                [*(made.logprobs or ()), *([made.end_logprob] if ended else [])],
                [decision.position for decision in made.insertions],
            )
        found.append({"prompt": prompt, "memory": name, **vars(answer)})
    return found


def _plain_answer(out: Path, sha256: str, prompt: list[int]) -> Answer:
    """By transformers and PEFT alone."""
    model = AutoModelForCausalLM.from_pretrained(out / "base", dtype=torch.float32)
    adapted = PeftModel.from_pretrained(model, str(out / "artifacts" / sha256)).eval()
    tokens, logprobs = list(prompt), []
    with torch.no_grad():
        while len(logprobs) < NEW_TOKENS:
            logits = adapted(torch.tensor([tokens])).logits[0, -1].float()
            tokens.append(int(logits.argmax()))
            logprobs.append(float(logits.log_softmax(-1)[tokens[-1]]))
            if tokens[-1] == END:
                break
    return Answer(tokens[len(prompt) :], logprobs, [])


@torch.no_grad()
def _literal(base: Path, out: Path, artifacts: dict[str, str], host: AdapterHost) -> list[dict[str, Any]]:
    """Answers under sampling settings, by the literal reference and the plain formulas."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(base)
    found = []
    for name in ("many", "short", None):
        memory = ReferenceMemory(model, out / "artifacts" / artifacts[name], tokenizer) if name else None
        for prompt in _prompts(host, TEXTS[:2]):
            for settings in SETTINGS:
                answer = _answer(memory, model, tokenizer, prompt, settings)
                found.append({"prompt": prompt, "memory": name, "settings": settings, **vars(answer)})
    return found


def _answer(
    memory: ReferenceMemory | None, model: Any, tokenizer: Any, prompt: list[int], settings: dict[str, Any]
) -> Answer:
    context = open_context(memory, model, prompt, ())
    answer: list[int] = []
    logprobs: list[float] = []
    positions: list[int] = []
    while len(answer) < NEW_TOKENS:
        if memory is not None:
            inside = len(positions) <= memory.max_insertions and ends_in_delimiter(
                context.tokens, memory.delimiters, tokenizer
            )
            if not answer or inside:
                positions.append(context.position)
                context.weave("inference_queries" if answer else "prompt_queries")
        raw = context.logits()[-1].float()
        token = _chosen(raw.clone(), prompt, answer, settings)
        logprobs.append(float(raw.log_softmax(-1)[token]))
        answer.append(token)
        if token == END:
            break
        context.append(token)
    return Answer(answer, logprobs, positions)


def _chosen(logits: torch.Tensor, prompt: list[int], answer: list[int], settings: dict[str, Any]) -> int:
    """The likeliest by the logits `(V,)`, with bias, limits and penalties in the order of vLLM."""
    for token, bias in settings.get("logit_bias", {}).items():
        logits[int(token)] += bias
    if len(answer) < settings.get("min_tokens", 0):
        logits[END] = -torch.inf
    seen = torch.zeros_like(logits, dtype=torch.bool)
    seen[[*prompt, *answer]] = True
    penalty = settings.get("repetition_penalty", 1.0)
    logits = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
    counts = torch.bincount(torch.tensor(answer, dtype=torch.long), minlength=len(logits))
    logits -= settings.get("frequency_penalty", 0.0) * counts
    logits -= settings.get("presence_penalty", 0.0) * (counts > 0)
    return int(logits.argmax())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
