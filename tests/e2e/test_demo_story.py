"""The demo's story on a tiny base and tasks that it learns in seconds: forgetting is stopped, and said so."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from api.cli.demo_story import story
from api.cli.demo_story.sources import DemoTask
from memgen_client import JsonClient
from registry import jobs
from registry.database import transaction
from registry.settings import Settings
from tests.api.live_api import serve
from tests.workers.conftest import MEMORY, TRAINING, Workshop, answers, settings, workshop
from workers.jobs import check_import
from workers.model import Model

__all__ = ["settings", "workshop"]

ADAPTERS = ("demo", "demo-one-memory")


def _task(word: str, **more: object) -> DemoTask:
    return DemoTask(
        name=word,
        about=f"says {word}",
        grader={"kind": "exact"},
        holdout_share=0.3,
        trajectories=lambda: answers(word, 60),
        training=TRAINING,
        **more,  # type: ignore[arg-type]  # fields of DemoTask
    )


@contextmanager
def _a_worker(workshop: Workshop) -> Iterator[None]:
    """Takes jobs as they come."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.05):
            with transaction(workshop.services.sessions) as session:
                rows = jobs.list_jobs(session, workshop.project_id, before=None, limit=9)
                queued = [row.id for row in rows if row.state == "queued"]
            for job_id in queued:
                workshop.work(job_id)

    thread = threading.Thread(target=work, name="test-worker")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=60)


def test_the_story_ends_well(
    settings: Settings, workshop: Workshop, api_key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    workshop.handlers["check_import"] = partial(check_import.run, model=Model(workshop.services))
    tasks = (_task("yes"), _task("nope", spoiling={**TRAINING, "steps": 60}))
    served = settings.model_copy(update={"torch_threads": 1})
    with (
        serve(served, serve_model=True) as url,
        _a_worker(workshop),
        JsonClient(url, api_key, timeout=300) as client,
    ):
        while client.health.ready()["status"] != "ready":
            time.sleep(0.05)
        report = story._story(client, time.monotonic(), tasks=tasks, memory=MEMORY)
        moves, nobody = ([move["to_version"] for move in client.aliases.all_history(name)] for name in ADAPTERS)
    assert (report["forgetting_stopped"], report["gate"], report["rollback_ok"]) == (True, "passed", True), report
    yes, nope = report["tasks"]
    assert yes["v1"] - yes["one_memory"] > story.GATE_MARGIN >= yes["v1"] - yes["v2"]
    assert nope["v2"] > nope["base"]
    assert (moves, nobody) == ([1, 2, 1], [1]), "nobody was ever answered by the one that forgot"
    shown = " ".join(capsys.readouterr().out.split())
    assert "Gate: rejected" in shown
    assert "demo-one-memory is still answered by its version 1." in shown
