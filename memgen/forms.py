"""Forms of a version, how large their fields may be, and what a plain LoRA of the base has not.

A memory (`cache`, `embedding`) is woven into the context of the bare base. Form `lora` is no memory: the adapter is on
for every token of prompt and answer, and nothing is woven. It is described by the same config (`memgen.config`), in
which whatever shapes a memory then says that there is none.
"""

from collections.abc import Mapping
from typing import Any

from memgen.config_mapping import require

FORMS = ("cache", "embedding", "lora")
NOTHING_WOVEN: Mapping[str, Any] = {
    "trigger": "never",
    "latents": 0,
    "inference_latents": 0,
    "reread_tokens": 0,
    "max_insertions": 0,
    "delimiters": (),
    "weaver_base": "",
    "cue_tokens": 0,
    "cue_states": False,
    "cue_insights": 0,
}
"""Fields of a `MemoryConfig` that shape a memory, as form `lora` has them."""
_RANGES = {
    "latents": (1, 256),
    "inference_latents": (1, 256),
    "reread_tokens": (0, 4096),
    "max_insertions": (0, 1000),
    "rank": (1, 512),
    "alpha": (1, 8192),
    "cue_tokens": (0, 4096),
    "cue_insights": (0, 32),
}
"""Least and most of a `MemoryConfig`'s numbers."""
_MOST_TEXTS, _LONGEST_TEXT = 256, 256
"""How many texts a list of a `MemoryConfig` has at most, and how many characters each."""
_SETTINGS_OF_MEMORIES = ("query_learning_rate", "query_start", "prefix_cache_bytes", "trigger_temperature")
"""Settings of trainings that are about queries, decisions, or what the bare base has read."""


def check_sizes(form: str, values: Mapping[str, Any]) -> None:
    """Raise ConfigError if a number that the form has is out of its range, or a list or text in one too long."""
    for name, (least, most) in _RANGES.items():
        has = form != "lora" or name not in NOTHING_WOVEN
        require(not has or least <= values[name] <= most, f"{name} is {values[name]}; expected {least} to {most}")
    for name in ("delimiters", "target_modules"):
        texts = values[name]
        require(
            len(texts) <= _MOST_TEXTS and all(len(text) <= _LONGEST_TEXT for text in texts if isinstance(text, str)),
            f"{name} has {len(texts)} texts; expected at most {_MOST_TEXTS}, each of {_LONGEST_TEXT} characters",
        )


def check_named(values: Mapping[str, Any]) -> None:
    """Raise ConfigError if an object of form `lora` names a field that only a memory has."""
    for name in NOTHING_WOVEN.keys() & values.keys():
        given = tuple(values[name]) if isinstance(values[name], list) else values[name]
        refuse_unless(given == NOTHING_WOVEN[name], name, values[name])


def check_settings(form: str, training: Mapping[str, Any]) -> None:
    """Raise ConfigError if the settings named for a training do nothing for a version of this form."""
    named = [name for name in _SETTINGS_OF_MEMORIES if name in training]
    require(
        form != "lora" or not named,
        f"training names {named}, which form 'lora' has no use for: it weaves no memory, and reads prompts itself; "
        "leave them out",
    )


def refuse_unless(fits: bool, name: str, value: Any) -> None:
    """Raise ConfigError, of form `lora` and a field that only a memory has, unless the value fits."""
    require(
        fits,
        f"{name} is {value!r}, but form 'lora' weaves no memory: it has rank, alpha and target_modules alone; leave "
        f"{name} out, or choose form 'cache'",
    )
