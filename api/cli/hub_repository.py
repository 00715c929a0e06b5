"""The Hugging Face hub, by its own library: a version's folder to and from a repository there.

Who the user is, the library knows: by HF_TOKEN, or from its login. No token is read or kept here.

Weights go by Git LFS, whether or not `hf_xet` is installed. By Xet, the library's other way, a large folder becomes
several commits, so that somebody might fetch half a version, and pieces of private weights stay behind in its cache.
"""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from httpx2 import TransportError
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import logging
from huggingface_hub.utils.tqdm import disable_progress_bars

from api.cli.hub_folder import PATTERNS, check_names, is_ours
from api.cli.invocation import CommandFailed
from api.cli.output import notes
from registry.errors import InvalidArchive
from registry.transfer.archive import FOLDERS

_LIBRARY = "memgen"
_LOGIN = " Is the name right, and has the token of HF_TOKEN, or of the login by `hf auth login`, access to it?"
_LONGEST_REASON = 400
_QUERY = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+")
"""Addresses of stored files carry a signature there, which lets whoever has it read them."""


@dataclass(frozen=True)
class Destination:
    """Where a version goes."""

    repository: str
    public: bool = False
    branch: str | None = None
    """None is the repository's main branch."""
    pull_request: bool = False
    """Propose the commit to whoever owns the repository, which must be there."""


@dataclass(frozen=True)
class Sent:
    address: str
    """Where the commit is, or the pull request."""
    is_new: bool
    """Whether anything was sent: the same version is not committed twice."""


def put_on_hub(folder: Path, destination: Destination, *, message: str) -> Sent:
    """Send the layout as one commit. The repository, and the branch, are made where they are missing.

    Raises:
        CommandFailed: the hub refused or did not answer, or the repository is public and that was not asked for.
    """
    repository, branch = destination.repository, destination.branch
    with _on_the_hub(repository) as hub:
        if not destination.pull_request:
            hub.create_repo(repository, private=not destination.public, exist_ok=True)
        is_private = bool(hub.model_info(repository).private)
        if is_private or destination.public:
            if branch is not None:
                hub.create_branch(repository, branch=branch, exist_ok=True)
            before = hub.model_info(repository, revision=branch).sha
            commit = hub.upload_folder(
                repo_id=repository,
                folder_path=folder,
                revision=branch,
                create_pr=destination.pull_request,
                allow_patterns=PATTERNS,
                delete_patterns=[f"{name}/*" for name in FOLDERS],  # of a version that was there before
                commit_message=message,
            )
            return Sent(str(commit.pr_url or commit.commit_url), commit.oid != before)
    raise CommandFailed(f"{repository} is public on the hub; say --public if everybody may have the version.")


def fetch_from_hub(repository: str, revision: str | None, folder: Path, *, max_bytes: int) -> str:
    """Download the layout at a revision to `folder` and return the commit. Nothing else of the repository is fetched.

    Raises:
        CommandFailed: the hub refused or did not answer.
        InvalidArchive: as `check_names`, or it is larger than `max_bytes`.
    """
    with _on_the_hub(repository) as hub:
        found = hub.model_info(repository, revision=revision, files_metadata=True)
    files = {each.rfilename: each.size or 0 for each in found.siblings or () if is_ours(each.rfilename)}
    check_names(files)
    if (size := sum(files.values())) > max_bytes:
        raise InvalidArchive(f"{repository} has {size} bytes; expected at most {max_bytes} (MEMGEN_MAX_ARCHIVE_BYTES)")
    with _on_the_hub(repository):
        snapshot_download(
            repository, revision=found.sha, local_dir=folder, allow_patterns=PATTERNS, library_name=_LIBRARY
        )
    return str(found.sha)


@contextmanager
def _on_the_hub(repository: str) -> Iterator[HfApi]:
    constants.HF_HUB_DISABLE_XET = True
    # What it warns of, such as a commit that would be empty, is said here.
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # huggingface_hub leaves it untyped
    if not notes().is_terminal:
        disable_progress_bars()
    try:
        yield HfApi(library_name=_LIBRARY)
    except Exception as error:  # its library raises its own, its transport's, OSError and ValueError
        _refuse(repository, error)


def _refuse(repository: str, error: Exception) -> NoReturn:
    causes = [error, *_causes(error)]
    status = next((each.response.status_code for each in causes if isinstance(each, HfHubHTTPError)), None)
    reason, hint = _in_words(error), ""
    if isinstance(error, HfHubHTTPError):
        reason = f"it answers {status}: {error.server_message or 'without a word'}"
    if isinstance(error, RevisionNotFoundError):
        reason, hint = "it has no such revision", " --revision takes a branch, a tag or a commit."
    elif isinstance(error, GatedRepoError):
        reason, hint = "it is gated", f" Ask for access at {constants.ENDPOINT}/{repository}."
    elif isinstance(error, RepositoryNotFoundError):
        reason, hint = "it is not there, or not for this user", _LOGIN
    elif any(isinstance(each, OfflineModeIsEnabled) for each in causes):
        reason, hint = "HF_HUB_OFFLINE forbids it", " Unset that variable to go online."
    elif status in (401, 403):
        hint = _LOGIN
    elif status == 429:
        reason, hint = "it was asked too often (429)", " Wait some minutes, and do it again: nothing is sent twice."
    elif status is not None and status >= 500:
        reason, hint = f"it failed ({status})", " Do it again later: nothing is sent twice."
    elif any(isinstance(each, TransportError) for each in causes):
        reason, hint = (
            f"no answer from {constants.ENDPOINT} ({reason})",
            " Is there a network? HF_ENDPOINT names the hub.",
        )
    elif any(isinstance(each, OSError) and each.errno == errno.ENOSPC for each in causes):
        reason, hint = "no space is left on this machine's disk", " MEMGEN_SCRATCH names another folder to work in."
    raise CommandFailed(f"The hub can't be used for {repository}: {reason.rstrip('.')}.{hint}") from error


def _causes(error: BaseException) -> Iterator[BaseException]:
    while (cause := error.__cause__ or error.__context__) is not None:
        yield cause
        error = cause


def _in_words(error: Exception) -> str:
    text = _QUERY.sub(r"\1", " ".join(str(error).split()))
    return text[:_LONGEST_REASON] or type(error).__name__
