"""A version as a folder, in the layout of a Hugging Face repository.

    README.md        the model card (`model_card.py`)
    version.json     what an export's archive has under these names (`registry.transfer.archive`)
    artifact/
    parts/

Files are safetensors and JSON alone: nothing that has to be unpickled is sent or fetched. Knows no hub.
"""

import shutil
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from api.cli.invocation import CommandFailed
from api.cli.model_card import CARD
from registry.errors import InvalidArchive
from registry.transfer.archive import FOLDERS, Archive, member_path, read_archive
from registry.transfer.description import DESCRIPTION, read_object
from registry.transfer.tar_members import MAX_MEMBERS, checked_name
from registry.wording import counted

PATTERNS = [CARD, DESCRIPTION, *(f"{name}/*" for name in FOLDERS)]
"""The hub's library lets `*` stand for slashes, too."""
_SUFFIXES = (".safetensors", ".json")
_EXPERIENCE = "experience"
_ENTRIES = "entries.json"


def unpack(archive: Path, folder: Path, *, max_bytes: int) -> Archive:
    """Lay an export's archive out in `folder`, empty or absent, and check every byte. Raises InvalidArchive."""
    found = read_archive(archive, folder, max_bytes=max_bytes)
    with tarfile.open(archive) as tar:  # its members were found to be plain files of this layout
        member = tar.extractfile(DESCRIPTION)
        assert member is not None
        (folder / DESCRIPTION).write_bytes(member.read())
    check_names(_names_in(folder))
    return found


def experience_in(folder: Path) -> str | None:
    """In words, the text of trajectories that lies in it for the cues of a weaver; None if there is none."""
    found = [name for name in _names_in(folder) if _EXPERIENCE in PurePosixPath(name).parts]
    if not found:
        return None
    entries = [_object(folder / name) for name in found if PurePosixPath(name).name == _ENTRIES]
    lists = {kind: [each.get(kind) for each in entries] for kind in ("trajectories", "insights")}
    trajectories, insights = (sum(len(each) for each in lists[kind] if isinstance(each, list)) for kind in lists)
    return f"{counted(trajectories, 'trajectory')} word for word and {counted(insights, 'insight')}"


def check_names(names: Iterable[str]) -> None:
    """Raise InvalidArchive unless the layout's files are those of an archive: safetensors and JSON, within its folders,
    not too many, the description among them."""
    ours = [name for name in names if is_ours(name)]
    if DESCRIPTION not in ours:
        raise InvalidArchive(f"there is no {DESCRIPTION}; expected what `memgen push` wrote")
    if len(ours) > MAX_MEMBERS:
        raise InvalidArchive(f"there are {len(ours)} files; expected at most {MAX_MEMBERS}")
    inside = [name for name in ours if name != CARD]
    if foreign := sorted(name for name in inside if not name.endswith(_SUFFIXES)):
        raise InvalidArchive(f"there are {foreign[:3]}; expected {' and '.join(_SUFFIXES)} files alone")
    for name in inside:
        member_path(checked_name(name))


def is_ours(name: str) -> bool:
    """Whether a file of a repository is of the layout; others are neither fetched nor touched."""
    return name in (CARD, DESCRIPTION) or PurePosixPath(name).parts[:1] in {(each,) for each in FOLDERS}


def sizes_in(folder: Path) -> dict[str, int]:
    """Bytes by file of the layout."""
    return {name: (folder / name).stat().st_size for name in _names_in(folder)}


def check_target(target: Path) -> None:
    """Raise CommandFailed unless the layout may be copied there: a new or empty folder, or one with a version."""
    if target.exists() and not target.is_dir():
        raise CommandFailed(f"{target} is a file; expected a folder, or a name such as owner/repository of the hub.")
    if target.is_dir() and any(target.iterdir()) and not (target / DESCRIPTION).is_file():
        raise CommandFailed(f"{target} is not empty, and has no version to replace; name another folder.")
    for name in (CARD, DESCRIPTION, *FOLDERS):
        if (target / name).is_symlink():
            raise CommandFailed(
                f"{target / name} is a link, and what it leads to would be overwritten; remove it, or name another "
                "folder."
            )


def copy_to(folder: Path, target: Path) -> None:
    """Copy the layout to a folder that `check_target` lets pass; a version that is there is replaced."""
    target.mkdir(parents=True, exist_ok=True)
    # The description comes first: a copy that broke off can be made again, and nobody takes it for a version, because
    # its files are not those that the description names.
    shutil.copyfile(folder / DESCRIPTION, target / DESCRIPTION)
    for name in FOLDERS:
        if (target / name).exists():
            shutil.rmtree(target / name)
    for name in _names_in(folder):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, target / name)


def names_in_folder(folder: Path) -> list[str]:
    """Files of the layout in a folder of the user's. Raises CommandFailed if it is none."""
    if not folder.is_dir():
        raise CommandFailed(f"{folder} is no folder; expected one, or a name such as owner/repository of the hub.")
    return list(_names_in(folder))


def _object(path: Path) -> dict[str, object]:
    """Raises InvalidArchive."""
    return read_object(path.read_bytes(), path.name)


def _names_in(folder: Path) -> Iterator[str]:
    """Files of the layout; what else lies in the folder is not looked at."""
    inside = (path for name in FOLDERS for path in sorted((folder / name).rglob("*")))
    for path in (folder / CARD, folder / DESCRIPTION, *inside):
        if path.is_file():
            yield path.relative_to(folder).as_posix()
