"""Programs of the docs, run against a service with a tiny base, and the worker that works for it meanwhile."""

import os
import subprocess
import time
from pathlib import Path

from memgen_client import Client
from registry import jobs
from registry.database import transaction
from tests.workers.conftest import Workshop

PATIENCE_SECONDS = 400.0


def run_beside(workshop: Workshop, command: list[str], environment: dict[str, str], *, cwd: Path) -> str:
    """Run a program in a process of its own, and work for it as a worker does. Returns what it printed.

    It fails where the program does.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    told = subprocess.PIPE
    with subprocess.Popen(command, cwd=cwd, env=os.environ | environment, stdout=told, stderr=told, text=True) as run:
        try:
            while run.poll() is None and time.monotonic() < deadline:
                with transaction(workshop.services.sessions) as session:
                    rows = jobs.list_jobs(session, workshop.project_id, before=None, limit=9)
                    queued = [row.id for row in rows if row.state == "queued"]
                for job_id in queued:
                    workshop.work(job_id)
                time.sleep(0.05)
        finally:
            run.kill()  # nothing where it has ended
        printed, errors = run.communicate()
    assert run.returncode == 0, errors
    return printed


def wait_until_ready(url: str) -> None:
    """As `memgen up` does."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    with Client(url, "") as client:
        while client.health.ready().status != "ready":
            assert time.monotonic() < deadline
            time.sleep(0.05)
