"""`memgen versions`: list, compare, trace, tag, archive, prune, export and import the versions of an adapter."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from api.cli import adapters
from api.cli.analyses import print_analysis
from api.cli.answers import print_answer
from api.cli.arguments import AdapterArgument, ApplyOption, ReasonOption, VersionArgument
from api.cli.invocation import connect
from api.cli.output import JsonOption, curve, moment, percent, points, print_json, print_line, print_note, print_table
from api.http.json_object import JsonObject
from registry.wording import counted


class _ListByDefault(TyperGroup):
    """`memgen versions bot` is `memgen versions list bot`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and "--help" not in args[:1]:
            args = ["list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_ListByDefault, help="Versions of an adapter. `memgen versions ADAPTER` lists them.", no_args_is_help=True
)
LabelArgument = Annotated[str, typer.Argument(help="Lower case, such as before-holidays.", show_default=False)]
app.command("list", epilog="Example: `memgen versions list support-bot`")(adapters.versions)


@app.command(epilog="Example: `memgen versions compare support-bot 6 7`")
def compare(
    context: typer.Context,
    adapter: AdapterArgument,
    left: VersionArgument,
    right: VersionArgument,
    as_json: JsonOption = False,
) -> None:
    """Compare two versions: scores, settings, data, loss curves and verdicts."""
    print_answer(
        context,
        as_json,
        lambda client: client.versions.compare(adapter, left, right),
        lambda found: _print_compare(found, adapter, left, right),
    )


def _print_compare(found: JsonObject, adapter: str, left: int, right: int) -> None:
    one, other = found["left"], found["right"]
    tasks = list(dict.fromkeys([*one["scores"], *other["scores"]]))
    rows: list[tuple[object, ...]] = [("verdict", one["verdict"], other["verdict"], "")]
    rows += [
        (task, percent(one["scores"].get(task)), percent(other["scores"].get(task)), points(found["changes"].get(task)))
        for task in tasks
    ]
    rows += [("loss", curve(one["losses"]), curve(other["losses"]), "")]
    rows += [(name, _short(before), _short(after), "") for name, (before, after) in found["different"].items()]
    print_table(("", f"{adapter}@{left}", f"{adapter}@{right}", "#change"), rows)


@app.command(epilog="Example: `memgen versions lineage support-bot 7`")
def lineage(
    context: typer.Context, adapter: AdapterArgument, version: VersionArgument, as_json: JsonOption = False
) -> None:
    """Show what a version was made from, and what was made from it."""
    with connect(context) as client:
        found = client.versions.lineage(adapter, version)
        changes = client.versions.history(adapter, version)
    if as_json:
        print_json({**found, "history": changes})
        return
    deleted = f", {found['deleted']} deleted since" if found["deleted"] else ""
    origin = found["imported"]
    rows = [
        ("ancestors", " > ".join(map(str, ["base", *found["ancestors"]]))),
        ("children", ", ".join(map(str, found["children"]))),
        ("imported from", f"{origin['adapter']}@{origin['number']}" if origin else ""),
        ("replaces", found["replaces"]),
        ("task", found["task"]),
        ("data", f"{counted(found['trajectories'], 'trajectory')}, {found['replayed']} replayed{deleted}"),
        ("learned deleted data", "yes" if found["learned_deleted"] else "no"),
        ("dataset", found["dataset_hash"]),
        ("job", found["job_id"]),
        ("base", f"{found['base_model']} at {found['base_revision']}"),
        ("code", found["code_version"]),
        ("aliases", ", ".join(found["aliases"])),
        ("live routes", ", ".join(map(str, found["routes"]))),
        ("answers", found["exposures"]),
        *((f"{moment(c['at'])}", f"{c['kind']} by {c['actor']} {c['reason']}".strip()) for c in changes),
    ]
    print_table(("", ""), rows)


@app.command(epilog="Example: `memgen versions analysis support-bot 7`")
def analysis(
    context: typer.Context, adapter: AdapterArgument, version: VersionArgument, as_json: JsonOption = False
) -> None:
    """Show what the last `memgen analyze` of a version has found."""
    print_answer(context, as_json, lambda client: client.versions.analysis(adapter, version), print_analysis)


@app.command(epilog="Example: `memgen versions tag support-bot 7 before-holidays`")
def tag(
    context: typer.Context,
    adapter: AdapterArgument,
    version: VersionArgument,
    label: LabelArgument,
    as_json: JsonOption = False,
) -> None:
    """Put a free label on a version; retention keeps labelled ones."""
    print_answer(
        context, as_json, lambda client: client.versions.tag(adapter, version, label), partial(_print_state, adapter)
    )


@app.command(epilog="Example: `memgen versions untag support-bot 7 before-holidays`")
def untag(
    context: typer.Context,
    adapter: AdapterArgument,
    version: VersionArgument,
    label: LabelArgument,
    as_json: JsonOption = False,
) -> None:
    """Take a label off a version."""
    print_answer(
        context, as_json, lambda client: client.versions.untag(adapter, version, label), partial(_print_state, adapter)
    )


