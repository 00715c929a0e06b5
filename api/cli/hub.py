"""`memgen push` and `memgen pull`: a version to and from a Hugging Face repository, or a folder of that layout."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.arguments import find_version
from api.cli.completion import adapter_names
from api.cli.invocation import CommandFailed, connect, invocation
from api.cli.output import JsonOption, print_json, print_line, print_note, print_table, print_warning
from api.cli.versions import print_imported

if TYPE_CHECKING:
    from memgen_client import JsonClient
    from registry.settings import Settings
    from registry.transfer.archive import Archive

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")


@dataclass(frozen=True)
class _Prepared:
    """A version's folder, ready to leave."""

    archive: Archive
    folder: Path
    experience: str | None
    """In words, the text of trajectories in it."""

    @property
    def name(self) -> str:
        return f"{self.archive.description['adapter']}@{self.archive.description['number']}"


def push(
    context: typer.Context,
    version: Annotated[str, typer.Argument(help="Such as support-bot@7 or support-bot@champion.", show_default=False)],
    target: Annotated[
        str, typer.Argument(help="owner/repository of the hub, or a folder such as ./support-bot.", show_default=False)
    ],
    licence: Annotated[
        str | None, typer.Option("--license", help="For the card, as the hub spells it, such as apache-2.0.")
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(help="Hub id of the base for the card. Default: as it is called here.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Make the repository public. Default: private.")] = False,
    branch: Annotated[
        str | None, typer.Option(help="Branch of the repository, made if missing. Default: main.")
    ] = None,
    pull_request: Annotated[
        bool, typer.Option("--pull-request", help="Propose it to the owner of a repository that is there.")
    ] = False,
    with_experience: Annotated[
        bool, typer.Option("--with-experience", help="Push a version whose cues hold trajectories word for word.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be sent, with the model card. The hub is not asked.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a version, with a model card, to a repository on the Hugging Face hub or to a folder.

    Everything is as `memgen versions export` writes it, checked in every byte. Who you are, the hub's library knows:
    HF_TOKEN, or `hf auth login`.
    """
    from api.cli import hub_folder
    from api.cli.model_card import CARD

    settings, repository = invocation(context).settings(), _repository(target)
    folder = None if repository is not None else Path(target).expanduser()
    _check_options(licence, is_for_hub=repository is not None, branch=branch, only=(public, pull_request))
    with connect(context) as client, _working_folder(settings) as work:
        if folder is not None:
            hub_folder.check_target(folder)
        ready = _prepare(client, version, work, settings, repository, base_model=base_model, licence=licence)
        if repository is not None and ready.experience and not with_experience and not dry_run:
            raise CommandFailed(
                f"{ready.name} holds {ready.experience}, for its weaver's cues; say --with-experience if whoever can "
                f"read {repository} may read them."
            )
        _warn(ready, target)
        if dry_run:
            card = (ready.folder / CARD).read_text(encoding="utf-8")
            _print_dry_run(ready, target, card, hub_folder.sizes_in(ready.folder), as_json=as_json)
            return
        sent = _send(ready, folder, repository, public=public, branch=branch, pull_request=pull_request)
    _print_sent(ready, *sent, licence, as_json=as_json)


def pull(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(help="owner/repository of the hub, or a folder such as ./support-bot.", show_default=False)
    ],
    adapter: Annotated[
        str,
        typer.Argument(
            help="The adapter that it becomes a version of.", show_default=False, autocompletion=adapter_names
        ),
    ],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the repository.")] = None,
    create: Annotated[
        bool, typer.Option("--create", help="Create the adapter, with the version's settings, if it is not there.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Register a version that `memgen push` wrote, and let this installation's gate check it as any other.

    Every file is held against the manifest, and the manifest against the model card, before anything is registered.
    """
    from api.cli import hub_folder
    from api.cli.model_card import CARD, check_card
    from registry.transfer.archive import pack_archive, read_archive

    settings, repository = invocation(context).settings(), _repository(source)
    if repository is None and revision is not None:
        raise typer.BadParameter("a folder has none; expected owner/repository of the hub", param_hint="--revision")
    with connect(context) as client, _working_folder(settings) as work:
        if repository is None:
            folder = Path(source).expanduser()
            hub_folder.check_names(hub_folder.names_in_folder(folder))
        else:
            from api.cli.hub_repository import fetch_from_hub

            folder, limit = work / "fetched", settings.max_archive_bytes
            revision = fetch_from_hub(repository, revision, folder, max_bytes=limit)
        pack_archive(folder, work / "version.tar")
        archive = read_archive(work / "version.tar", work / "checked", max_bytes=settings.max_archive_bytes)
        licence = check_card(folder / CARD, archive.description)
        if create:
            _create_adapter(client, adapter, archive.description)
        found = client.versions.import_file(adapter, work / "version.tar")
    if as_json:
        print_json({**found, "revision": revision, "license": licence})
        return
    print_imported(found)
    at = "" if revision is None else f"It was fetched at --revision {revision}. "
    print_note(f"{at}Its licence: {licence or 'none is named; ask whoever pushed it'}.")


def _repository(place: str) -> str | None:
    """The name, if the place is a repository of the hub; None if it is a folder."""
    return place if _REPOSITORY.fullmatch(place) and not Path(place).is_dir() else None


def _check_options(licence: str | None, *, is_for_hub: bool, branch: str | None, only: tuple[bool, bool]) -> None:
    """Raises typer.BadParameter for what can't be meant. `only` are --public and --pull-request."""
    if licence is not None and not _LICENCE.fullmatch(licence):
        raise typer.BadParameter(f"{licence!r} is not as the hub spells one: mit, apache-2.0", param_hint="--license")
    public, pull_request = only
    given = {"--public": public, "--pull-request": pull_request, "--branch": branch is not None}
    if not is_for_hub and (meant := [option for option, is_given in given.items() if is_given]):
        raise typer.BadParameter("a folder has none; expected owner/repository of the hub", param_hint=meant[0])
    if branch is not None and pull_request:
        raise typer.BadParameter("a pull request is made to the main branch; leave --branch out", param_hint="--branch")


@contextlib.contextmanager
def _working_folder(settings: Settings) -> Iterator[Path]:
    """A folder that is swept if this process is killed: weights and trajectories lie in it."""
    from registry.scratch import Scratch

    scratch = Scratch(settings.scratch_dir)
    try:
        yield scratch.folder
    finally:
        scratch.close()


def _prepare(
    client: JsonClient,
    version: str,
    work: Path,
    settings: Settings,
    repository: str | None,
    *,
    base_model: str | None,
    licence: str | None,
) -> _Prepared:
    """Export the version, lay it out and write its card."""
    from api.cli import hub_folder

    adapter, number = find_version(client, version)
    base = base_model or _base_for_card(client, adapter, number)
    if repository is not None and not _REPOSITORY.fullmatch(base):
        raise CommandFailed(f"The base is called {base} here, which the hub does not know; name it by --base-model.")
    client.versions.export_file(adapter, number, work / "version.tar")
    folder = work / "version"
    archive = hub_folder.unpack(work / "version.tar", folder, max_bytes=settings.max_archive_bytes)
    experience = hub_folder.experience_in(folder)
    _write_card(client, archive, folder, base_model=base, licence=licence, experience=experience)
    return _Prepared(archive, folder, experience)


def _warn(ready: _Prepared, target: str) -> None:
    """Say before anything leaves what a reader of it will know."""
    if ready.experience:
        print_warning(f"{ready.name} holds {ready.experience}, for its weaver's cues.")
    base = str(ready.archive.description["base_model"])
    if PurePath(base).is_absolute():
        print_warning(f"Its files name the base by this machine's folder, {base}: whoever reads {target} reads that.")


def _send(
    ready: _Prepared,
    folder: Path | None,
    repository: str | None,
    *,
    public: bool,
    branch: str | None,
    pull_request: bool,
) -> tuple[str, bool]:
    """(address, whether anything was sent)."""
    if repository is None:
        from api.cli.hub_folder import copy_to

        assert folder is not None
        copy_to(ready.folder, folder)
        return str(folder), True
    from api.cli.hub_repository import Destination, put_on_hub

    sent = put_on_hub(ready.folder, Destination(repository, public, branch, pull_request), message=ready.name)
    return sent.address, sent.is_new


def _print_sent(ready: _Prepared, address: str, is_new: bool, licence: str | None, *, as_json: bool) -> None:
    description = ready.archive.description
    if as_json:
        named = {"adapter": description["adapter"], "version": description["number"]}
        print_json({**named, "address": address, "manifest_sha256": description["artifact_hash"], "sent": is_new})
        return
    print_line(f"{ready.name} is at {address}{'' if is_new else ', as before'}.")
    if licence is None:
        print_warning("Its card names no licence; --license names one.")


def _print_dry_run(ready: _Prepared, target: str, card: str, sizes: dict[str, int], *, as_json: bool) -> None:
    if as_json:
        files = [{"name": name, "bytes": size} for name, size in sizes.items()]
        print_json({"version": ready.name, "target": target, "sent": False, "files": files, "card": card})
        return
    print_table(("file", "#bytes"), [*sizes.items(), ("together", sum(sizes.values()))])
    print_line("")
    print_line(card)
    print_note(f"Nothing was sent to {target}. Without --dry-run it is.")


def _base_for_card(client: JsonClient, adapter: str, number: int) -> str:
    from api.cli.model_card import hub_name_of

    return hub_name_of(client.versions.get(adapter, number)["base_model"])


def _write_card(
    client: JsonClient, archive: Archive, folder: Path, *, base_model: str, licence: str | None, experience: str | None
) -> None:
    from api.cli.model_card import CARD, CardFacts, write_card

    adapter, number = archive.description["adapter"], archive.description["number"]
    facts = CardFacts(
        archive.description,
        archive.report,
        scores=client.adapters.scores(adapter),
        gate=client.versions.get(adapter, number)["gate"],
        base_model=base_model,
        licence=licence,
        experience=experience,
    )
    (folder / CARD).write_text(write_card(facts), encoding="utf-8")


def _create_adapter(client: JsonClient, name: str, description: dict[str, Any]) -> None:
    """Create the adapter as the version needs it; one that is there stays as it is.

    Raises:
        CommandFailed: the version is of another base than this service has, so that no adapter could take it.
    """
    if name in {each["name"] for each in client.adapters.list()}:
        return
    from registry.binding import changed_parts

    base, origin = client.base.get(), f"{description['adapter']}@{description['number']}"
    made_for = f"{origin} was made for the base {description['base_model']}"
    if description["base_revision"] != base["revision"]:
        raise CommandFailed(
            f"{made_for} at revision {description['base_revision']}; this service has {base['name']} at "
            f"{base['revision']}. Serve that base (MEMGEN_BASE_MODEL, MEMGEN_BASE_REVISION). Nothing was created."
        )
    if changed := changed_parts(description["base_identity"], base["identity"]):
        raise CommandFailed(
            f"{made_for} with another {' and another '.join(changed)} than this service's has. Give the base here the "
            "files that it has there. Nothing was created."
        )
    strategy = description["strategy"] or "replay"
    client.adapters.create(name, strategy=strategy, memory=description["memory"], description=f"From {origin}.")
