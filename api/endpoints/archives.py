"""Versions between installations: out as one archive, in from one."""

import tempfile
import uuid
from pathlib import Path

import anyio
from fastapi import APIRouter, Request
from fastapi.responses import FileResponse
from pydantic import BaseModel
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool

from api.deps import Reader, ServicesDep, Trainer
from api.endpoints.jobs import send_job
from registry.adapters import get_adapter
from registry.database import transaction
from registry.errors import InvalidArchive
from registry.exports import describe_version, read_archive, write_archive
from registry.keys import Principal
from registry.version_imports import check_fits, find_import, import_version
from registry.version_standing import check_not_purged, record_change
from registry.versions import get_version
from registry.wiring import Services

router = APIRouter(prefix="/v1/adapters/{name}/versions", tags=["versions"])


class ImportedOut(BaseModel):
    adapter: str
    number: int
    created: bool
    """False where the same artifact was imported before."""
    origin: str
    check_job: uuid.UUID | None
    """Of this installation's gate; no alias moves to the version before it has passed."""


@router.get("/{number}/export", response_class=FileResponse)
def export(name: str, number: int, services: ServicesDep, caller: Reader) -> FileResponse:
    """A tar: `version.json` with the lineage, and `artifact/` with its manifest."""
    with transaction(services.sessions) as session:
        version = get_version(session, get_adapter(session, caller.project_id, name), number)
        check_not_purged(session, version)
        description, key = describe_version(session, version), version.artifact_key
    path = Path(tempfile.mkstemp(prefix="memgen-export-", suffix=".tar")[1])
    try:
        write_archive(services.store, description, key, path)
        with transaction(services.sessions) as session:
            version = get_version(session, get_adapter(session, caller.project_id, name), number)
            record_change(session, version, "exported", actor=f"key {caller.name}")
    except BaseException:
        path.unlink()
        raise
    return FileResponse(
        path,
        media_type="application/x-tar",
        filename=f"{name}-{number}.tar",
        background=BackgroundTask(path.unlink),
    )


@router.post("/import", status_code=202)
async def import_(name: str, request: Request, services: ServicesDep, caller: Trainer) -> ImportedOut:
    """Send the tar itself: `curl --data-binary @version.tar`. Importing the same again is harmless."""
    limit = services.settings.max_archive_bytes
    with tempfile.TemporaryDirectory(prefix="memgen-import-") as folder:
        path, size = Path(folder) / "archive.tar", 0
        async with await anyio.open_file(path, "wb") as file:
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise InvalidArchive(f"the archive exceeds {limit} bytes (MEMGEN_MAX_ARCHIVE_BYTES)")
                await file.write(chunk)
        out = await run_in_threadpool(_import, services, caller, name, path, Path(folder) / "artifact")
    if out.check_job is not None:
        await run_in_threadpool(send_job, request, services, out.check_job)
    return out


def _import(services: Services, caller: Principal, name: str, path: Path, folder: Path) -> ImportedOut:
    """Bytes first, then the row."""
    archive = read_archive(path, folder, max_bytes=services.settings.max_archive_bytes)
    description = archive.description
    origin = f"{description['adapter']}@{description['number']}"
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, caller.project_id, name)
        check_fits(adapter, description)
    key = f"projects/{caller.project_id}/artifacts/{description['artifact_hash']}"
    services.store.put_folder(key, archive.folder)
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, caller.project_id, name, lock=True)
        known = find_import(session, adapter, description["artifact_hash"])
        if known is not None:
            return ImportedOut(adapter=name, number=known.number, created=False, origin=origin, check_job=None)
        version, check = import_version(
            session, adapter, description, archive.report, key=key, actor=f"key {caller.name}"
        )
        return ImportedOut(adapter=name, number=version.number, created=True, origin=origin, check_job=check.id)
