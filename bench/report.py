"""Where results stand, and on what machine they were measured; what every room writes, and no figure of any."""

import functools
import os
import platform
import subprocess
from pathlib import Path

import torch

from memgen.backbone.loading import Backbone

RESULTS = Path(__file__).parent / "results"


def machine_of(backbone: Backbone) -> str:
    """The processor or GPU in words."""
    if backbone.device.type == "cuda":
        return torch.cuda.get_device_name(backbone.device)
    information = Path("/proc/cpuinfo")
    lines = information.read_text().split("\n") if information.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"


@functools.cache
def commit() -> str | None:
    """Short name of the commit that is checked out, with `+` if the method or the benchmarks differ from it; None
    without git."""
    name = _git("rev-parse", "--short=7", "HEAD")
    changed = _git("status", "--porcelain", "--", "memgen", "bench", ":!bench/results")
    return f"{name}{'+' if changed else ''}" if name else None


def _git(*arguments: str) -> str | None:
    """What git answers in this repository; None if it can't."""
    try:
        ran = subprocess.run(["git", *arguments], cwd=RESULTS.parent.parent, capture_output=True, text=True, check=True)  # noqa: S603, S607  # fixed commands of whichever git there is
    except (OSError, subprocess.CalledProcessError):
        return None
    return ran.stdout.strip()
