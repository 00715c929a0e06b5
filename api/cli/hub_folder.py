"""A version as a folder, in the layout of a Hugging Face repository: to and from the hub, or another folder.

    README.md        the model card (`model_card.py`)
    version.json     what an export's archive has under these names (`registry.transfer.archive`)
    artifact/
    parts/

Files are safetensors and JSON alone: nothing that has to be unpickled is sent or fetched. Who the user is, the hub's
own library knows: by HF_TOKEN, or from its login. No token is read or kept here.
"""

import shutil
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NoReturn

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils.tqdm import disable_progress_bars

from api.cli.invocation import CommandFailed
from api.cli.model_card import CARD
from api.cli.output import notes
from registry.errors import InvalidArchive
from registry.transfer.archive import FOLDERS, Archive, read_archive
from registry.transfer.description import DESCRIPTION

_SUFFIXES = (".safetensors", ".json")
_PATTERNS = [CARD, DESCRIPTION, *(f"{name}/*" for name in FOLDERS)]
"""The hub's library lets `*` stand for slashes, too."""
_EXPERIENCE = "experience"
_LIBRARY = "memgen"
_LOGIN = " Is the name right, and has the token of HF_TOKEN, or of the login by `hf auth login`, access to it?"
_LONGEST_REASON = 400


def unpack(archive: Path, folder: Path, *, max_bytes: int) -> Archive:
    """Lay an export's archive out in `folder`, empty or absent, and check every byte. Raises InvalidArchive."""
    found = read_archive(archive, folder, max_bytes=max_bytes)
    with tarfile.open(archive) as tar:  # its members were found to be plain files of this layout
        member = tar.extractfile(DESCRIPTION)
        assert member is not None
        (folder / DESCRIPTION).write_bytes(member.read())
    check_names(_names_in(folder))
    return found


def has_experience(folder: Path) -> bool:
    """Whether trajectories lie in it word for word, for the cues of a weaver."""
    return any(_EXPERIENCE in PurePosixPath(name).parts for name in _names_in(folder))


def check_names(names: Iterable[str]) -> None:
    """Raise InvalidArchive if a file of the layout is neither safetensors nor JSON, or the description is missing."""
    ours = [name for name in names if _is_ours(name)]
    if DESCRIPTION not in ours:
        raise InvalidArchive(f"there is no {DESCRIPTION}; expected what `memgen push` wrote")
    if foreign := sorted(name for name in ours if name != CARD and not name.endswith(_SUFFIXES)):
        raise InvalidArchive(f"there are {foreign[:3]}; expected {' and '.join(_SUFFIXES)} files alone")


def check_target(target: Path) -> None:
    """Raise CommandFailed unless the layout may be copied there: a new or empty folder, or one with a version."""
    if target.exists() and not target.is_dir():
        raise CommandFailed(f"{target} is a file; expected a folder, or a name such as owner/repository of the hub.")
    if target.is_dir() and any(target.iterdir()) and not (target / DESCRIPTION).is_file():
        raise CommandFailed(f"{target} is not empty, and has no version to replace; name another folder.")


def copy_to(folder: Path, target: Path) -> None:
    """Copy the layout to a folder that `check_target` lets pass; a version that is there is replaced."""
    for name in FOLDERS:
        shutil.rmtree(target / name, ignore_errors=True)
    shutil.copytree(folder, target, dirs_exist_ok=True)


def names_in_folder(folder: Path) -> list[str]:
    """Files of the layout in a folder of the user's. Raises CommandFailed if it is none."""
    if not folder.is_dir():
        raise CommandFailed(f"{folder} is no folder; expected one, or a name such as owner/repository of the hub.")
    return list(_names_in(folder))


def put_on_hub(folder: Path, repository: str, *, public: bool, message: str) -> str:
    """Send the layout as one commit and return its address. The repository is made where it is missing.

    Raises:
        CommandFailed: the hub refused or did not answer, or the repository is public and that was not asked for.
    """
    with _on_the_hub(repository) as hub:
        hub.create_repo(repository, private=not public, exist_ok=True)
        is_private = bool(hub.model_info(repository).private)
        if is_private or public:
            commit = hub.upload_folder(
                repo_id=repository,
                folder_path=folder,
                allow_patterns=_PATTERNS,
                delete_patterns=[f"{name}/*" for name in FOLDERS],  # of a version that was there before
                commit_message=message,
            )
            return str(commit.commit_url)
    raise CommandFailed(f"{repository} is public on the hub; say --public if everybody may have the version.")


def fetch_from_hub(repository: str, revision: str | None, folder: Path, *, max_bytes: int) -> str:
    """Download the layout at a revision to `folder` and return the commit. Nothing else of the repository is fetched.

    Raises:
        CommandFailed: the hub refused or did not answer.
        InvalidArchive: as `check_names`, or it is larger than `max_bytes`.
    """
    with _on_the_hub(repository) as hub:
        found = hub.model_info(repository, revision=revision, files_metadata=True)
    files = {each.rfilename: each.size or 0 for each in found.siblings or () if _is_ours(each.rfilename)}
    check_names(files)
    if (size := sum(files.values())) > max_bytes:
        raise InvalidArchive(f"{repository} has {size} bytes; expected at most {max_bytes} (MEMGEN_MAX_ARCHIVE_BYTES)")
    with _on_the_hub(repository):
        snapshot_download(
            repository, revision=found.sha, local_dir=folder, allow_patterns=_PATTERNS, library_name=_LIBRARY
        )
    return str(found.sha)


def _is_ours(name: str) -> bool:
    return name in (CARD, DESCRIPTION) or PurePosixPath(name).parts[0] in FOLDERS


def _names_in(folder: Path) -> Iterator[str]:
    """Files of the layout; what else lies in the folder is not looked at."""
    inside = (path for name in FOLDERS for path in sorted((folder / name).rglob("*")))
    for path in (folder / CARD, folder / DESCRIPTION, *inside):
        if path.is_file():
            yield path.relative_to(folder).as_posix()


@contextmanager
def _on_the_hub(repository: str) -> Iterator[HfApi]:
    if not notes().is_terminal:
        disable_progress_bars()
    try:
        yield HfApi(library_name=_LIBRARY)
    except Exception as error:  # its library raises its own, its transport's, OSError and ValueError
        _refuse(repository, error)


def _refuse(repository: str, error: Exception) -> NoReturn:
    reason = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
    hint = ""
    if isinstance(error, RevisionNotFoundError):
        reason = "it has no such revision"
    elif isinstance(error, RepositoryNotFoundError):
        reason, hint = "it is not there, or not for this user", _LOGIN
    elif isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403):
        hint = _LOGIN
    raise CommandFailed(f"The hub can't be used for {repository}: {reason.rstrip('.')}.{hint}") from error
