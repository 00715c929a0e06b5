"""Names of artifacts in requests: the hash of a manifest, alone or with its folder in the object store."""

import hashlib
import re
from dataclasses import dataclass
from typing import Self

_NAME = re.compile(r"(?:(?P<folder>projects/[0-9a-f-]{36}/artifacts)/)?(?P<sha256>[0-9a-f]{64})")


@dataclass(frozen=True)
class ArtifactName:
    """`sha256` of an artifact's manifest and, if known, its key in the object store."""

    sha256: str
    key: str | None

    @classmethod
    def parse(cls, model: str | None) -> Self | None:
        """The artifact that a request's `model` names; None if it is no artifact's name at all."""
        match = _NAME.fullmatch(model or "")
        if match is None:
            return None
        return cls(match["sha256"], match[0] if match["folder"] else None)

    @property
    def lora_id(self) -> int:
        """vLLM's number for the adapter, from its hash: 31 bits, never 0."""
        return int.from_bytes(hashlib.sha256(self.sha256.encode()).digest()[:4], "big") % (2**31 - 1) + 1
