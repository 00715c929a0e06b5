"""Checks of this machine: Python and packages, disks, the local stack, and what a killed one left. Asks no server."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from api.cli.diagnosis.findings import Check, Diagnosis, Installation, fail, ok, skip, warn
from api.local import control
from api.local.state import is_locked, left_processes, lock_owner
from registry.loops.disks import places_of
from registry.recordings.spool import waiting_files
from registry.scratch import sweep
from registry.settings import SERVICE_ENV, Settings
from registry.wording import counted

_DISTRIBUTION = "memgen-service"
_SERVERS = ("database_url", "broker_url", "s3_url")
_SHOWN = 5
_INSTALL = "`make setup` installs what is pinned"


def _python(_: Installation) -> Iterator[Diagnosis]:
    yield ok("Python", f"{platform.python_implementation()} {platform.python_version()}, {sys.executable}")


def _packages(_: Installation) -> Iterator[Diagnosis]:
    try:
        named = [Requirement(text) for text in requires(_DISTRIBUTION) or ()]
    except PackageNotFoundError:
        yield warn("packages", f"{_DISTRIBUTION} is not installed in this environment", _INSTALL)
        return
    needed = [each for each in named if each.marker is None or each.marker.evaluate({"extra": ""})]
    wrong = [text for each in needed if (text := what_is_wrong(each)) is not None]
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        yield fail("packages", ", ".join(wrong[:_SHOWN]) + more, _INSTALL)
    else:
        yield ok("packages", f"{_DISTRIBUTION} {version(_DISTRIBUTION)} and {counted(len(needed), 'package')} it needs")


def what_is_wrong(requirement: Requirement) -> str | None:
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return f"{requirement.name} is missing"
    if requirement.specifier.contains(found, prereleases=True):
        return None
    return f"{requirement.name} is {found}, expected {requirement.specifier}"


def _disks(installation: Installation) -> Iterator[Diagnosis]:
    """A line for each disk, with what is kept there; folders that can't be written to."""
    settings = installation.settings
    places = [
        *places_of(settings),
        ("the spool", settings.spool_dir),
        ("bases", settings.models_dir.expanduser().absolute()),
    ]
    disks: dict[int, tuple[Path, list[str]]] = {}
    for place, path in places:
        there = _nearest(path)
        disks.setdefault(there.stat().st_dev, (there, []))[1].append(place)
        if there == path and place != "the database" and not os.access(path, os.W_OK | os.X_OK):
            yield fail("disk", f"{path} ({place}) can't be written to", "Give it to the user that runs the service")
    for there, kept in disks.values():
        usage, files = shutil.disk_usage(there), os.statvfs(there)
        found = f"{_size(usage.free)} of {_size(usage.total)} free at {there}: {', '.join(kept)}"
        if usage.free < settings.min_free_bytes:
            least = f"below {_size(settings.min_free_bytes)} (MEMGEN_MIN_FREE_BYTES) loops start no training"
            yield fail("disk", found, f"Make room: {least}. `memgen gc` and `memgen versions prune ADAPTER` help")
        elif files.f_files and not files.f_favail:
            yield fail("disk", f"{found}; no file can be made, its inodes are used up", "Remove files of that disk")
        else:
            yield ok("disk", found)


def _nearest(path: Path) -> Path:
    """The folder, or the closest one above it that is there."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB"


def _stack(installation: Installation) -> Iterator[Diagnosis]:
    found: dict[str, Any] = control.status(installation.settings)
    if not found["running"]:
        yield _not_running(installation, found)
        return
    down = [each for each in found["processes"] if each["state"] not in ("running", "external")]
    if found["phase"] == "starting":
        waited = ", ".join(each["name"] for each in down)
        yield warn("stack", f"starting{f', waits for {waited}' if waited else ''}", "Wait, and look again")
        return
    for each in down:
        reason = each["reason"] or f"it is {each['state']}"
        yield fail("stack", f"{each['name']} is down: {reason}", f"It is tried again; its log is {each['log']}")
    if not down:
        yield ok("stack", f"{len(found['processes'])} processes run in {found['home']}")


def _not_running(installation: Installation, found: dict[str, Any]) -> Diagnosis:
    if all(getattr(installation.chosen, name) is not None for name in _SERVERS):
        return skip("stack", "not used: the servers are named by MEMGEN_*_URL")
    if found["phase"] == "failed":
        return fail(
            "stack", f"`memgen up` failed: {found['error']}", f"Mend that, then `memgen up`; see {found['home']}/logs"
        )
    known = (Path(found["home"]) / SERVICE_ENV).exists()
    return warn("stack", f"{'stopped' if known else 'never started'} in {found['home']}", "`memgen up` starts it")


def _leftovers(installation: Installation) -> Iterator[Diagnosis]:
    found = list(_left(installation.settings))
    yield from found or [ok("leftovers", "none")]


def _left(settings: Settings) -> Iterator[Diagnosis]:
    home = settings.home.expanduser().absolute()
    if is_locked(home) and lock_owner(home) is None:
        yield warn("leftovers", "a killed `memgen up` is being cleared away", "Wait some seconds, then `memgen up`")
    if left := left_processes(home):
        named = ", ".join(f"{each.name} (pid {each.pid})" for each in left)
        pids = " ".join(str(each.pid) for each in left)
        yield fail("leftovers", f"a killed `memgen up` left {named}", f"`kill {pids}`, then `memgen up`")
    if folders := sweep(settings.scratch_dir, dry_run=True):
        text = f"{counted(len(folders), 'folder')} of killed processes in {settings.scratch_dir}"
        yield warn("leftovers", text, "The next process of the service that starts here removes them")
    if (waiting := waiting_files(settings.spool_dir)) and lock_owner(home) is None:
        text = f"{counted(waiting, 'file')} of recorded answers in {settings.spool_dir}, not in the database yet"
        yield warn("leftovers", text, "The next API process that starts on this machine takes them over")
    if damaged := sorted([*home.glob("*.damaged-*"), *home.glob("*/*.damaged-*")]):
        text = f"moved aside as damaged: {', '.join(map(str, damaged[:_SHOWN]))}"
        yield warn("leftovers", text, "It was made anew; remove it once you have looked at it")


CHECKS = (
    Check("Python", _python),
    Check("packages", _packages),
    Check("disk", _disks),
    Check("stack", _stack),
    Check("leftovers", _leftovers),
)
