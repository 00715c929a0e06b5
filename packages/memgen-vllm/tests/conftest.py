"""Fixtures of the plugin's tests: references by the service's environment, engines by this one (`make test-vllm`).

Engines run in float32, one at a time, and in this process where the tests look inside.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

# Before vLLM is imported. One thread: these tests share their cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ["VLLM_PLUGINS"] = "memgen"

ROOT = Path(__file__).resolve().parents[3]
REFERENCE = Path(__file__).with_name("reference_answers.py")


class Reference:
    """What `reference_answers.py` made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = folder / "base"
        described = json.loads((folder / "reference.json").read_text())
        self.artifacts: dict[str, str] = described["artifacts"]
        self.cases: list[dict[str, Any]] = described["cases"]
        self.settings: list[dict[str, Any]] = described["settings"]

    def described(self, name: str) -> dict[str, Any]:
        """The memory.json of an artifact."""
        path = self.folder / "artifacts" / self.artifacts[name] / "memory.json"
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def lora(self, name: str | None) -> Any:
        """The LoRA request of an artifact by the name that the script gave it."""
        from vllm.lora.request import LoRARequest

        from memgen_vllm.memory import adapter_path
        from memgen_vllm.names import ArtifactName

        if name is None:
            return None
        sha256 = self.artifacts[name]
        path = adapter_path(self.folder / "artifacts" / sha256)
        return LoRARequest(sha256, ArtifactName(sha256, None).lora_id, str(path))


def service_python() -> Path:
    """The interpreter of the service's environment, which has transformers and PEFT as the service pins them."""
    found = Path(os.environ.get("MEMGEN_SERVICE_PYTHON", ROOT / ".venv" / "bin" / "python"))
    if not found.exists():
        pytest.fail(f"{found} is missing: the references come from the service's environment. Run `make setup`")
    return found


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    if kept := os.environ.get("MEMGEN_VLLM_REFERENCE"):
        return Reference(Path(kept))
    folder = tmp_path_factory.mktemp("reference")
    subprocess.run(
        [service_python(), REFERENCE, folder], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True
    )
    return Reference(folder)


@pytest.fixture(scope="module")
def engine(reference: Reference) -> Iterator[Callable[..., Any]]:
    """Makes vLLM's engine in this process; each ends before the next begins."""
    with _engines(reference) as make:
        yield make


@contextmanager
def _engines(reference: Reference) -> Iterator[Callable[..., Any]]:
    import gc

    from vllm import LLM
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    running: list[Any] = []

    def end() -> None:
        while running:
            running.pop().llm_engine.engine_core.shutdown()
            gc.collect()
            cleanup_dist_env_and_memory()

    def make(**changes: Any) -> Any:
        end()
        settings: dict[str, Any] = {
            "dtype": "float32",
            "enforce_eager": True,
            "max_model_len": 512,
            "max_num_seqs": 32,
            "enable_lora": True,
            "max_loras": 8,
            "max_lora_rank": 16,
            "max_num_batched_tokens": 1024,
            "block_size": 32,
            "seed": 0,
        }
        base = changes.pop("base", reference.base)
        running.append(LLM(str(base), **{**settings, **changes}))
        return running[0]

    yield make
    end()
