"""Whether vLLM with the plugin answers on a GPU as our engine does: `python -m bench.gpu_vllm --vllm PYTHON`.

**It has not been run yet**: no machine with a GPU was at hand. What the plugin does was seen on a CPU alone, with model
runner V1; the hooks of V2 have unit tests. Run this before a GPU serves anybody, and read what it prints.

References are computed here, in float32 on the CPU; the other interpreter has vLLM's CUDA build, memgen-vllm and the
service installed with --no-deps. Figures go to bench/results/gpu_vllm.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "packages" / "memgen-vllm" / "tests"
RESULT = ROOT / "bench" / "results" / "gpu_vllm.json"
_LEAST_SAME = 0.95
"""Share of the answers with equal tokens: in float32 nearly all, but two tokens may be equally likely."""
_MOST_APART = 5e-3


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_vllm", description="Parity of vLLM's GPU path.")
    parser.add_argument("--vllm", type=Path, required=True, help="interpreter with vLLM's CUDA build")
    interpreter: Path = parser.parse_args().vllm
    with tempfile.TemporaryDirectory() as folder:
        here = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
        made = [sys.executable, str(TESTS / "reference_answers.py"), folder]
        subprocess.run(made, cwd=ROOT, env=here, check=True)  # noqa: S603
        there = {**os.environ, "VLLM_PLUGINS": "memgen", "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
        command = [str(interpreter), str(TESTS / "gpu_parity.py"), folder]
        done = subprocess.run(command, cwd=TESTS, env=there, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
    found = [json.loads(line) for line in done.stdout.split("\n") if line.startswith("{")]
    RESULT.write_text(json.dumps(found, indent=2) + "\n")
    wrong = [
        each
        for each in found
        if each["same"] < _LEAST_SAME * each["answers"] or each["worst_logprob_difference"] > _MOST_APART
    ]
    for each in found:
        sys.stdout.write(f"{'WRONG' if each in wrong else 'right'} {json.dumps(each)}\n")
    return 1 if wrong or not found else 0


if __name__ == "__main__":
    sys.exit(main())
