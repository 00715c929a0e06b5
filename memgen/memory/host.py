"""The memories that are loaded beside one frozen base."""

from collections.abc import Sequence

import torch

from memgen.backbone.loading import Backbone
from memgen.config import MemoryConfig
from memgen.errors import ConfigError
from memgen.experience.cue import NO_CUE, Cue
from memgen.memory.weights import Memory
from memgen.text.answers import ChatMessage


class AdapterHost:
    """Memories by name. One copy of the base's weights serves all of them; it is never wrapped or changed."""

    def __init__(self, backbone: Backbone, *weaver_bases: Backbone) -> None:
        """`weaver_bases` are other bases that weavers of form `embedding` may run on."""
        self.backbone = backbone
        self._weaver_bases = {base.name: base for base in weaver_bases}
        self.memories: dict[str, Memory] = {}

    def create(self, name: str, config: MemoryConfig, *, seed: int | None = 0) -> Memory:
        """A new, untrained memory. Its LoRA starts as the identity (B = 0). None as the seed leaves it blank, for an
        artifact to fill.

        Raises:
            ConfigError: the base lacks a target module, or form `lora` would adapt its head, or the weaver's base is
                not loaded, or the memory leaves nothing of the base's context.
        """
        self._check_head(config)
        if config.most_woven >= self.backbone.max_tokens:
            raise ConfigError(
                f"the memory weaves up to {config.most_woven} tokens, of {self.backbone.max_tokens} that "
                f"{self.backbone.name!r} takes; lower reread_tokens, latents or max_insertions"
            )
        memory = Memory(name, config, self.backbone, self.weaver_base(config), seed=seed)
        self.memories[name] = memory
        return memory

    @property
    def weaver_bases(self) -> tuple[Backbone, ...]:
        """Every base that a weaver may run on, the reasoner's own first."""
        return (self.backbone, *self._weaver_bases.values())

    def weaver_base(self, config: MemoryConfig) -> Backbone:
        """The base that the weaver of such a memory runs on."""
        if not config.weaver_base or config.weaver_base == self.backbone.name:
            return self.backbone
        if config.weaver_base not in self._weaver_bases:
            raise ConfigError(
                f"the memory's weaver runs on {config.weaver_base!r}; loaded are {self.backbone.name!r} and "
                f"{sorted(self._weaver_bases)}. Give that base to the host."
            )
        return self._weaver_bases[config.weaver_base]

    def longest_example(self, memory: str) -> int:
        """Tokens of prompt and answer that fit the reasoner's context whatever memory is woven beside them."""
        return self.backbone.max_tokens - self.memories[memory].config.most_woven

    def copy(self, source: str, target: str) -> None:
        """Give the memory `target` the weights and the experience of `source`, which has the same config."""
        old, new = self.memories[source], self.memories[target]
        if old.config != new.config:
            raise ConfigError(
                f"a memory can only go on from one of the same config; got {new.config}, the parent has {old.config}"
            )
        with torch.no_grad():
            for theirs, ours in zip(old.every_parameter(), new.every_parameter(), strict=True):
                ours.copy_(theirs)
        new.recall = old.recall

    def cues(
        self, memory: str | None, conversations: Sequence[Sequence[ChatMessage]], *, leave_one_out: bool = False
    ) -> list[Cue]:
        """What the weaver of `memory` reads beside each conversation (`Recall.cues`); empty ones if it reads nothing
        there, and for the bare base."""
        recall = None if memory is None else self.memories[memory].recall
        if recall is None:
            return [NO_CUE] * len(conversations)
        return recall.cues(conversations, leave_one_out=leave_one_out)

    def _check_head(self, config: MemoryConfig) -> None:
        model = self.backbone.model
        head = model.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        names = [name.rpartition(".")[2] for name, module in model.named_modules() if module is head]
        if config.form == "lora" and (adapted := set(names) & set(config.target_modules)):
            raise ConfigError(
                f"target_modules names {sorted(adapted)}, the head of {self.backbone.name!r}, which a version of form "
                "'lora' leaves as it is; name layers in front of it"
            )

    def remove(self, name: str) -> None:
        """Drop a memory and free its tensors."""
        del self.memories[name]
