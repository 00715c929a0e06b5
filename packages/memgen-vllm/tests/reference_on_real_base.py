"""As `reference_answers.py`, on the service's default base: real weights, a real tokenizer, sentences that end.

    python packages/memgen-vllm/tests/reference_on_real_base.py OUT MODELS      (in the service's environment)

MODELS is where converted bases are kept.
"""

import json
import sys
from pathlib import Path

import torch
from reference_answers import cases, made

from memgen.backbone.loading import load_backbone
from memgen.backbone.sources import resolve
from memgen.checked_files import write_json
from memgen.memory.host import AdapterHost

BASE = "smollm2-135m-instruct"
SHAPES = {
    "upper": {"latents": 16, "max_insertions": 0},
    "many": {"latents": 8, "reread_tokens": 16, "inference_latents": 4, "max_insertions": 3},
}
TEXTS = [
    "Tell me about the sea, please.",
    "List three colours, and say why you like them.",
    "What is the capital of France, and what is it known for? Answer in two sentences.",
]


def main(out: Path, models: Path) -> None:
    torch.set_num_threads(1)
    host = AdapterHost(load_backbone(BASE, cache_dir=models, dtype=torch.float32))
    folder, _ = resolve(BASE, models, "main")
    artifacts = {name: made(host, out, name, shape, seed, 0.003) for seed, (name, shape) in enumerate(SHAPES.items())}
    (out / "base").symlink_to(str(folder))
    found = {"artifacts": artifacts, "cases": cases(host, out, artifacts, list(SHAPES), TEXTS), "settings": []}
    write_json(out / "reference.json", found)
    sys.stdout.write(json.dumps([each["positions"] for each in found["cases"]]) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
