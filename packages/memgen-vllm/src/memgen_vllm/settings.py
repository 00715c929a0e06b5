"""The plugin's settings, read from the environment in this one place. Those of the object store are the service's."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_GIB = 1 << 30


@dataclass(frozen=True)
class PluginSettings:
    s3_url: str | None
    """`http://access_key:secret_key@host:port`; None serves only what lies in `folder` already."""
    s3_bucket: str
    s3_region: str
    folder: Path
    """Where artifacts lie on this machine, each in a folder named by its hash."""
    max_bytes: int
    """Bytes that artifacts may take there; the least recently used goes first."""
    models: Path
    """Folder of base models that wheels carry (`memgen.backbone.sources`)."""

    @classmethod
    def of_environment(cls) -> Self:
        home = Path(os.environ.get("MEMGEN_HOME") or Path.home() / ".memgen").expanduser().absolute()
        return cls(
            s3_url=os.environ.get("MEMGEN_S3_URL") or None,
            s3_bucket=os.environ.get("MEMGEN_S3_BUCKET", "memgen"),
            s3_region=os.environ.get("MEMGEN_S3_REGION", "us-east-1"),
            folder=Path(os.environ.get("MEMGEN_VLLM_ARTIFACTS") or home / "vllm-artifacts").absolute(),
            max_bytes=int(os.environ.get("MEMGEN_VLLM_ARTIFACT_BYTES") or 20 * _GIB),
            models=Path(os.environ.get("MEMGEN_MODEL_CACHE") or home / "models"),
        )
