"""How a vLLM server on this machine is called."""

import itertools
from pathlib import Path

import pytest

from api.local.vllm_command import vllm_command
from registry.settings import load_settings


@pytest.mark.parametrize(("cached", "kept"), [(3, 8), (40, 40)])
def test_as_many_versions_are_kept_in_memory_as_the_engine_local_keeps(tmp_path: Path, cached: int, kept: int) -> None:
    """vLLM itself keeps no more than may answer at once, and reads one more in the loop of all answers."""
    settings = load_settings(
        service_env=False, home=tmp_path, cached_versions=cached, vllm_arguments="--max-model-len 9"
    )
    command = vllm_command(settings, Path("python"), str(tmp_path), 8000)
    value = dict(itertools.pairwise(command))
    assert (value["--max-loras"], value["--max-cpu-loras"], value["--max-model-len"]) == ("8", str(kept), "9")
