"""How a vLLM server on this machine is called."""

import itertools
from pathlib import Path

import pytest
from pydantic import SecretStr

from api.local.vllm_command import PLUGIN_READS, vllm_command, vllm_environment
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


def test_the_server_gets_no_secret_but_the_object_store_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "upstreams.toml").write_text(
        '[strong]\nbase_url = "https://api.example.com/v1"\napi_key_env = "STRONG_KEY"\nmodels = ["*"]\n'
    )
    for name in ("MEMGEN_API_KEY", "memgen_broker_url", "MEMGEN_ANYTHING_ELSE", "STRONG_KEY"):
        monkeypatch.setenv(name, "very-secret")
    monkeypatch.setenv("MEMGEN_VLLM_ARTIFACT_BYTES", "5")
    monkeypatch.setenv("HF_TOKEN", "for the base")
    settings = load_settings(
        service_env=False,
        home=tmp_path,
        database_url=SecretStr("postgresql+psycopg://user:very-secret@host/database"),
        s3_url=SecretStr("http://access:key@host:1"),
        model_cache=tmp_path / "models",
        upstreams=tmp_path / "upstreams.toml",
    )
    found = vllm_environment(settings)
    assert not [name for name, value in found.items() if "very-secret" in value]
    assert {name for name in found if name.upper().startswith("MEMGEN_")} <= set(PLUGIN_READS)
    kept = ("MEMGEN_HOME", "MEMGEN_S3_URL", "MEMGEN_VLLM_ARTIFACT_BYTES", "MEMGEN_MODEL_CACHE", "HF_TOKEN")
    assert [found[name] for name in kept] == [
        *(str(tmp_path), "http://access:key@host:1", "5", str(tmp_path / "models"), "for the base")
    ]
