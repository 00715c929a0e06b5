"""From a trained memory to a version: artifact stored, row registered, evaluated, judged."""

import json
from typing import Any

from memgen.artifacts.artifact import save_artifact, trained_parts
from memgen.artifacts.report import Report
from memgen.errors import Cancelled
from registry.adapters import get_adapter
from registry.database import transaction
from registry.models import Adapter, Job, Version
from registry.versions.artifacts import artifact_key
from registry.versions.records import register_version
from workers.code_version import code_version
from workers.model import Model
from workers.queue import Send
from workers.runner import Running
from workers.scoring import score_and_judge
from workers.workspace import Workspace


def register(
    running: Running, model: Model, adapter: Adapter, parent: Version | None, workspace: Workspace, report: Report
) -> Version:
    """Store the workspace's memory, with what its artifact has already, as the job's version: bytes, then the row.

    Raises:
        Cancelled: the job was cancelled, or another worker has it now.
    """
    artifact_hash = save_artifact(model.host, workspace.memory, workspace.artifact, report)
    prefix = artifact_key(adapter.project_id, artifact_hash)
    running.services.store.put_folder(prefix, workspace.artifact)
    running.check()
    memory = model.host.memories[workspace.memory]
    stored_report = json.loads((workspace.artifact / "report.json").read_text()) | {"trained": trained_parts(memory)}
    with transaction(running.services.sessions) as session:
        locked = get_adapter(session, adapter.project_id, adapter.name, lock=True)
        job = session.get_one(Job, running.job_id)
        if job.cancel_requested:  # for example by a deletion that held the lock: no version may learn its data now
            raise Cancelled(f"job {job.id} was cancelled")
        version = register_version(
            session,
            job,
            locked,
            parent_id=parent.id if parent else None,
            artifact_key=prefix,
            artifact_hash=artifact_hash,
            code_version=code_version(),
            report=stored_report,
        )
    running.event(f"registered {adapter.name}@{version.number}", {"flags": list(report.flags)})
    if memory.has_untrained_trigger:
        running.event(
            f"the trigger of {adapter.name}@{version.number} is not trained yet: until a train_trigger job has done "
            "it, evaluation and serving weave at every decision point",
            {"trained": stored_report["trained"]},
            level="warning",
        )
    return version


def judge(running: Running, model: Model, version: Version, send: Send | None = None) -> dict[str, Any]:
    """Evaluate a version and let the gate judge it.

    Args:
        send: sends the job that trains once more, if there is one; without it the reaper does.

    Returns:
        `{"version", "gate", "scores"}`, and `retry` with the id of the job that trains once more.
    """
    judged = score_and_judge(running, model, version.id)
    if judged.retry is not None and send is not None:
        send(judged.retry)
    running.event(f"gate {'passed' if judged.passed else 'failed'}", {"version": version.number})
    result = {"version": version.number, "gate": "passed" if judged.passed else "rejected", "scores": judged.scores}
    return result | ({"retry": str(judged.retry)} if judged.retry else {})
