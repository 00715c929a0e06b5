"""Parity on the service's default base, and that both environments find it to be the same base."""

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from answering import answers, differences
from conftest import ROOT, Reference, service_python

from memgen_vllm.refusals import check_artifact
from memgen_vllm.served_base import LoadedBase


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    if kept := os.environ.get("MEMGEN_VLLM_REAL_REFERENCE"):
        return Reference(Path(kept))
    folder = tmp_path_factory.mktemp("real")
    script, environment = Path(__file__).with_name("reference_on_real_base.py"), {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([service_python(), script, folder, folder / "models"], cwd=ROOT, env=environment, check=True)
    return Reference(folder)


def test_answers_on_the_real_base(engine: Any, real: Reference) -> None:
    """With two releases of transformers, one revision and one identity."""
    llm = engine(base=real.base.resolve(), max_loras=2)
    found = llm.llm_engine.vllm_config.model_config
    base = LoadedBase.of_model(
        SimpleNamespace(
            model=str(real.base.resolve()),
            revision=None,
            tokenizer=found.tokenizer,
            hf_config=found.hf_config,
            max_model_len=512,
        )
    )
    for sha256 in real.artifacts.values():
        check_artifact(real.folder / "artifacts" / sha256, base, 16)
    assert sum(len(case["positions"]) > 1 for case in real.cases) >= 2
    assert differences(answers(llm, real, real.cases), real.cases) == []
    assert differences(answers(llm, real, real.cases, together=False), real.cases) == []
