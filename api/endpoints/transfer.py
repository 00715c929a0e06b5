"""Versions between installations: exported to one tar file, and imported from one."""

import os
import tempfile
import uuid
from pathlib import Path

import anyio
from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from api.endpoints.jobs import send_job
from api.endpoints.tasks import check_grader
from api.http.deps import IsHead, Promoter, ServicesDep, Trainer
from api.http.file_once import FileOnce
from api.http.values import Number
from registry.adapters import get_adapter
from registry.database import transaction
from registry.errors import InvalidArchive
from registry.keys import Principal
from registry.tasks import find_tasks
from registry.trajectories.records import lock_trajectories
from registry.transfer.admission import admit, check_fits
from registry.transfer.archive import describe_version, read_archive, write_archive
from registry.transfer.provenance import check_learned_nothing_deleted
from registry.versions.artifacts import artifact_beside, artifact_key
from registry.versions.records import get_version
from registry.versions.state import check_exportable, record_change
from registry.wiring import Services

_TAR = "application/x-tar"
router = APIRouter(prefix="/v1/adapters/{name}/versions", tags=["versions"])


class ImportedOut(BaseModel):
    adapter: str
    number: int
    created: bool
    """False where the adapter has a version of the same artifact."""
    restored: bool
    """Retention had removed the bytes of that version, and they are back."""
    origin: str
    check_job: uuid.UUID | None
    """The job that judges the version by this installation's gate; no alias moves to it before it has passed."""


@router.get("/{number}/export", response_class=FileResponse)
def export(name: str, number: Number, services: ServicesDep, caller: Promoter, is_head: IsHead) -> Response:
    """A tar: `version.json` with the lineage, `artifact/` with its manifest and, with strategy `isolated`, each other
    task's memory as `parts/<hash>/`.

    Asks for scope `promote`: weights that have left can't be withdrawn, so the scope that decides where a version
    serves decides this too. The version's history names the key."""
    with transaction(services.sessions) as session:
        version = get_version(session, get_adapter(session, caller.project_id, name), number)
        check_exportable(session, version)
        description, key = describe_version(session, version), version.artifact_key
    filename = f"{name}-{number}.tar"
    if is_head:  # nothing leaves, so nothing is written and nothing recorded
        return Response(media_type=_TAR, headers={"Content-Disposition": f'attachment; filename="{filename}"'})
    descriptor, made = tempfile.mkstemp(prefix="export-", suffix=".tar", dir=services.scratch.folder)
    os.close(descriptor)
    path = Path(made)
    try:
        write_archive(services.store, description, key, path)
        with transaction(services.sessions) as session:
            version = get_version(session, get_adapter(session, caller.project_id, name), number)
            # Checked again: a deletion may have withdrawn it while the file was written.
            check_exportable(session, version)
            record_change(session, version, "exported", actor=caller.actor)
    except BaseException:
        path.unlink()
        raise
    return FileOnce(path, media_type=_TAR, filename=filename)


@router.post("/import", status_code=202)
async def import_(name: str, request: Request, services: ServicesDep, caller: Trainer) -> ImportedOut:
    """Send the tar itself: `curl --data-binary @version.tar`. Importing the same again is harmless.

    A version that learned data which was deleted in this project is refused (403)."""
    limit = services.settings.max_archive_bytes
    with tempfile.TemporaryDirectory(prefix="import-", dir=services.scratch.folder) as folder:
        path, size = Path(folder) / "archive.tar", 0
        async with await anyio.open_file(path, "wb") as file:
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise InvalidArchive(f"the archive exceeds {limit} bytes (MEMGEN_MAX_ARCHIVE_BYTES)")
                await file.write(chunk)
        out = await run_in_threadpool(import_version, services, caller, name, path, Path(folder) / "artifact")
    if out.check_job is not None:
        await run_in_threadpool(send_job, request, services, out.check_job)
    return out


def import_version(services: Services, caller: Principal, name: str, path: Path, folder: Path) -> ImportedOut:
    """Register the version of a file as the adapter's next. Its bytes are stored first, then its row.

    Args:
        folder: where the file is unpacked; empty or absent.
    """
    archive = read_archive(path, folder, max_bytes=services.settings.max_archive_bytes)
    description = archive.description
    origin = f"{description['adapter']}@{description['number']}"
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, caller.project_id, name)
        check_fits(adapter, description)
        check_learned_nothing_deleted(session, caller.project_id, description)
        known = find_tasks(session, caller.project_id, [task["name"] for task in description["tasks"]])
    for task in description["tasks"]:
        if task["name"] not in known:
            check_grader(task["grader"])
    key = artifact_key(caller.project_id, description["artifact_hash"])
    services.store.put_folder(key, archive.folder)
    for part, files in archive.parts.items():
        services.store.put_folder(artifact_beside(key, part), files)
    with transaction(services.sessions) as session:
        # Locked before the adapter, as a deletion does: so either the deletion sees this version, or this import sees
        # the deletion.
        lock_trajectories(session, caller.project_id)
        adapter = get_adapter(session, caller.project_id, name, lock=True)
        found = admit(session, adapter, description, archive.report, key=key, actor=caller.actor)
        return ImportedOut(
            adapter=name,
            number=found.version.number,
            created=found.check is not None,
            restored=found.restored,
            origin=origin,
            check_job=found.check.id if found.check else None,
        )
