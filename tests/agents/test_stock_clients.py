"""Agents' stock clients, with nothing changed but the address and the key: loops with two tools run over HTTP.

The clients live in an environment of their own (`make test-agents`), the real application in this one. What the tiny
base writes is fixed by what it has read, since it can't reason; all else is as in service.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.settings import Settings
from tests.api.live_api import serve
from tests.api.watched import Watch, watch

__all__ = ["watch"]

PYTHON = os.environ.get("MEMGEN_AGENTS_PYTHON")
CLIENTS = Path(__file__).parent / "clients"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "openai.md"
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
    **{"PYTHONPATH": "", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LANGSMITH_TRACING": "false"},
}
"""Nothing but the service is to be reached."""
CALLS = ["find_city Peru", "weather Lima"]
REPORT = {"city": "Lima", "fog": True}
FOGGY = "There is fog in Lima."

pytestmark = pytest.mark.skipif(PYTHON is None, reason="make test-agents installs the clients and names their Python")


@pytest.fixture
def url(settings: Settings, tiny_base: Path, watch: Watch) -> Iterator[str]:
    watch.say_to = _said
    tiny = settings.model_copy(update={"base_model": str(tiny_base), "torch_threads": 1})
    with serve(tiny, serve_model=True) as url:
        yield url


def _said(prompt: str) -> str:
    """What the base says behind a prompt: a step of the loop, by the results that the prompt ends in."""
    said = re.split(r"<\|im_start\|>", prompt)[-2:][0]
    if "JSON" in said:
        return json.dumps(REPORT)
    if "three" in said:
        return "One, two, three."
    if "name?" in said:
        return "Ana." if "My name is Ana." in prompt else "Who are you?"
    if "fog in Lima" in said:
        return FOGGY
    if "Lima" in said:
        return f"I look there. {_call('weather', city='Lima')}"
    if "Peru" in said:
        return f"<think>Which city?</think>{_call('find_city', country='Peru')}"
    return "Hello."


def _call(name: str, **arguments: str) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def run(script: str, url: str, key: str, part: str = "loops") -> dict[str, Any]:
    """What the client found, as it prints it last."""
    done = subprocess.run(
        [str(PYTHON), str(CLIENTS / script), part, url, key],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def test_the_agents_sdk(url: str, api_key: str) -> None:
    found = run("agents_sdk.py", url, api_key)
    for name in ("chat", "responses"):
        assert found[name] == [FOGGY, *CALLS]
        assert found[f"{name} streamed"][:3] == [FOGGY, *CALLS]
        assert found[f"{name} streamed"][3] >= 5, "calls, results and the message are items of their own"
        assert found[f"{name} again"] == "One, two, three."
    assert found["previous"] == ["Ana."]


def test_langchain_and_langgraph(url: str, api_key: str) -> None:
    found = run("langchain_client.py", url, api_key)
    for name in ("chat", "responses"):
        assert found[f"{name} bound"] == [["find_city", {"country": "Peru"}]]
        assert found[f"{name} stream"] == "One, two, three."
        assert found[f"{name} agent"] == [FOGGY, *CALLS]


@pytest.mark.parametrize("script", ["agents_sdk.py", "langchain_client.py"])
def test_typed_answers(script: str, url: str, api_key: str) -> None:
    assert run(script, url, api_key, "typed") == {"chat": REPORT, "responses": REPORT}


def test_litellm(url: str, api_key: str) -> None:
    found = run("litellm_client.py", url, api_key)
    for name in ("openai", "anthropic"):
        assert found[f"{name} call"] == ["find_city", {"country": "Peru"}]
        assert found[f"{name} answer"] == FOGGY
        assert found[f"{name} stream"] == "One, two, three."
    assert (found["text"], found["responses"]) == ("One, two, three.", "One, two, three.")


def test_anthropics_tool_runner(url: str, api_key: str) -> None:
    found = run("anthropic_client.py", url, api_key)
    for name in ("whole", "streamed"):
        assert found[name] == [FOGGY, "end_turn", *CALLS]


@pytest.mark.parametrize("number", range(5))
def test_the_snippets_of_the_page_run_as_they_stand(url: str, api_key: str, number: int, tmp_path: Path) -> None:
    snippets = re.findall(
        r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8").split("\n## Clients\n")[1], re.DOTALL
    )
    assert len(snippets) == 5
    script = tmp_path / "snippet.py"
    script.write_text(snippets[number], encoding="utf-8")
    environment = ENVIRONMENT | {"MEMGEN_API_URL": url, "MEMGEN_API_KEY": api_key}
    done = subprocess.run([str(PYTHON), str(script)], env=environment, capture_output=True, text=True, timeout=240)
    assert (done.returncode, "Hello." in done.stdout) == (0, True), done.stderr[-6000:]
