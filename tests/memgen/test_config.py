"""Configs as they are stored: names, order and defaults are read back from old jobs, and digests are made of them."""

from dataclasses import fields, replace
from typing import Any

import pytest

from memgen.config import GrpoConfig, MemoryConfig, TriggerConfig
from memgen.errors import ConfigError

COMMON_END = {
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "seed": 0,
    "prompt_cache_bytes": 4_000_000_000,
    "activation_checkpointing": False,
}


def test_a_weavers_grpo_is_stored_as_ever() -> None:
    expected = {
        "steps": 100,
        "items_per_step": 8,
        "devices": 1,
        "group_size": 8,
        "iterations": 1,
        "loss": "bnpo",
        "eps_low": 0.2,
        "eps_high": 0.2,
        "kl_coefficient": 0.0,
        "temperature": 1.0,
        "trigger_temperature": 1.0,
        "max_new_tokens": 256,
        "rollout_batch_size": 64,
        "batch_size": 8,
        "learning_rate": 1e-4,
        "query_learning_rate": 1e-4,
        "warmup_steps": 5,
        **COMMON_END,
    }
    assert list(GrpoConfig().to_mapping().items()) == list(expected.items())
    assert GrpoConfig.from_mapping(expected) == GrpoConfig()


def test_a_triggers_grpo_is_stored_as_ever() -> None:
    expected = {
        "steps": 60,
        "items_per_step": 8,
        "devices": 1,
        "group_size": 8,
        "penalty": 0.1,
        "entropy_coefficient": 0.0,
        "iterations": 1,
        "loss": "bnpo",
        "eps_low": 0.2,
        "eps_high": 0.2,
        "temperature": 0.0,
        "max_new_tokens": 256,
        "rollout_batch_size": 64,
        "batch_size": 32,
        "learning_rate": 2e-4,
        "head_learning_rate": 5e-4,
        "warmup_steps": 2,
        **COMMON_END,
    }
    assert list(TriggerConfig().to_mapping().items()) == list(expected.items())
    assert TriggerConfig.from_mapping(expected) == TriggerConfig()


def test_a_plain_lora_weaves_nothing_and_is_stored_so() -> None:
    plain = MemoryConfig.from_mapping({"form": "lora", "rank": 8})
    assert plain == MemoryConfig(form="lora", rank=8)
    assert (plain.rank, plain.alpha, plain.target_modules) == (8, 32, MemoryConfig().target_modules)
    assert (plain.trigger, plain.most_latents, plain.most_woven, plain.delimiters) == ("never", 0, 0, ())
    assert MemoryConfig.from_mapping(plain.to_mapping()) == plain
    assert replace(plain, rank=4) == MemoryConfig(form="lora", rank=4)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("trigger", trigger) for trigger in ("always", "lora", "head")),
        *((name, 16) for name in ("latents", "inference_latents", "reread_tokens", "max_insertions", "cue_tokens")),
        *(("delimiters", [","]), ("weaver_base", "other"), ("cue_states", True), ("cue_insights", 3)),
    ],
)
def test_what_a_plain_lora_has_not_is_refused_by_name(name: str, value: Any) -> None:
    """Also where it is what a memory has by default: whoever names it expects something of it."""
    with pytest.raises(ConfigError, match=rf"^{name} is .*form 'lora' weaves no memory"):
        MemoryConfig.from_mapping({"form": "lora", name: value})


def test_every_field_is_a_loras_or_refused_by_it() -> None:
    plain, memory = MemoryConfig(form="lora").to_mapping(), MemoryConfig().to_mapping()
    unlike = {field.name for field in fields(MemoryConfig) if plain[field.name] != memory[field.name]}
    assert unlike == {"form", "trigger", "latents", "inference_latents", "max_insertions", "delimiters"}
    with pytest.raises(ConfigError, match="reread_tokens is 5"):
        MemoryConfig(form="lora", reread_tokens=5)
