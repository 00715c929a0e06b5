"""How full the disks are that the service writes to, as far as this machine can see.

The home and its local servers' folders are looked at; a PostgreSQL or an object store elsewhere watches its own disk.
"""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from registry.settings import Settings


@dataclass(frozen=True)
class Disk:
    place: str
    """What is kept there, for people."""
    path: Path
    free_bytes: int
    total_bytes: int


def places_of(settings: Settings) -> list[tuple[str, Path]]:
    """What is written to while the service works, for people, and where: some of it may not be there yet."""
    home = settings.home.expanduser().absolute()
    return [
        ("the home", home),
        ("the database", home / "postgres"),
        ("the object store", home / "seaweed"),
        ("the scratch folder", settings.scratch_dir),
    ]


def disks_of(settings: Settings) -> list[Disk]:
    """The disks of the home, of the local database and object store and of the scratch folder, each once."""
    return list(_each_device_once(places_of(settings)))


def full_disks(settings: Settings) -> list[Disk]:
    """The disks with less free space than `min_free_bytes`."""
    return [disk for disk in disks_of(settings) if disk.free_bytes < settings.min_free_bytes]


def _each_device_once(places: Iterable[tuple[str, Path]]) -> Iterable[Disk]:
    seen: set[int] = set()
    for place, path in places:
        try:
            device, usage = path.stat().st_dev, shutil.disk_usage(path)
        except OSError:  # not there: a server elsewhere, or nothing written yet
            continue
        if device not in seen:
            seen.add(device)
            yield Disk(place, path, usage.free, usage.total)
