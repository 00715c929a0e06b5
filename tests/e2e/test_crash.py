"""The real service with a worker killed in the middle of a training: the job goes on, and ends as one version."""

import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.api.cli.invoking import succeed
from tests.trajectory_samples import chat, line


@pytest.fixture
def home(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # Not pytest's own folder: that is private to its owner, and PostgreSQL's account must get through.
    path = Path(tempfile.mkdtemp(prefix="memgen-"))
    path.chmod(0o711)
    for name, value in {
        "HOME": str(path),
        "BASE_MODEL": str(tiny_base),
        "API_PORT": "0",
        "TORCH_THREADS": "1",
        "JOB_LEASE_SECONDS": "3",
        "REAPER_INTERVAL_SECONDS": "1",
        "CHECKPOINT_INTERVAL_SECONDS": "0.2",
    }.items():
        monkeypatch.setenv(f"MEMGEN_{name}", value)
    yield path
    succeed("down")
    shutil.rmtree(path, ignore_errors=True)


def _job(job_id: str) -> dict[str, object]:
    shown: dict[str, object] = succeed("jobs", "show", job_id, "--json").document
    return shown.get("job", shown)  # type: ignore[return-value]  # JSON is untyped


def _kill_worker() -> None:
    [worker] = [p for p in succeed("status", "--json").document["processes"] if p["name"] == "worker-gpu"]
    parent = psutil.Process(worker["pid"])
    for process in [parent, *parent.children(recursive=True)]:
        os.kill(process.pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_its_job_goes_on(home: Path, tmp_path: Path) -> None:
    succeed("up")
    file = tmp_path / "runs.jsonl"
    file.write_bytes(b"\n".join(line(chat(f"question {n}", answer="yes")) for n in range(20)))
    succeed("task", "create", "t", "--holdout-share", "0.4")
    succeed("upload", str(file), "--task", "t")
    succeed("adapter", "create", "bot", "--memory", "latents=2", "--memory", "rank=2")
    options = ("--steps", "400", "--set", "batch_size=2", "--no-wait", "--json")
    job_id = succeed("train", "bot", "--task", "t", *options).document["job"]["id"]

    deadline = time.monotonic() + 90
    while int(_job(job_id)["progress"].get("step", 0)) < 20:  # type: ignore[attr-defined]  # JSON is untyped
        assert time.monotonic() < deadline, json.dumps(_job(job_id), indent=1)
        time.sleep(0.1)
    [scratch] = (home / "tmp").glob(f"*/job-{job_id}-*")
    _kill_worker()
    assert scratch.is_dir(), "killed with data in its folder"
    while _job(job_id)["state"] not in ("succeeded", "failed"):
        assert time.monotonic() < deadline + 60, json.dumps(_job(job_id), indent=1)
        time.sleep(0.3)

    job = _job(job_id)
    assert (job["state"], job["attempt"]) == ("succeeded", 2), job["error"]
    messages = [event["message"] for event in succeed("jobs", "events", job_id, "--json").document["data"]]
    assert "continuing from the checkpoint of an earlier attempt" in messages
    assert not scratch.parent.exists(), "whoever began after it swept"
    for folder in (home / "tmp", Path(tempfile.gettempdir())):
        # Not rglob: it raises where a folder of somebody else goes away under it.
        assert [name for _, *entries in os.walk(folder) for name in [*entries[0], *entries[1]] if job_id in name] == []
    versions = succeed("versions", "bot", "--json").document["data"]
    assert [version["number"] for version in versions] == [1]
    assert len(versions[0]["report"]["losses"]) == 400
