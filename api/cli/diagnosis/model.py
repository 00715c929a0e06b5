"""Checks of what computes: torch and its device, threads, the base's files, a vLLM server where that is the engine."""

import asyncio
import math
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from api.cli.diagnosis.findings import Check, Diagnosis, Installation, fail, ok, skip, warn
from api.inference.vllm.dispatch import check_same_base
from api.inference.vllm.servers import CONNECT_SECONDS, VllmServer
from api.local.errors import ServerFailed
from api.local.vllm_command import vllm_python
from memgen.backbone.loading import BaseFiles, fastest_dtype, find_revision, read_base
from memgen.backbone.sources import WHEEL_MODELS, unpacked_folder, wheel_file
from memgen.errors import MemgenError
from registry.settings import Settings

_CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")
_HASHED_BYTES = 4_000_000_000
"""Weights that are read to name their revision; larger ones take longer than somebody waits for a report."""
_CUDA_BUILD = "Install a build of torch for CUDA: README, under `A GPU`"


def _torch(settings: Settings) -> Diagnosis:
    build = f"torch {torch.__version__}, built for {f'CUDA {torch.version.cuda}' if torch.version.cuda else 'CPUs'}"
    try:
        device = torch.device(settings.device)
    except RuntimeError as error:
        found = f"{build}; MEMGEN_DEVICE: {str(error).partition('. ')[0]}"
        return fail("torch", found, "Set it to cpu, cuda or cuda:1")
    if device.type == "cuda" and not torch.cuda.is_available():
        mend = "Look at the driver (`nvidia-smi`), or set MEMGEN_DEVICE=cpu" if torch.version.cuda else _CUDA_BUILD
        return fail("torch", f"{build}; MEMGEN_DEVICE is {device}, and torch sees no GPU", mend)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = f"{build}; MEMGEN_DEVICE is {device}, and torch sees {torch.cuda.device_count()}"
        return fail("torch", found, "Set MEMGEN_DEVICE to one that is there; the first is cuda:0")
    if device.type == "cpu" and torch.cuda.is_available():
        return warn("torch", f"{build}; a GPU is there, and MEMGEN_DEVICE is cpu", "MEMGEN_DEVICE=cuda uses it")
    return _dtype(settings, f"{build}, on {device}")


def _dtype(settings: Settings, found: str) -> Diagnosis:
    fastest = str(fastest_dtype(settings.device)).removeprefix("torch.")
    if settings.base_dtype == "bfloat16" and fastest == "float32":
        found += "; MEMGEN_BASE_DTYPE is bfloat16, which this CPU does not multiply in hardware"
        return warn("torch", found, "MEMGEN_BASE_DTYPE=auto takes float32, which is much faster here")
    return ok("torch", f"{found} in {fastest if settings.base_dtype == 'auto' else settings.base_dtype}")


def _threads(settings: Settings) -> Diagnosis:
    cores, threads = usable_cores(_CGROUP_LIMIT), settings.torch_threads or torch.get_num_threads()
    found = f"{threads} for torch in each process, {cores} cores"
    if threads > cores:
        advice = f"MEMGEN_TORCH_THREADS={cores}, or less where processes share them: more threads wait for each other"
        return warn("threads", found, advice)
    return ok("threads", found)


def usable_cores(limit: Path) -> int:
    """How many cores this process may use, as its affinity and the limit of its container say."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = limit.read_text(encoding="ascii").split()
        return min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no such file, or no limit: `max 100000`
        return cores


def _base(settings: Settings) -> Diagnosis:
    try:
        return _files_of(settings, settings.base_model, settings.models_dir.expanduser())
    except MemgenError as error:
        return fail("base model", str(error), "`memgen base check` says whether a base can be worked with")


def _half_unpacked(settings: Settings) -> Iterator[Diagnosis]:
    name = settings.base_model
    folders = settings.models_dir.expanduser().glob(f"{name}?*") if name in WHEEL_MODELS else ()
    if begun := [str(folder) for folder in folders if folder.is_dir()]:
        found = f"half unpacked, by what was killed or runs now: {', '.join(begun)}"
        yield warn("base model", found, "Remove it once nothing starts")


def _files_of(settings: Settings, name: str, models: Path) -> Diagnosis:
    folder = Path(name) if Path(name).is_dir() else None
    if folder is None and name in WHEEL_MODELS:
        folder = unpacked_folder(name, models)
        if folder is None:
            found = f"{name} is in its wheel ({wheel_file(name).name}), and not unpacked to {models} yet"
            return warn("base model", found, "The first start does it, or `memgen base check` now")
    if folder is None:
        try:
            config = try_to_load_from_cache(name, "config.json", revision=settings.base_revision)
        except HFValidationError:
            advice = "Set MEMGEN_BASE_MODEL to a folder, a wheel's model or a hub id such as owner/name"
            return fail("base model", f"{name} is no folder, and can't be a model of the hub", advice)
        if not isinstance(config, str):
            found = f"{name} is no folder, and revision {settings.base_revision} is not in the hub's cache"
            return warn("base model", found, "The first start downloads it, if there is such a model on the hub")
        return ok("base model", f"{name} at {Path(config).parent.name}, in the hub's cache")
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if size > _HASHED_BYTES:
        return ok("base model", f"{name}, {size / 1e9:.0f} GB; `memgen base check` names its revision")
    return ok("base model", f"{name} at {find_revision(name, cache_dir=models)}")


def _vllm(settings: Settings, ours: BaseFiles) -> Iterator[Diagnosis]:
    async def look_at_all() -> list[VllmServer]:
        async with httpx.AsyncClient(timeout=CONNECT_SECONDS, trust_env=False) as client:
            servers = [VllmServer(url, client) for url in settings.vllm_urls]
            await asyncio.gather(*(server.look(partial(check_same_base, ours=ours)) for server in servers))
            return servers

    for server in asyncio.run(look_at_all()):
        if server.found is None:
            mend = "Start it with the plugin memgen-vllm and this service's base; docs/serving.md"
            yield fail("vLLM", f"{server.url}: {server.reason}", mend)
        else:
            yield ok("vLLM", f"{server.found.name} at {server.found.revision}, {server.url}")


def _vllm_environment(settings: Settings) -> Diagnosis:
    try:
        python = vllm_python(settings)
    except ServerFailed as error:
        return fail("vLLM", str(error), "docs/serving.md has the steps")
    return warn("vLLM", f"no server is named or started; its environment is {python}", "`memgen up --engine vllm`")


def _computing(installation: Installation) -> Iterator[Diagnosis]:
    """One after the other: they read the same packages and files."""
    settings = installation.settings
    yield _torch(settings)
    yield _threads(settings)
    yield (base := _base(settings))
    yield from _half_unpacked(settings)
    if settings.engine != "vllm":
        return
    if not settings.vllm_urls:
        yield _vllm_environment(settings)
    elif base.state != "ok":
        yield skip("vLLM", "its base is compared with the one here, which is not there")
    else:
        name, models = settings.base_model, settings.models_dir
        yield from _vllm(settings, read_base(name, cache_dir=models, revision=settings.base_revision))


CHECKS = (Check("model", _computing),)
