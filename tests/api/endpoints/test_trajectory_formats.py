"""Foreign formats through the API: whole documents in a body and in a file, reports by document, nothing doubled."""

import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from memgen_client import JsonClient
from registry.settings import Settings
from tests.api.live_api import serve
from tests.otlp_samples import as_json, chat_messages, exports, genai, run_agent

ATIF: dict[str, Any] = {
    "schema_version": "ATIF-v1.8",
    "trajectory_id": "outer",
    "agent": {"name": "terminus-2", "version": "2"},
    "steps": [
        {"step_id": 1, "source": "user", "message": "Count."},
        {"step_id": 2, "source": "agent", "message": "Copied.", "is_copied_context": True},
        {"step_id": 3, "source": "agent", "message": "Three."},
    ],
}
INNER = {**ATIF, "trajectory_id": "inner", "steps": ATIF["steps"][:2]}


@pytest.fixture
def url(settings: Settings, tiny_base: Path, api_key: str) -> Any:
    with serve(settings.model_copy(update={"base_model": str(tiny_base)})) as found:
        with JsonClient(found, api_key) as client:
            client.tasks.create("t")
        yield found


def test_whole_documents_by_file_and_by_body(url: str, api_key: str, tmp_path: Path) -> None:
    file = tmp_path / "trajectory.json"
    file.write_text(json.dumps({**ATIF, "subagent_trajectories": [INNER]}, indent=2))
    with JsonClient(url, api_key) as client:
        report = client.trajectories.upload(file, task="t", format="atif")
        assert (report["accepted"], report["refused_by_code"], report["lines_read"]) == (1, {"nothing_to_learn": 1}, 1)
        assert client.trajectories.upload(file, task="t", format="atif")["duplicate"] == 1
        [stored] = client.trajectories.all(task="t", include_messages=True)
        assert [m.get("weight") for m in stored["messages"]] == [None, 0, None]
        file.write_bytes(b"".join(exports(partial(run_agent, write=genai))))
        assert client.trajectories.upload(file, task="t", format="otlp")["accepted"] == 1
        assert [each["messages"] for each in client.trajectories.all(task="t", include_messages=True)][1:] == [
            chat_messages()
        ]

    post = partial(httpx.post, f"{url}/v1/trajectories", headers={"Authorization": f"Bearer {api_key}"})
    both = post(json={**ATIF, "subagent_trajectories": [INNER]}, params={"task": "t", "format": "atif"})
    assert [(line["line"], line["status"]) for line in both.json()["lines"]] == [(1, "duplicate"), (1, "refused")]
    alone = post(json=INNER, params={"task": "t", "format": "atif"})
    assert (alone.status_code, alone.json()["type"]) == (422, "urn:memgen:problem:nothing_to_learn")
    spans = [as_json(each) for each in exports(partial(run_agent, write=genai, question="Again?"))]
    assert post(json=spans, params={"task": "t", "format": "otlp"}).json()["accepted"] == 1
    nothing = post(json={"resourceSpans": []}, params={"task": "t", "format": "otlp"})
    assert nothing.json()["type"] == "urn:memgen:problem:otlp_no_calls"


def test_an_upload_of_something_else_is_named(url: str, api_key: str, tmp_path: Path) -> None:
    file = tmp_path / "runs.parquet"
    file.write_bytes(b"PAR1\x15\x04\n{}\n" * 1000)
    with JsonClient(url, api_key) as client:
        report = client.trajectories.upload(file, task="t", format="hf-tools")
    assert (report["accepted"], report["refused"], report["complete"]) == (0, 0, False)
    assert "it is a Parquet file" in report["stopped"]


def test_an_upload_that_breaks_off_stores_no_half_runs(url: str, api_key: str) -> None:
    """What is put together of a whole file would be another trajectory, beside the one that comes with the rest."""
    lines = [json.dumps(as_json(each)).encode() + b"\n" for each in exports(partial(run_agent, write=genai))]

    def broken() -> Any:
        yield b"".join(lines[:3])
        time.sleep(0.3)
        raise ConnectionError

    with pytest.raises((ConnectionError, httpx.TransportError)):
        httpx.post(
            f"{url}/v1/trajectories/import?task=t&format=otlp",
            content=broken(),
            headers={"Authorization": f"Bearer {api_key}"},
        )
    time.sleep(0.5)  # the server hears of it a moment later
    with JsonClient(url, api_key) as client:
        assert list(client.trajectories.all(task="t", include_messages=True)) == []
