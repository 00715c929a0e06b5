"""What a base is beside its weights: short hashes of its tokenizer, its chat template and its generation config.

A memory is trained on tokens, and which tokens a conversation becomes is decided by these three as much as by the
weights. Hashed is what they say, not how the files are written: key order, white space, and what a release of a library
stamps on them make no difference, and a local copy has the identity of the hub's.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from transformers import GenerationConfig, PreTrainedTokenizerBase

_HASH_CHARACTERS = 16

_STATE_OF_A_TOKENIZER = ("truncation", "padding", "version")
"""Set by its last call, or by the library."""

_NOT_OF_THE_TEXT = frozenset(
    {
        *("transformers_version", "use_cache", "cache_implementation", "cache_config", "compile_config"),
        *("output_attentions", "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate"),
        *("return_legacy_cache", "disable_compile", "is_assistant"),
    }
)
"""Fields of a generation config that no answer depends on."""

FILES = {
    "tokenizer": "tokenizer (tokenizer.json, tokenizer_config.json, special_tokens_map.json, added_tokens.json)",
    "chat_template": "chat template (chat_template.jinja, or `chat_template` of tokenizer_config.json)",
    "generation_config": "generation config (generation_config.json)",
}
"""Each part in words, with the files that it is read from."""


@dataclass(frozen=True)
class BaseIdentity:
    tokenizer: str
    chat_template: str
    generation_config: str

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, generation_config: GenerationConfig | None) -> Self:
        """The identity of loaded objects."""
        return cls(
            tokenizer=_hash(_tokenizer_content(tokenizer)),
            chat_template=_hash(_template_content(tokenizer.chat_template)),
            generation_config=_hash(_generation_content(generation_config)),
        )

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, str]) -> Self:
        """Parts that another release may have added are left out; a part that is missing is empty."""
        return cls(**{field.name: str(mapping.get(field.name, "")) for field in fields(cls)})

    def to_mapping(self) -> dict[str, str]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def changed_parts(self, other: Self) -> list[str]:
        """In words, with their files, the parts in which two bases differ."""
        theirs = other.to_mapping()
        return [FILES[name] for name, value in self.to_mapping().items() if theirs[name] != value]


def _hash(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_CHARACTERS]


def _tokenizer_content(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    named = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    content: dict[str, Any] = {
        "named": named,
        "cleans_up": bool(getattr(tokenizer, "clean_up_tokenization_spaces", False)),
    }
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # a tokenizer in Python
        added = {str(number): str(token) for number, token in tokenizer.added_tokens_decoder.items()}
        return content | {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab(), "added": added}
    rules = json.loads(backend.to_str())
    model = rules.pop("model")
    vocabulary, merges = model.pop("vocab", None), model.pop("merges", None) or []
    return content | {
        "rules": _without_absent({name: value for name, value in rules.items() if name not in _STATE_OF_A_TOKENIZER}),
        "model": _without_absent(model),
        "vocabulary": vocabulary,
        # Older files join the two with a space.
        "merges": [merge.split(" ") if isinstance(merge, str) else merge for merge in merges],
    }


def _template_content(template: Any) -> Any:
    if isinstance(template, dict):
        named = {name: _template_content(text) for name, text in template.items()}
        return named["default"] if list(named) == ["default"] else named
    # Jinja reads both line ends alike, and drops one at the end.
    return template and str(template).replace("\r\n", "\n").removesuffix("\n")


def _generation_content(config: GenerationConfig | None) -> dict[str, Any]:
    found = config.to_dict() if config is not None else {}
    kept = {name: value for name, value in found.items() if name not in _NOT_OF_THE_TEXT and name[:1] != "_"}
    end = kept.get("eos_token_id")
    if end is not None:
        kept["eos_token_id"] = sorted(end) if isinstance(end, list) else [end]
    return dict(json.loads(json.dumps(_without_absent(kept), default=str)))


def _without_absent(value: Any) -> Any:
    """The value without what is null or off in its objects: a release of a library adds such fields by itself."""
    if isinstance(value, dict):
        return {name: _without_absent(each) for name, each in value.items() if each is not None and each is not False}
    return [_without_absent(each) for each in value] if isinstance(value, list) else value
