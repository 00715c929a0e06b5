"""`memgen push` and `memgen pull`: a version to and from a Hugging Face repository, or a folder of that layout."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.arguments import find_version
from api.cli.completion import adapter_names
from api.cli.invocation import CommandFailed, connect, invocation
from api.cli.output import JsonOption, print_json, print_line, print_warning
from api.cli.versions import print_imported

if TYPE_CHECKING:
    from memgen_client import JsonClient
    from registry.settings import Settings
    from registry.transfer.archive import Archive

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


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
    with_experience: Annotated[
        bool, typer.Option("--with-experience", help="Push a version whose cues hold trajectories word for word.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a version, with a model card, to a repository on the Hugging Face hub or to a folder.

    Everything is as `memgen versions export` writes it, checked in every byte. Who you are, the hub's library knows:
    HF_TOKEN, or `hf auth login`.
    """
    from api.cli import hub_folder

    settings, repository = invocation(context).settings(), _repository(target)
    folder = None if repository is not None else Path(target).expanduser()
    with connect(context) as client, _working_folder(settings) as work:
        adapter, number = find_version(client, version)
        base = base_model or _base_for_card(client, adapter, number, is_for_hub=repository is not None)
        if folder is not None:
            hub_folder.check_target(folder)
        client.versions.export_file(adapter, number, work / "version.tar")
        archive = hub_folder.unpack(work / "version.tar", work / "version", max_bytes=settings.max_archive_bytes)
        _write_card(client, archive, work / "version", base_model=base, licence=licence)
        if folder is not None:
            hub_folder.copy_to(work / "version", folder)
            address = str(folder)
        else:
            if hub_folder.has_experience(work / "version") and not with_experience:
                raise CommandFailed(
                    f"{adapter}@{number} holds trajectories word for word, for its weaver's cues; say "
                    f"--with-experience if whoever can read {repository} may read them."
                )
            message = f"{adapter}@{number}"
            address = hub_folder.put_on_hub(work / "version", target, public=public, message=message)
    if as_json:
        manifest = archive.description["artifact_hash"]
        print_json({"adapter": adapter, "version": number, "address": address, "manifest_sha256": manifest})
    else:
        print_line(f"{adapter}@{number} is at {address}.")
        if licence is None:
            print_warning("Its card names no licence; --license names one.")


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
            folder, limit = work / "fetched", settings.max_archive_bytes
            revision = hub_folder.fetch_from_hub(repository, revision, folder, max_bytes=limit)
        pack_archive(folder, work / "version.tar")
        archive = read_archive(work / "version.tar", work / "checked", max_bytes=settings.max_archive_bytes)
        check_card(folder / CARD, archive.description)
        if create:
            _create_adapter(client, adapter, archive.description)
        found = client.versions.import_file(adapter, work / "version.tar")
    if as_json:
        print_json({**found, "revision": revision})
    else:
        print_imported(found)


def _repository(place: str) -> str | None:
    """The name, if the place is a repository of the hub; None if it is a folder."""
    return place if _REPOSITORY.fullmatch(place) and not Path(place).is_dir() else None


@contextlib.contextmanager
def _working_folder(settings: Settings) -> Iterator[Path]:
    """A folder that is swept if this process is killed: weights and trajectories lie in it."""
    from registry.scratch import Scratch

    scratch = Scratch(settings.scratch_dir)
    try:
        yield scratch.folder
    finally:
        scratch.close()


def _base_for_card(client: JsonClient, adapter: str, number: int, *, is_for_hub: bool) -> str:
    """What the base is called on the hub, which refuses a card with any other name."""
    from api.cli.model_card import hub_name_of

    name = hub_name_of(client.versions.get(adapter, number)["base_model"])
    if is_for_hub and not _REPOSITORY.fullmatch(name):
        raise CommandFailed(f"The base is called {name} here, which the hub does not know; name it by --base-model.")
    return name


def _write_card(client: JsonClient, archive: Archive, folder: Path, *, base_model: str, licence: str | None) -> None:
    from api.cli.model_card import CARD, CardFacts, write_card

    adapter, number = archive.description["adapter"], archive.description["number"]
    facts = CardFacts(
        archive.description,
        archive.report,
        scores=client.adapters.scores(adapter),
        gate=client.versions.get(adapter, number)["gate"],
        base_model=base_model,
        licence=licence,
    )
    (folder / CARD).write_text(write_card(facts), encoding="utf-8")


def _create_adapter(client: JsonClient, name: str, description: dict[str, Any]) -> None:
    """Create the adapter as the version needs it; one that is there stays as it is."""
    if name not in {each["name"] for each in client.adapters.list()}:
        origin = f"{description['adapter']}@{description['number']}"
        strategy = description["strategy"] or "replay"
        client.adapters.create(name, strategy=strategy, memory=description["memory"], description=f"From {origin}.")
