"""Configs as they are stored: names, order and defaults are read back from old jobs, and digests are made of them."""

from memgen.config import GrpoConfig, TriggerConfig

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
