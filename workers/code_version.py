"""Which code trained a version, and which code a process runs: the package's version and a hash of sources."""

import functools
import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import memgen

_METHOD = Path(memgen.__file__).parent
_WORKERS = ("memgen", "registry", "workers")
"""The packages that a worker runs."""


@functools.cache
def code_version() -> str:
    """A text such as `0.1.0+src.3fa2c1d09b7e`, equal only for equal sources of `memgen/`."""
    return _version_of([_METHOD])


@functools.cache
def worker_code() -> str:
    """The same of all that a worker runs."""
    return _version_of([_METHOD.parent / name for name in _WORKERS])


def _version_of(packages: list[Path]) -> str:
    digest = hashlib.sha256()
    for root in packages:
        for path in sorted(root.rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    try:
        package = version("memgen-service")
    except PackageNotFoundError:
        package = "0"
    return f"{package}+src.{digest.hexdigest()[:12]}"
