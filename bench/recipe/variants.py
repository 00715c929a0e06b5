"""Variants that `python -m bench.recipe` compares: recipes of a memory, one change apart, and LoRA SFT."""

from dataclasses import dataclass, field
from typing import Any

from bench.plain_lora import SHAPE
from bench.report import RESULTS

RESULTS_FILE = RESULTS / "recipe.json"
"""Each variant's curve, by task and name."""
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
QUERY_VALUE = SHAPE.target_modules


@dataclass(frozen=True)
class Variant:
    """A memory, or LoRA SFT of the base, and how it is trained; what is not named is the default."""

    memory: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    start: str | None = None
    """Start of the queries of form `cache` (`bench.recipe.first_loss.start_queries`); None is a fresh memory's own."""
    lora_rate: float | None = None
    """Learning rate of LoRA SFT of the base instead of a memory."""
    lora_modules: tuple[str, ...] = QUERY_VALUE
    """Layers that LoRA SFT adapts."""


_EIGHT = {"latents": 8, "inference_latents": 8}
"""K of all recipes before the present one."""


def _first(insertions: int, memory: dict[str, Any] | None = None, **training: Any) -> Variant:
    """These changes of the first recipe: queries from random tokens, LoRA on q and v, 10 steps of warmup."""
    shape: dict[str, Any] = {**_EIGHT, "max_insertions": insertions, "target_modules": QUERY_VALUE, **(memory or {})}
    rates: dict[str, Any] = {"learning_rate": 4e-3, "query_learning_rate": 4e-3, "warmup_steps": 10}
    return Variant(shape, {**rates, "query_start": "words", **training}, start="random tokens")


def _second(memory: dict[str, Any] | None = None, **training: Any) -> Variant:
    """These changes of the second recipe: all queries are line breaks, LoRA on q and v."""
    rates = {"learning_rate": 4e-3, "query_learning_rate": 4e-3}
    shape = {**_EIGHT, "target_modules": QUERY_VALUE, **(memory or {})}
    return Variant(shape, {**rates, "query_start": "words", **training}, start="line breaks")


def _third(memory: dict[str, Any] | None = None, **training: Any) -> Variant:
    """These changes of the third recipe: the prompt's queries are a sentence, LoRA on all linear layers."""
    shape = {**_EIGHT, "target_modules": LINEAR, **(memory or {})}
    return Variant(shape, {**_LOWER, "query_start": "words", **training})


_LOWER: dict[str, Any] = {"learning_rate": 2e-3, "query_learning_rate": 2e-3}

VARIANTS = {
    "defaults": Variant(),
    "defaults, prompt only": Variant({"max_insertions": 0}),
    "defaults, K 32": Variant({"latents": 32}),
    "defaults, K 8 inside": Variant({"inference_latents": 8}),
    "defaults, twice the steps": Variant(training={"steps": 120}),
    "a sentence": _third(),
    "a sentence, prompt only": _third({"max_insertions": 0}),
    "a sentence, rank 32": _third({"rank": 32, "alpha": 64}),
    "a sentence, K 16": _third({"latents": 16}),
    "prompt only": _first(0),
    "prompt only, rates 2e-3": _first(0, **_LOWER),
    "prompt only, rates 8e-3": _first(0, learning_rate=8e-3, query_learning_rate=8e-3),
    "prompt only, K 2": _first(0, {"latents": 2}),
    "prompt only, K 32": _first(0, {"latents": 32}),
    "prompt only, q k v o": _first(0, {"target_modules": LINEAR[:4]}),
    "prompt only, all linear": _first(0, {"target_modules": LINEAR}),
    "prompt only, all linear, alpha 128": _first(0, {"target_modules": LINEAR, "alpha": 128}),
    "interleaved": _first(5),
    "interleaved, all linear": _first(5, {"target_modules": LINEAR}),
    "interleaved, rates 8e-3": _first(5, learning_rate=8e-3, query_learning_rate=8e-3),
    "interleaved, warmup 3": _first(5, warmup_steps=3),
    "interleaved, K 2 inside": _first(5, {"inference_latents": 2}),
    "interleaved, embedding": _first(5, {"form": "embedding"}),
    "line breaks": _second(),
    "line breaks, K 32": _second({"latents": 32}),
    "line breaks, all linear": _second({"target_modules": LINEAR}),
    "line breaks, all linear, rates 2e-3": _second({"target_modules": LINEAR}, **_LOWER),
    "line breaks, rates 2e-3": _second(**_LOWER),
    "line breaks, rates 8e-3": _second(learning_rate=8e-3, query_learning_rate=8e-3),
    "line breaks, twice the steps": _second(steps=120),
    "LoRA SFT 1e-3": Variant(training={"warmup_steps": 10}, lora_rate=1e-3),
    "LoRA SFT 2e-3": Variant(training={"warmup_steps": 10}, lora_rate=2e-3),
    "LoRA SFT 2e-3, warmup 3": Variant(lora_rate=2e-3),
    "LoRA SFT 1e-3, all linear": Variant(lora_rate=1e-3, lora_modules=LINEAR),
}
