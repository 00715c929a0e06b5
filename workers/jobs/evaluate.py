"""The job `evaluate`: score a version and the bare base on the suites of all tasks of its lineage.

If it is asked to judge, it does what the version's own job did not come to, because that failed: its gate.
"""

from typing import Any

from registry import jobs
from registry.database import transaction
from registry.job_requests import Evaluate
from registry.models import Job
from registry.versions.ancestry import learned_tasks
from registry.versions.records import get_version
from workers.model import Model
from workers.queue import Send
from workers.registration import judge
from workers.runner import Running
from workers.scoring import score_tasks


def run(running: Running, model: Model, send: Send | None = None) -> dict[str, Any]:
    """Returns `{"version", "scores"}`, and `gate` and `retry` as `workers.registration.judge` if it judged.

    Args:
        send: sends a job to the workers; without it the reaper does.
    """
    with transaction(running.services.sessions) as session:
        job = session.get_one(Job, running.job_id)
        adapter, request = jobs.adapter_of(job), jobs.request_as(job, Evaluate)
        version = get_version(session, adapter, request.version)
        tasks = learned_tasks(session, version)
    if request.judge:
        model.check_base(adapter)
        return judge(running, model, version, send)
    found = score_tasks(running, model, adapter, [None, version], tasks)
    return {"scores": found.by_subject, "version": version.number}
