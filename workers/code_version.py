"""Which code trained a version: the package's version and a hash of the method's sources."""

import functools
import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import memgen


@functools.cache
def code_version() -> str:
    """A text such as `0.1.0+src.3fa2c1d09b7e`, equal only for equal sources of `memgen/`."""
    root = Path(memgen.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    try:
        package = version("memgen-service")
    except PackageNotFoundError:
        package = "0"
    return f"{package}+src.{digest.hexdigest()[:12]}"
