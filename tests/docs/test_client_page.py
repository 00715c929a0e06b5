"""docs/client.md against the code: its examples run in order on a real API; its advice is that of the errors' page.

What other pages call is there too.
"""

import json
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from memgen_client import Client, errors
from memgen_client.advice import ADVICE
from registry import jobs
from registry.database import transaction
from registry.models import Job
from registry.settings import Settings
from registry.tasks import get_task
from registry.wiring import Services
from tests.api.live_api import serve
from tests.api.stored import make_gate, make_scores, make_version
from tests.docs.pages import PAGES, blocks, spans
from tests.trajectory_samples import chat

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "client.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
CALLED = sorted(
    {
        call
        for page in PAGES
        if page.name != "openai.md"  # other services' clients
        for code in (*blocks(page), *spans(page))
        for call in re.findall(r"\bclient\.(\w+)\.(\w+)\(", code)
    }
)


@contextmanager
def a_worker(services: Services, project_id: uuid.UUID) -> Iterator[None]:
    """Takes jobs as a worker does, and makes their versions of nothing."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.1):
            with transaction(services.sessions) as session:
                queued = [job for job in jobs.list_jobs(session, project_id, before=None, limit=9) if _waits(job)]
                for job in queued:
                    attempt = jobs.claim(session, job.id, "test", 60) or 0
                    assert job.adapter is not None
                    task = get_task(session, project_id, "support")
                    version = make_version(session, job.adapter, task, job)
                    make_gate(session, version, task, before=0.1, after=0.9)
                    make_scores(session, job.adapter, task, {None: 0.1, version: 0.9})
                    jobs.finish(session, job.id, attempt, "succeeded", result={"version": version.number})

    thread = threading.Thread(target=work, name="test-worker")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=20)


def _waits(job: Job) -> bool:
    return job.state == "queued"


def test_the_examples_run(
    settings: Settings,
    tiny_base: Path,
    services: Services,
    project_id: uuid.UUID,
    api_key: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert len(EXAMPLES) > 9
    served = settings.model_copy(update={"base_model": str(tiny_base), "torch_threads": 1})
    file = "".join(json.dumps(chat(f"question {number}")) + "\n" for number in range(20)) + "{\n"
    (tmp_path / "runs.jsonl").write_text(file, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    with serve(served, serve_model=True) as url, a_worker(services, project_id):
        monkeypatch.setenv("MEMGEN_API_URL", url)
        monkeypatch.setenv("MEMGEN_API_KEY", api_key)
        for number, example in enumerate(EXAMPLES):
            exec(compile(example, f"docs/client.md, example {number + 1}", "exec"), names)
    out = capsys.readouterr().out
    size = len(file.encode())
    for said in (f"{size} of {size} bytes", "21 invalid_json", "support-bot@1", "stale_alias", "'support-bot'] "):
        assert said in out, out
    assert "<svg" in str(names["html"])


@pytest.mark.parametrize(("noun", "verb"), CALLED)
def test_what_a_page_calls_is_of_the_client(noun: str, verb: str) -> None:
    with Client("http://127.0.0.1:1", "mg_any") as client:
        assert callable(getattr(getattr(client, noun), verb))


def test_every_class_of_refusal_is_on_the_page() -> None:
    table = PAGE.split("| class | status |")[1].split("\n\n")[0]
    named = set(re.findall(r"`([A-Z]\w+)`", table))
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.ApiError)]
    assert named == {kind.__name__ for kind in kinds} - {"ApiError"}


def test_the_client_s_advice_is_that_of_the_page_of_errors() -> None:
    """Where this fails: `packages/memgen-client/src/memgen_client/advice.py` says what docs/errors.md says."""
    section = (DOCS / "errors.md").read_text(encoding="utf-8").split("## Errors of the service")[1].split("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in section.split("\n") if line.startswith("| `")]
    said = {row[0].strip(" `"): re.sub(r"\[([^]]*)\]\([^)]*\)", r"docs/\1", row[3].strip()) for row in rows}
    assert said == ADVICE