@app.command(epilog="Example: `memgen versions archive support-bot 3 --reason 'superseded'`")
def archive(
    context: typer.Context,
    adapter: AdapterArgument,
    version: VersionArgument,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Hide a version that nothing refers to; it does not serve until it is taken out of the archive again."""
    print_answer(
        context,
        as_json,
        lambda client: client.versions.archive(adapter, version, reason=reason),
        partial(_print_state, adapter),
    )


@app.command(epilog="Example: `memgen versions unarchive support-bot 3`")
def unarchive(
    context: typer.Context,
    adapter: AdapterArgument,
    version: VersionArgument,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Take a version out of the archive."""
    print_answer(
        context,
        as_json,
        lambda client: client.versions.unarchive(adapter, version, reason=reason),
        partial(_print_state, adapter),
    )


@app.command(epilog="Example: `memgen versions states support-bot`")
def states(context: typer.Context, adapter: AdapterArgument, as_json: JsonOption = False) -> None:
    """List tags, and which versions are archived, withdrawn or purged."""
    print_answer(context, as_json, lambda client: [*client.versions.all_states(adapter)], _print_states)


def _print_states(found: list[JsonObject]) -> None:
    rows = [(s["number"], ", ".join(s["tags"]), _state(s), "yes" if s["learned_deleted"] else "") for s in found]
    print_table(("#version", "tags", "state", "learned deleted data"), rows)


app.command(
    "standings",
    hidden=True,
    deprecated=True,
    help="The former name of `states`.",
    epilog="Example: `memgen versions standings support-bot`",
)(states)


@app.command(epilog="Example: `memgen versions prune support-bot --keep-last 5 --apply`")
def prune(
    context: typer.Context,
    adapter: AdapterArgument,
    keep_last: Annotated[
        int | None, typer.Option(min=1, help="Newest versions to keep in any case. Default: the adapter's policy.")
    ] = None,
    apply: ApplyOption = False,
    as_json: JsonOption = False,
) -> None:
    """Remove the bytes of versions that no alias, route, child, job or tag refers to."""
    print_answer(
        context,
        as_json,
        lambda client: client.retention.apply(adapter, keep_last=keep_last, dry_run=not apply),
        _print_retention,
    )


@app.command(epilog="Example: `memgen versions keep support-bot 10`")
def keep(
    context: typer.Context,
    adapter: AdapterArgument,
    keep_last: Annotated[int, typer.Argument(min=1, help="Newest versions to keep in any case.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Set an adapter's retention; `memgen versions prune` applies it."""
    print_answer(context, as_json, lambda client: client.retention.change(adapter, keep_last), _print_retention)


@app.command(epilog="Example: `memgen versions export support-bot 7 support-bot-7.tar`")
def export(
    context: typer.Context,
    adapter: AdapterArgument,
    version: VersionArgument,
    file: Annotated[Path, typer.Argument(help="Where to write the file.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Write a version with its lineage to one file."""
    with connect(context) as client:
        size = client.versions.export_file(adapter, version, file)
    if as_json:
        print_json({"adapter": adapter, "version": version, "file": str(file), "bytes": size})
    else:
        print_line(f"{adapter}@{version} is in {file} ({size} bytes).")


@app.command("import", epilog="Example: `memgen versions import support-bot support-bot-7.tar`")
def import_(
    context: typer.Context,
    adapter: AdapterArgument,
    file: Annotated[Path, typer.Argument(help="A file of `memgen versions export`.", exists=True, dir_okay=False)],
    as_json: JsonOption = False,
) -> None:
    """Register a version that another installation trained, and let this one's gate check it."""
    print_answer(context, as_json, lambda client: client.versions.import_file(adapter, file), print_imported)


def print_imported(found: JsonObject) -> None:
    """What became of an imported version, by the API's reply."""
    adapter, number = found["adapter"], found["number"]
    known = ", whose bytes are back" if found["restored"] else "" if found["created"] else ", as before"
    print_line(f"{found['origin']} is {adapter}@{number} here{known}.")
    if found["check_job"]:
        print_note(f"Job {found['check_job']} checks it; `memgen promote {adapter} {number}` if it passes.")


def _print_state(adapter: str, state: JsonObject) -> None:
    tags = f", tagged {', '.join(state['tags'])}" if state["tags"] else ""
    print_line(f"{adapter}@{state['number']}: {_state(state) or 'in use'}{tags}.")


def _print_retention(found: JsonObject) -> None:
    verb = "would go" if found["dry_run"] else "are gone"
    rows = [(row["number"], "kept", "; ".join(row["reasons"])) for row in found["kept"]]
    rows += [(number, "bytes " + verb, "nothing refers to it") for number in found["purged"]]
    print_table(("#version", "", "why"), sorted(rows), empty="No version has bytes to remove.")
    if found["dry_run"] and found["purged"]:
        print_note("Nothing was removed. `memgen versions prune ADAPTER --apply` removes it.")


def _state(state: JsonObject) -> str:
    states = [name for name in ("archived", "withdrawn", "purged") if state[f"{name}_at"] is not None]
    return ", ".join(states)


def _short(value: object) -> str:
    return "" if value is None else str(value)
