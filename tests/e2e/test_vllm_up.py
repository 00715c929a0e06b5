"""`memgen up --engine vllm`: a real vLLM server beside the rest, found by the API, restarted when it dies."""

import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
from dotenv import dotenv_values

from tests.api.cli.invoking import succeed
from tests.fixtures_model import save_tiny_base
from tests.trajectory_samples import chat, line
from tests.vllm_server import ENGINE, why_no_vllm

pytestmark = pytest.mark.skipif(
    ENGINE != "vllm" or why_no_vllm() is not None, reason=f"runs with MEMGEN_TEST_ENGINE=vllm. {why_no_vllm() or ''}"
)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # Not pytest's own folder: that is private to its owner, and PostgreSQL's account must get through.
    path = Path(tempfile.mkdtemp(prefix="memgen-"))
    path.chmod(0o711)
    base = save_tiny_base(path / "base", hidden_size=128)
    for name, value in {
        "MEMGEN_HOME": str(path),
        "MEMGEN_BASE_MODEL": str(base),
        "MEMGEN_BASE_DTYPE": "float32",
        "MEMGEN_API_PORT": "0",
        "MEMGEN_TORCH_THREADS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
    }.items():
        monkeypatch.setenv(name, value)
    yield path
    succeed("down")
    shutil.rmtree(path, ignore_errors=True)


def _vllm() -> dict[str, Any]:
    [found] = [each for each in succeed("status", "--json").document["processes"] if each["name"] == "vllm"]
    return dict(found)


def _wait_for(condition: Callable[[], bool], seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def _events(reply: httpx.Response) -> Iterator[Any]:
    for text in reply.iter_lines():
        if text.startswith("data: {"):
            yield json.loads(text[6:])


def test_a_vllm_server_runs_beside_the_rest_and_is_replaced_when_it_dies(home: Path, tmp_path: Path) -> None:
    succeed("up", "--engine", "vllm")
    env = dotenv_values(home / "service.env")
    running = _vllm()
    assert (running["state"], env["MEMGEN_VLLM_URL"]) == ("running", running["url"])
    file = tmp_path / "runs.jsonl"
    file.write_bytes(b"\n".join(line(chat(f"question {n}", answer="yes")) for n in range(20)))
    succeed("task", "create", "t", "--holdout-share", "0.4")
    succeed("upload", str(file), "--task", "t")
    succeed("adapter", "create", "bot", "--memory", "latents=4", "--memory", "rank=8")
    succeed("train", "bot", "--task", "t", "--steps", "10", "--set", "batch_size=2")

    url, key = str(env["MEMGEN_API_URL"]), str(env["MEMGEN_API_KEY"])
    ask: dict[str, Any] = {"messages": [{"role": "user", "content": "question 1"}], "temperature": 0}
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
        answer = client.chat.completions.create(model="bot@1", max_tokens=8, logprobs=True, **ask)
        stamp = (answer.model_extra or {})["memgen"]
        assert (answer.model, stamp["version"], bool(stamp["insertions"])) == ("bot@1", 1, True)
        bare = client.chat.completions.create(model="base", max_tokens=8, **ask)
        assert not (bare.model_extra or {})["memgen"].get("insertions")

        body = {**ask, "model": "bot@1", "max_tokens": 700, "logit_bias": {"2": -100}, "stream": True}
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, headers=headers, timeout=120) as reply:
            assert reply.status_code == 200, reply.read()
            events = _events(reply)
            next(events)
            next(events)
            vllm = psutil.Process(running["pid"])
            for process in [vllm, *vllm.children(recursive=True)]:
                os.kill(process.pid, signal.SIGKILL)
            *_, last = events
        assert "the vLLM server went away while it answered" in last["error"]["message"]
        with pytest.raises(openai.APIStatusError) as away:
            client.chat.completions.create(model="base", max_tokens=8, **ask)
        assert (away.value.status_code, away.value.response.headers["retry-after"]) == (503, "5")
        assert httpx.get(f"{url}/readyz").status_code == 503
        _wait_for(lambda: httpx.get(f"{url}/readyz").status_code == 200)
        again = client.chat.completions.create(model="bot@1", max_tokens=8, logprobs=True, **ask)
        assert again.choices[0].message.content == answer.choices[0].message.content
    replaced = _vllm()
    assert (replaced["state"], replaced["url"], replaced["restarts"]) == ("running", running["url"], 1)
    succeed("down")
    assert not psutil.pid_exists(replaced["pid"])
