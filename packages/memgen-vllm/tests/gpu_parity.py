"""The reference's answers by vLLM on a GPU: model runner V2, CUDA graphs, asynchronous scheduling, Triton's LoRA.

    VLLM_PLUGINS=memgen python packages/memgen-vllm/tests/gpu_parity.py REFERENCE       (in vLLM's environment)

Prints one line of JSON for each way to run. `python -m bench.gpu_vllm` calls it. It has not been run yet: what it
checks was only seen on a CPU, by model runner V1.
"""

import gc
import json
import sys
from pathlib import Path
from typing import Any

import torch
from answering import answers, worst_difference
from conftest import Reference
from vllm import LLM
from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

WAYS: dict[str, dict[str, Any]] = {
    "eager": {"enforce_eager": True},
    "graphs": {},
    "graphs, scheduled in step": {"async_scheduling": False},
    "chunks of 64": {"max_num_batched_tokens": 64, "max_num_seqs": 16},
    "two slots": {"max_loras": 2, "max_cpu_loras": 4},
    "preempted": {"num_gpu_blocks_override": 40},
}


def main(folder: Path) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    reference = Reference(folder)
    for way, changes in WAYS.items():
        settings = {"dtype": "float32", "max_model_len": 512, "enable_lora": True, "max_loras": 8, "max_lora_rank": 16}
        llm = LLM(str(reference.base), **{**settings, **changes}, seed=0)
        for kind, cases in (("cases", reference.cases), ("settings", reference.settings)):
            for turn in ("cold", "warm"):
                outputs = answers(llm, reference, cases)
                same = sum(list(o.outputs[0].token_ids) == c["tokens"] for o, c in zip(outputs, cases, strict=True))
                found = {
                    "way": way,
                    "kind": kind,
                    "cache": turn,
                    "answers": len(cases),
                    "same": same,
                    "worst_logprob_difference": worst_difference(outputs, cases),
                    "model_runner_v2": bool(llm.llm_engine.vllm_config.use_v2_model_runner),
                    "async_scheduling": bool(llm.llm_engine.vllm_config.scheduler_config.async_scheduling),
                }
                sys.stdout.write(json.dumps(found) + "\n")
        del llm
        gc.collect()
        cleanup_dist_env_and_memory()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
