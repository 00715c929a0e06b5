"""docs/first.sh on a real service with a tiny base; the README shows it line by line, and `make first` runs it."""

import os
import subprocess
import sys
from pathlib import Path

from memgen_client import Client
from registry.settings import Settings
from tests.api.live_api import serve
from tests.docs.beside import run_beside, wait_until_ready
from tests.docs.pages import ROOT
from tests.workers.conftest import Workshop, settings, workshop

__all__ = ["settings", "workshop"]

SCRIPT = ROOT / "docs" / "first.sh"


def test_the_page_shows_what_is_run() -> None:
    _, _, commands = SCRIPT.read_text(encoding="utf-8").partition("\n")
    assert f"```sh\n{commands}```" in (ROOT / "README.md").read_text(encoding="utf-8")
    made = subprocess.run(["make", "-n", "first"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert "memgen up && sh -v docs/first.sh" in made.stdout


def test_it_uploads_trains_and_asks(settings: Settings, workshop: Workshop, api_key: str, tmp_path: Path) -> None:
    """Whether the tiny base learns to greet is another matter: the last question is answered by who serves."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with serve(settings.model_copy(update={"torch_threads": 1}), serve_model=True) as url:
        wait_until_ready(url)
        environment = {"MEMGEN_API_URL": url, "MEMGEN_API_KEY": api_key, "PATH": path}
        printed = run_beside(workshop, ["sh", str(SCRIPT)], environment, cwd=tmp_path)
        with Client(url, api_key) as client:
            tasks = {task.name: task for task in client.tasks.list()}
            verdicts = [version.verdict for version in client.versions.all("sailor")]
    assert tasks["greetings"].trajectories == 60
    assert 0 < tasks["greetings"].held_out < 30
    assert len(verdicts) == 1
    assert verdicts[0] in ("passed", "rejected"), printed
