"""The base that a server of vLLM has loaded, as artifacts name it: weights by revision, the rest by identity."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from transformers import AutoTokenizer, GenerationConfig

from memgen.backbone.identity import BaseIdentity
from memgen.backbone.sources import resolve
from memgen_vllm.errors import NotServed
from memgen_vllm.settings import PluginSettings


@dataclass(frozen=True)
class LoadedBase:
    name: str
    revision: str
    identity: BaseIdentity
    max_tokens: int
    """Longest context, in tokens."""

    @classmethod
    def of_model(cls, model_config: Any) -> Self:
        """The base of vLLM's `ModelConfig`, as `memgen.backbone.loading.read_base` would read it.

        That module is not used, for it needs PEFT and the decoders. Reads the weights' files once, for their hash.
        """
        name, revision = str(model_config.model), str(model_config.revision or "main")
        folder, exact = resolve(name, PluginSettings.of_environment().models, revision)
        source, local = (str(folder), True) if folder else (name, False)
        tokenizer = AutoTokenizer.from_pretrained(
            model_config.tokenizer or source, revision=revision, local_files_only=local
        )
        try:
            generation = GenerationConfig.from_pretrained(source, revision=revision, local_files_only=local)
        except OSError:
            generation = GenerationConfig.from_model_config(model_config.hf_config)
        found = exact or str(getattr(model_config.hf_config, "_commit_hash", None) or revision)
        return cls(name, found, BaseIdentity.of(tokenizer, generation), int(model_config.max_model_len))

    def check(self, described: Mapping[str, Any], path: Path) -> None:
        """Raise NotServed unless the artifact that `memory.json` describes was made for this base."""
        made_with = described.get("base_revision")
        if made_with != self.revision:
            raise NotServed(
                f"{path.parent.name}: base_revision is {made_with!r}, but this server has {self.name!r} at "
                f"{self.revision!r}; serve the base that it was trained on"
            )
        identity = described.get("base_identity")
        if identity is None:  # a release that knew the weights alone
            return
        if changed := BaseIdentity.from_mapping(identity).changed_parts(self.identity):
            raise NotServed(
                f"{path.parent.name}: made with another {' and another '.join(changed)} than this server's base "
                f"{self.name!r} has; a memory answers only to the very prompts that it was trained on"
            )

    def to_mapping(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "revision": self.revision,
            "identity": self.identity.to_mapping(),
            "max_tokens": self.max_tokens,
        }
