"""What is known here of the memory that a server weaves: its description, and whether the server can serve it.

Only an artifact's manifest and description are fetched, a few kilobytes, and kept: an artifact never changes.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from api.inference.requests import MemorySource
from memgen.artifacts.artifact import FORMAT
from memgen.config import MemoryConfig
from memgen.errors import ArtifactCorrupt, PromptTooLong
from memgen.generation.requests import Decision
from memgen.generation.sampling import Sampling
from memgen.text.delimiters import DelimiterMatcher
from registry.errors import Conflict

_KEPT = 1000
"""Descriptions that are kept; one takes some kilobytes."""
_MANIFEST, _DESCRIPTION, _BY_TASK = "manifest.json", "memory.json", "isolated.json"


class NotServedByEngine(Conflict):
    """The engine that this service runs on can't weave such a memory; another can."""


@dataclass(frozen=True)
class WovenMemory:
    """A memory as a server weaves it."""

    config: MemoryConfig

    @property
    def weaves(self) -> bool:
        return self.config.trigger != "never"

    def decisions(
        self, tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int], answer_ids: Sequence[int]
    ) -> tuple[Decision, ...]:
        """Where it was woven, which its config and the tokens decide.

        Args:
            answer_ids: with the token that ended the answer, if one did.
        """
        if not self.weaves:
            return ()
        config, at = self.config, len(prompt_ids)
        first = Decision(at - 1, 1.0, True, config.latents, len(config.tokens_to_reread(prompt_ids)))
        if not config.max_insertions:
            return (first,)
        matcher = DelimiterMatcher.of(tokenizer, config.delimiters)
        points = matcher.insertion_points([*prompt_ids, *answer_ids], at, config.max_insertions)
        return (first, *(Decision(point, 1.0, True, config.inference_latents) for point in points))


class KnownMemories:
    """Memories by the sha256 of their artifact's manifest. Used by several threads; two may fetch the same."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, WovenMemory] = OrderedDict()

    def known(self, source: MemorySource) -> WovenMemory | None:
        """The memory, if it was found before. Waits for nothing."""
        return self._known.get(source.manifest_sha256)

    def find(self, source: MemorySource) -> WovenMemory:
        """The memory, its description fetched if need be.

        Raises:
            NotServedByEngine: the server can't weave it, and why.
            ArtifactCorrupt: its description is not what the registry recorded.
            ObjectNotFound, StoreUnavailable: raised by the object store.
        """
        if (known := self.known(source)) is not None:
            return known
        manifest = _read_manifest(source)
        description = _read_description(source, manifest)
        if description.get("format") != FORMAT:
            raise not_served(source, f"its artifact has format {description.get('format')!r}, not {FORMAT}")
        config = MemoryConfig.from_mapping(description["config"])
        if reason := _unserved(config, manifest, description):
            raise not_served(source, reason)
        self._known[source.manifest_sha256] = found = WovenMemory(config)
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return found


def not_served(source: MemorySource, reason: str) -> NotServedByEngine:
    return NotServedByEngine(
        f"{source.label or source.name} can't be answered by the engine vllm: {reason}. Send the request to a service "
        "whose engine is local, or train a version without that"
    )


def check_room(prompt_ids: Sequence[int], sampling: Sampling, memory: WovenMemory | None, context_tokens: int) -> None:
    """Raise PromptTooLong unless prompt, all that may be woven, and answer fit the context."""
    latents = reread = 0
    if memory is not None and memory.weaves:
        latents, reread = memory.config.most_latents, len(memory.config.tokens_to_reread(prompt_ids))
    needed = len(prompt_ids) + reread + latents + sampling.max_new_tokens
    if needed > context_tokens:
        raise PromptTooLong(
            f"the prompt has {len(prompt_ids)} tokens; with {f'{reread} read again, ' if reread else ''}"
            f"{latents} latents and {sampling.max_new_tokens} new tokens that is {needed}, more than the model's "
            f"{context_tokens}. Shorten the messages or lower max_tokens."
        )


def _unserved(config: MemoryConfig, manifest: dict[str, str], description: dict[str, Any]) -> str | None:
    """Why the server would refuse the memory, in words; None if nothing is known against it."""
    if config.form not in ("cache", "lora"):
        return f"it has form {config.form!r}, and only 'cache' and 'lora' are served there"
    if config.trigger in ("lora", "head") and "trigger" in description.get("trained", ()):
        return f"its trigger {config.trigger!r} was trained, and only 'always' and 'never' are decided there"
    if config.cue_tokens:
        return f"its weaver reads cues of {config.cue_tokens} tokens"
    if _BY_TASK in manifest:
        return "it has a memory for each task, and no router chooses among them there"
    return None


def _read_manifest(source: MemorySource) -> dict[str, str]:
    data = _read(source, _MANIFEST)
    if (found := hashlib.sha256(data).hexdigest()) != source.manifest_sha256:
        raise ArtifactCorrupt(f"{_MANIFEST}: sha256 is {found}, the registry recorded {source.manifest_sha256}")
    return _parsed(_MANIFEST, data)


def _read_description(source: MemorySource, manifest: dict[str, str]) -> dict[str, Any]:
    data = _read(source, _DESCRIPTION)
    if (found := hashlib.sha256(data).hexdigest()) != manifest.get(_DESCRIPTION):
        raise ArtifactCorrupt(f"{_DESCRIPTION}: sha256 is {found}, {_MANIFEST} says {manifest.get(_DESCRIPTION)}")
    return _parsed(_DESCRIPTION, data)


def _read(source: MemorySource, name: str) -> bytes:
    if source.read_file is None:
        raise ArtifactCorrupt(f"{source.label or source.name} has no place in the object store to read {name} from")
    return source.read_file(name)


def _parsed(name: str, data: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(data))
    except (ValueError, TypeError) as error:
        raise ArtifactCorrupt(f"{name} is no JSON object: {error}") from error
