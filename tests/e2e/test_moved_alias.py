"""A version moves between aliases under load: no answer is lost, and each is that of the version it names.

`MEMGEN_TEST_ENGINE=vllm` tries that engine on a real server, as `make test-vllm` does.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from registry.settings import Settings
from tests.e2e.test_switching import _force_pass, ready
from tests.fixtures_model import save_tiny_base
from tests.vllm_server import ENGINE, run_vllm, why_no_vllm
from tests.workers.conftest import Workshop, workshop

__all__ = ["workshop"]

pytestmark = pytest.mark.skipif(ENGINE == "vllm" and why_no_vllm() is not None, reason=f"{why_no_vllm()}")
MOVES, AGENTS = 6, 6


@pytest.fixture(scope="module")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With heads as wide as vLLM takes them."""
    return save_tiny_base(tmp_path_factory.mktemp("wide"), hidden_size=128)


@pytest.fixture
def settings(settings: Settings, tiny_base: Path) -> Settings:
    changes = {"base_model": str(tiny_base), "base_dtype": "float32", "torch_threads": 1, "engine": ENGINE}
    return settings.model_copy(update=changes)


@pytest.fixture
def api(
    settings: Settings, workshop: Workshop, api_key: str, tiny_base: Path, tmp_path: Path
) -> Iterator[httpx.Client]:
    with ExitStack() as stack:
        if ENGINE == "vllm":
            server = stack.enter_context(run_vllm(settings, tiny_base, tmp_path))
            settings = settings.model_copy(update={"vllm_url": server.url})
        url = stack.enter_context(ready(settings))
        headers = {"Authorization": f"Bearer {api_key}"}
        yield stack.enter_context(httpx.Client(base_url=url, headers=headers, timeout=120))


def answer(api: httpx.Client, model: str) -> tuple[str, str]:
    """(version that answered, what it said)."""
    body = {"model": model, "messages": [{"role": "user", "content": "y1"}], "max_tokens": 8, "temperature": 0}
    reply = api.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    said = reply.json()
    return said["model"], said["choices"][0]["message"]["content"]


def test_an_alias_that_moves_under_load_loses_and_mixes_nothing(workshop: Workshop, api: httpx.Client) -> None:
    workshop.add_task("yes")
    for steps in (40, 3):
        workshop.work(workshop.queue("yes", training={"steps": steps}))
    aliases = "/v1/adapters/bot/aliases/champion"
    if workshop.champion() == 2:
        api.post(f"{aliases}/rollback", json={}).raise_for_status()
    _force_pass(workshop, 2)
    expected = dict(answer(api, f"bot@{number}") for number in (1, 2))
    assert expected["bot@1"] != expected["bot@2"]

    done = threading.Event()

    def go_on() -> list[tuple[str, str]]:
        found = []
        while not done.is_set():
            found.append(answer(api, "bot"))
        return found

    with ThreadPoolExecutor(AGENTS) as pool:
        agents = [pool.submit(go_on) for _ in range(AGENTS)]
        try:
            for number in range(MOVES):
                path, body, moved = ("rollback", {}, "bot@1") if number % 2 else ("promote", {"version": 2}, "bot@2")
                api.post(f"{aliases}/{path}", json=body).raise_for_status()
                assert [answer(api, "bot") for _ in range(3)] == [(moved, expected[moved])] * 3
        finally:
            done.set()
        answers = [each for agent in agents for each in agent.result()]
    assert len(answers) > MOVES
    assert {name for name, _ in answers} == {"bot@1", "bot@2"}
    assert [(name, text) for name, text in answers if text != expected[name]] == []
