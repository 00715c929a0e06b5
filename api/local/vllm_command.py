"""How the vLLM server of `memgen up --engine vllm` is called: interpreter, arguments, environment. Starts nothing.

It runs in an environment of its own, which `make vllm` makes.
"""

import json
import shlex
from pathlib import Path

from api.local.errors import ServerFailed
from api.local.ports import LOOPBACK
from registry.settings import Settings, child_environment
from registry.upstreams import load_upstreams

_ROOT = Path(__file__).resolve().parents[2]
_MOST_RANK = 64
_SLOTS = 8
"""Versions that may weave at the same time; a request of one more waits for a slot."""
_MOST_LOGPROBS = 20
_DTYPES = {"auto": "auto", "bfloat16": "bfloat16", "float32": "float32"}
PLUGIN_READS = (
    *("MEMGEN_HOME", "MEMGEN_MODEL_CACHE", "MEMGEN_S3_URL", "MEMGEN_S3_BUCKET", "MEMGEN_S3_REGION"),
    *("MEMGEN_VLLM_ARTIFACTS", "MEMGEN_VLLM_ARTIFACT_BYTES"),
)
"""What the plugin reads of the service's settings (`memgen_vllm.settings`)."""


def vllm_python(settings: Settings) -> Path:
    """The interpreter that has vLLM. Raises ServerFailed where there is none."""
    found = settings.vllm_python or _ROOT / ".venv-vllm" / "bin" / "python"
    if not found.expanduser().is_file():
        raise ServerFailed(
            f"There is no vLLM: {found} is missing. `make vllm` makes its environment. Or set MEMGEN_VLLM_PYTHON to "
            "the interpreter of one that has vLLM and packages/memgen-vllm, or MEMGEN_VLLM_URL to a running server."
        )
    return found.expanduser().absolute()


def vllm_command(settings: Settings, python: Path, base: str, port: int) -> list[str]:
    """The server on loopback. `base` is a folder or a hub id."""
    options = {
        "--model": base,
        "--served-model-name": "base",
        "--host": LOOPBACK,
        "--port": str(port),
        "--dtype": _DTYPES[settings.base_dtype],
        "--max-loras": str(_SLOTS),
        "--max-cpu-loras": str(max(_SLOTS, settings.cached_versions)),
        "--max-lora-rank": str(_MOST_RANK),
        "--max-logprobs": str(_MOST_LOGPROBS),
        # Ours decides what answers are drawn with, and its grammars are llguidance's.
        "--generation-config": "vllm",
        "--structured-outputs-config": json.dumps({"backend": "guidance"}),
    }
    if not Path(base).is_dir():
        options["--revision"] = settings.base_revision
    flags = ["--enable-lora", "--disable-uvicorn-access-log"]
    if settings.device == "cpu":
        flags.append("--enforce-eager")
    named = [part for option in options.items() for part in option]
    further = shlex.split(settings.vllm_arguments)
    return [str(python), "-m", "vllm.entrypoints.openai.api_server", *named, *flags, *further]


def vllm_environment(settings: Settings) -> dict[str, str]:
    """The environment of the server: what the plugin needs, and defaults that the user's own environment wins over.

    The service's secrets are not among it, but the object store's: it has no business with the database, the broker,
    keys of the API or of upstreams.

    Raises:
        NotConfigured: the file of upstreams can't be read.
    """
    defaults = {"VLLM_NO_USAGE_STATS": "1"}
    if settings.device == "cpu":
        # It shares its cores: threads that are bound, or wait for each other busily, would starve.
        defaults |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_WAIT_POLICY": "PASSIVE"}
        if settings.torch_threads:
            defaults["OMP_NUM_THREADS"] = str(settings.torch_threads)
    # Of the service's environment, and of no use to vLLM's.
    withheld = {"PYTHONPATH", *(upstream.api_key_env for upstream in load_upstreams(settings).values())}
    inherited = {
        name: value
        for name, value in child_environment(settings).items()
        if name in PLUGIN_READS or not (name.upper().startswith("MEMGEN_") or name in withheld)
    }
    return {**defaults, **inherited, "VLLM_PLUGINS": "memgen"}
