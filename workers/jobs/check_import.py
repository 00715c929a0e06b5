"""The job `check_import`: this installation's gate on a version that another one trained."""

from typing import Any

from registry import jobs
from registry.database import transaction
from registry.job_requests import CheckImport
from registry.models import Job, Version
from registry.transfer.admission import accept_origin_verdict, can_be_checked
from registry.versions.records import get_version
from workers.model import Model
from workers.runner import Running
from workers.scoring import score_and_judge


def run(running: Running, model: Model) -> dict[str, Any]:
    """Returns `{"version", "gate", "scores"}`."""
    with transaction(running.services.sessions) as session:
        job = session.get_one(Job, running.job_id)
        adapter, request = jobs.adapter_of(job), jobs.request_as(job, CheckImport)
        version = get_version(session, adapter, request.version)
        checkable = can_be_checked(session, version)
    model.check_base(adapter)
    # Loaded once, so that an artifact which this base can't use is found now, and not by a user.
    model.check_memories(version)
    if checkable:
        judgement = score_and_judge(running, model, version.id)
        passed, scores = judgement.passed, judgement.scores
    else:
        with transaction(running.services.sessions) as session:
            gate = accept_origin_verdict(session, session.get_one(Version, version.id))
        passed, scores = gate.passed, {}
        running.event(gate.reasons[0], {"version": version.number}, level="warning")
    running.event(f"gate {'passed' if passed else 'failed'}", {"version": version.number})
    return {"version": version.number, "gate": "passed" if passed else "rejected", "scores": scores}
