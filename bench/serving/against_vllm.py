"""Tokens a CPU second of the engine in this process against those of vLLM with the plugin, on the same prompts.

The two sides take turns, so that what else the machine does hits both alike; each counts the CPU time of its own
process, prompts included.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path

from bench.serving.workload import make_versions
from bench.speed.generation import endless, real_prompts
from bench.speed.ratios import Findings, InvalidRun, NotHere, Ratio
from memgen.artifacts.artifact import load_artifact
from memgen.backbone.loading import Backbone
from memgen.backbone.sources import resolve
from memgen.config import MemoryConfig
from memgen.generation.engine import generate
from memgen.generation.requests import GenerationRequest
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from registry.settings import Settings

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "packages" / "memgen-vllm" / "benchmarks" / "throughput.py"
PROMPT_TOKENS, ANSWER_TOKENS = 128, 64
SHAPES = (
    MemoryConfig(latents=16, max_insertions=0),
    MemoryConfig(latents=8, reread_tokens=32, max_insertions=0),
    MemoryConfig(latents=16, max_insertions=0),
    MemoryConfig(latents=4, reread_tokens=7, max_insertions=0),
)
"""The versions that are mixed: woven at the prompt's end, as the recipes make them."""
INTERLEAVED = (MemoryConfig(),) * 4
"""Versions that weave inside of answers too, as many tokens as the default allows."""

Batch = Sequence[tuple[tuple[int, ...], str | None]]


def against_vllm(backbone: Backbone, packed: Backbone, settings: Settings, pairs: int) -> Findings:
    """Keys `local_over_vllm_b1`, `_b8`, `_b16`, `_mixed16`, `vllm_memory_over_bare` and `vllm_interleaved_over_bare`.

    Args:
        packed: the base as the API has it; `backbone` makes the versions.

    Raises:
        NotHere: there is no environment with vLLM.
    """
    folder = settings.home / "against-vllm"
    stored = [
        path for n, some in enumerate((SHAPES, INTERLEAVED)) for path in make_versions(backbone, folder / str(n), some)
    ]
    artifacts = {f"m{n}": path for n, path in enumerate(stored)}
    shapes, interleaved = list(artifacts)[: len(SHAPES)], list(artifacts)[len(SHAPES) :]
    prompts = real_prompts(backbone, 16, PROMPT_TOKENS)
    batches: dict[str, Batch] = {f"b{rows}": [(p, None) for p in prompts[:rows]] for rows in (1, 8, 16)}
    batches["mixed16"] = list(zip(prompts, islice(cycle(shapes), 16), strict=True))
    batches["interleaved16"] = list(zip(prompts, islice(cycle(interleaved), 16), strict=True))
    ours = _Ours(packed, artifacts)
    found: dict[str, list[tuple[float, float]]] = {}
    bare: dict[str, list[float]] = {}
    dtype = str(packed.model.dtype).removeprefix("torch.")
    with _vllm(settings, dtype, folder, artifacts, batches) as ask:
        ask("plugin")
        for key, batch in batches.items():
            ours.speed(batch)
            ask(key)
            found[key] = [(ours.speed(batch), ask(key)) for _ in range(pairs)]
        ask("bare")
        for key in ("b1", "b8", "b16"):
            ask(key)
            bare[key] = [ask(key) for _ in range(pairs)]
    ratios = [
        Ratio(
            f"local_over_vllm_{key}", f"tokens a CPU second over vLLM's, {_words(key)}", tuple(a / b for a, b in each)
        )
        for key, each in found.items()
    ]
    for key, name, what in (
        ("vllm_memory_over_bare", "mixed16", "4 versions mixed"),
        ("vllm_interleaved_over_bare", "interleaved16", "4 versions that weave inside of answers"),
    ):
        pairs_of_both = zip(found[name], bare["b16"], strict=True)
        values = tuple(theirs / free for (_, theirs), free in pairs_of_both)
        ratios.append(Ratio(key, f"vLLM, {what}, over vLLM bare, batch 16", values))
    method = {
        "how": f"{PROMPT_TOKENS} prompt and {ANSWER_TOKENS} new tokens a row, greedy, prompts read on both sides; vLLM "
        "eager, without prefix cache",
        "tokens_a_cpu_second": {
            key: {"local": _middle([a for a, _ in each]), "vllm_with_plugin": _middle([b for _, b in each])}
            for key, each in found.items()
        },
        "vllm_bare_tokens_a_cpu_second": {key: _middle(values) for key, values in bare.items()},
    }
    return Findings(tuple(ratios), method)


class _Ours:
    def __init__(self, backbone: Backbone, artifacts: dict[str, Path]) -> None:
        self._host = AdapterHost(backbone)
        for name, folder in artifacts.items():
            load_artifact(self._host, name, folder)

    def speed(self, batch: Batch) -> float:
        """Tokens a CPU second."""
        requests = [GenerationRequest(prompt, Sampling(ANSWER_TOKENS), name) for prompt, name in batch]
        with endless(self._host.backbone):
            started = time.process_time()
            answers = generate(self._host, requests)
            seconds = time.process_time() - started
        if any(len(answer.token_ids) != ANSWER_TOKENS for answer in answers):
            raise InvalidRun(f"answers have {[len(a.token_ids) for a in answers]} tokens, not {ANSWER_TOKENS} each")
        return len(batch) * ANSWER_TOKENS / seconds


@contextmanager
def _vllm(
    settings: Settings, dtype: str, folder: Path, artifacts: dict[str, Path], batches: dict[str, Batch]
) -> Iterator[Callable[[str], float]]:
    """A function that sends a command to vLLM's side and returns its figure."""
    python = Path(os.environ.get("MEMGEN_VLLM_PYTHON", ROOT / ".venv-vllm" / "bin" / "python"))
    if not python.exists():
        raise NotHere(f"{python} is missing; run `make vllm`, or name an interpreter by MEMGEN_VLLM_PYTHON")
    base, _ = resolve(settings.base_model, settings.models_dir, settings.base_revision)
    work = folder / "work.json"
    described = {
        "base": str(base),
        "artifacts": {name: str(path) for name, path in artifacts.items()},
        "dtype": dtype,
        "tokens": ANSWER_TOKENS,
        "batches": batches,
    }
    work.write_text(json.dumps(described))
    environment = {**os.environ, "OMP_NUM_THREADS": str(settings.torch_threads)}
    command = [str(python), str(SCRIPT), str(work)]
    log = work.with_suffix(".log")
    with (
        log.open("w") as errors,
        subprocess.Popen(  # noqa: S603  # our own script, in an environment that the user named
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        reading, writing = process.stdout, process.stdin

        def ask(command: str) -> float:
            writing.write(command + "\n")
            writing.flush()
            line = reading.readline()
            if not line:
                raise InvalidRun(f"vLLM's side ended: {log.read_text()[-2000:]}")
            return float(json.loads(line).get("tokens_a_cpu_second", 0.0))

        try:
            yield ask
        finally:
            process.kill()


def _words(key: str) -> str:
    names = {"mixed16": "batch 16, 4 versions", "interleaved16": "batch 16, 4 versions that weave inside of answers"}
    return names.get(key, f"batch {key[1:]}, bare")


def _middle(values: Sequence[float]) -> float:
    return round(sorted(values)[len(values) // 2], 1)
