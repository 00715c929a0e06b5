"""The job `evaluate`: score a version and the bare base on the suites of all tasks of its lineage."""

from typing import Any

from registry import jobs
from registry.database import transaction
from registry.job_requests import Evaluate
from registry.models import Job
from registry.versions.ancestry import learned_tasks
from registry.versions.records import get_version
from workers.model import Model
from workers.runner import Running
from workers.scoring import score_tasks


def run(running: Running, model: Model) -> dict[str, Any]:
    """Returns `{"version", "scores"}`."""
    with transaction(running.services.sessions) as session:
        job = session.get_one(Job, running.job_id)
        adapter, request = jobs.adapter_of(job), jobs.request_as(job, Evaluate)
        version = get_version(session, adapter, request.version)
        tasks = learned_tasks(session, version)
    found = score_tasks(running, model, adapter, [None, version], tasks)
    return {"scores": found.by_subject, "version": version.number}
