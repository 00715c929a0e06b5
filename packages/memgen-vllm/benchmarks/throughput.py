"""vLLM's side of `python -m bench.serving`: answers batches on command and says how many tokens a CPU second it made.

Usage: throughput.py WORK.json, in vLLM's environment. WORK.json has `base` (a folder), `artifacts` (name to folder),
`tokens` (of each answer) and `batches`: lists of `[prompt ids, name or null]` by key. Then a line on the standard
input is a key to answer or `bare` or `plugin`, which engine to have; a line of JSON on the standard output answers it.
"""

import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine in this process, whose CPU time is counted
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else prints there is no answer
    work = json.loads(Path(sys.argv[1]).read_text())
    engine: Any = None
    for line in sys.stdin:
        command = line.strip()
        if command in ("bare", "plugin"):
            engine = _engine(engine, work, with_adapters=command == "plugin")
            result: dict[str, Any] = {"ready": command}
        else:
            result = {"tokens_a_cpu_second": _answer(engine, work, command)}
        answers.write(json.dumps(result) + "\n")
        answers.flush()


def _engine(before: Any, work: dict[str, Any], *, with_adapters: bool) -> Any:
    os.environ["VLLM_PLUGINS"] = "memgen" if with_adapters else ""
    from vllm import LLM
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    if before is not None:
        before.llm_engine.engine_core.shutdown()
        del before
        gc.collect()
        cleanup_dist_env_and_memory()
    adapters = {"enable_lora": True, "max_loras": 8, "max_lora_rank": 16} if with_adapters else {}
    return LLM(
        work["base"],
        dtype=work["dtype"],
        enforce_eager=True,
        max_model_len=2048,
        max_num_seqs=32,
        max_num_batched_tokens=2048,
        block_size=32,
        enable_prefix_caching=False,
        seed=0,
        **adapters,
    )


def _answer(engine: Any, work: dict[str, Any], key: str) -> float:
    from vllm import SamplingParams

    params = SamplingParams(temperature=0, max_tokens=work["tokens"], ignore_eos=True, detokenize=True)
    batch = work["batches"][key]
    prompts = [{"prompt_token_ids": prompt} for prompt, _ in batch]
    adapters = [None if name is None else _adapter(work["artifacts"][name]) for _, name in batch]
    started = time.process_time()
    outputs = engine.generate(prompts, params, lora_request=adapters if any(adapters) else None, use_tqdm=False)
    seconds = time.process_time() - started
    counts = {len(output.outputs[0].token_ids) for output in outputs}
    if counts != {work["tokens"]}:
        raise RuntimeError(f"answers have {sorted(counts)} tokens; expected {work['tokens']} each")
    return len(batch) * work["tokens"] / seconds


def _adapter(folder: str) -> Any:
    import hashlib

    from vllm.lora.request import LoRARequest

    from memgen_vllm.memory import adapter_path
    from memgen_vllm.names import ArtifactName

    sha256 = hashlib.sha256((Path(folder) / "manifest.json").read_bytes()).hexdigest()
    return LoRARequest(sha256, ArtifactName(sha256, None).lora_id, str(adapter_path(Path(folder))))


if __name__ == "__main__":
    main()
