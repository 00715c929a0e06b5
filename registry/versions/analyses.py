"""Analyses: what jobs of the kind `analyze` have found out about versions.

An analysis is a folder in the store, which its job's result names by the hash of its manifest, as a version names its
artifact. It holds numbers, tokens of the vocabulary and ids of held-out trajectories, and none of their words. The
numbers follow from the trajectories all the same, so the folder goes with any of them (`registry.deletion.erasure`).
What a running job has finished so far stands in a folder of the same kind, named by the job.
"""

import tarfile
import tempfile
import uuid
from collections.abc import Collection
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.errors import AnalysisNotFound, ObjectNotFound
from registry.job_requests import JobKind
from registry.jobs import LIVE
from registry.models import Job, Version
from registry.object_store import ObjectStore

ANALYSIS_FILE = "analysis.json"
"""File of the folder that says what was found."""
ITEMS_FILE = "items.jsonl"
"""Files of this name, in the folder and below it, say in each line's `item` the id of a trajectory that was read."""

_GONE = "the analysis is gone: a held-out trajectory that it had read was deleted. `memgen analyze` makes a new one"


def analyses_prefix(project_id: uuid.UUID) -> str:
    """Prefix of all of a project's analyses."""
    return f"projects/{project_id}/analyses/"


def analysis_folder(project_id: uuid.UUID, name: str) -> str:
    """Folder in the object store; `name` is the hash of the analysis's manifest, or the id of the job at work on it."""
    return f"{analyses_prefix(project_id)}{name}"


def newest_analysis(session: Session, version: Version) -> Job:
    """The last job that has analyzed the version.

    Raises:
        AnalysisNotFound: none has.
    """
    found = session.scalars(
        select(Job)
        .where(
            Job.adapter_id == version.adapter_id,
            Job.kind == JobKind.ANALYZE.value,
            Job.state == "succeeded",
            Job.params["version"].as_string() == str(version.number),
        )
        .order_by(Job.seq.desc())
        .limit(1)
    ).one_or_none()
    if found is None:
        name = f"{version.adapter.name}@{version.number}"
        raise AnalysisNotFound(f"no job has analyzed {name} yet; `memgen analyze {name}` starts one")
    return found


def folder_of_job(job: Job) -> str:
    """Folder of what the job has found.

    Raises:
        AnalysisNotFound: it is of another kind, or has not come to its end.
    """
    name = (job.result or {}).get("analysis") if job.kind == JobKind.ANALYZE else None
    if not isinstance(name, str):
        raise AnalysisNotFound(
            f"job {job.id} of kind {job.kind} is {job.state} and has no analysis; `memgen jobs show {job.id}` says more"
        )
    return analysis_folder(job.project_id, name)


def read_analysis(store: ObjectStore, folder: str) -> bytes:
    """The JSON of an analysis.

    Raises:
        AnalysisNotFound: it went with a trajectory that it had read.
    """
    try:
        return store.get(f"{folder}/{ANALYSIS_FILE}")
    except ObjectNotFound as error:
        raise AnalysisNotFound(_GONE) from error


def pack_analysis(store: ObjectStore, folder: str, path: Path) -> None:
    """Write a tar of all files of an analysis.

    Raises:
        AnalysisNotFound: as `read_analysis`.
    """
    with tempfile.TemporaryDirectory(prefix="analysis-", dir=path.parent) as name:
        try:
            store.get_folder(folder, Path(name))
        except ObjectNotFound as error:
            raise AnalysisNotFound(_GONE) from error
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
            for file in sorted(each for each in Path(name).rglob("*") if each.is_file()):
                member = tarfile.TarInfo(file.relative_to(name).as_posix())
                member.size = file.stat().st_size
                with file.open("rb") as content:
                    tar.addfile(member, content)


def kept_analyses(session: Session, project_id: uuid.UUID, folders: Collection[str]) -> set[str]:
    """The folders among these that a job's result names, or that belong to a job which has not ended."""
    names = {folder.rpartition("/")[2] for folder in folders if folder.startswith(analyses_prefix(project_id))}
    of_kind = Job.project_id == project_id, Job.kind == JobKind.ANALYZE.value
    named = Job.result["analysis"].as_string()
    kept = set(session.scalars(select(named).where(*of_kind, named.in_(names))))
    kept |= names & {str(job_id) for job_id in session.scalars(select(Job.id).where(*of_kind, Job.state.in_(LIVE)))}
    return {analysis_folder(project_id, name) for name in kept}
