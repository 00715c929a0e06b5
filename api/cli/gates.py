"""`memgen gate`: why a version passed or not, item by item, and a person's decision on one that waits."""

from typing import Annotated, Any

import typer

from api.cli.answers import print_answer
from api.cli.arguments import AdapterArgument, ExpectedOption, ReasonOption, VersionArgument
from api.cli.completion import task_names
from api.cli.output import JsonOption, first_line, percent, points, print_line, print_note, print_table
from api.http.json_object import JsonObject

app = typer.Typer(help="Verdicts on versions: evidence, approval, rejection.", no_args_is_help=True)


@app.command(epilog="Example: `memgen gate show support-bot 7`")
def show(
    context: typer.Context, adapter: AdapterArgument, version: VersionArgument, as_json: JsonOption = False
) -> None:
    """Show the verdict on a version, with its reasons and the evidence on every task."""
    print_answer(
        context,
        as_json,
        lambda client: client.gates.get(adapter, version),
        lambda gate: _print_show(gate, adapter, version),
    )


def _print_show(gate: JsonObject, adapter: str, version: int) -> None:
    before = f"{adapter}@{gate['champion']}" if gate["champion"] else "base"
    print_line(f"{adapter}@{version} against {before}: {gate['verdict']}")
    print_line(
        f"Rule {gate['rule']}, margin {percent(gate['margin'])}, level {gate['level']:g}, policy {gate['policy']}."
    )
    print_line("")
    columns = ("task", "#before", "#after", "#change", "#interval", "#better", "#worse", "#items", "#p", "gate")
    print_table(columns, [_evidence(comparison) for comparison in gate["comparisons"]])
    print_line("")
    for reason in gate["reasons"]:
        print_line(f"  {reason}")
    if gate["decision"]:
        decided = "approved" if gate["decision"]["approved"] else "rejected"
        print_line(f"  {decided} by {gate['decision']['actor']}: {gate['decision']['reason'] or 'no reason given'}")
    elif gate["verdict"] == "waiting":
        print_note(f"Next: memgen gate approve {adapter} {version}, or memgen gate reject {adapter} {version}")


@app.command(epilog="Example: `memgen gate run support-bot 7`")
def run(
    context: typer.Context, adapter: AdapterArgument, version: VersionArgument, as_json: JsonOption = False
) -> None:
    """Let the gate judge a version whose own job failed before its gate had run."""
    from api.cli.progress import print_queued

    print_answer(
        context,
        as_json,
        lambda client: client.gates.run(adapter, version),
        print_queued,
    )


@app.command(epilog="Example: `memgen gate items support-bot 7 --task refunds --flipped worse`")
def items(
    context: typer.Context,
    adapter: AdapterArgument,
    version: VersionArgument,
    task: Annotated[
        str,
        typer.Option(help="One of the tasks that the gate compared.", show_default=False, autocompletion=task_names),
    ],
    flipped: Annotated[
        str | None, typer.Option(help="Only items that flipped: better, worse or any. Default: all.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="Most items to show.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="`next_cursor` of the page before.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List what champion and candidate answered to each held-out item."""
    print_answer(
        context,
        as_json,
        lambda client: client.gates.items(adapter, version, task, flipped=flipped, limit=limit, cursor=cursor),
        _print_items,
    )


def _print_items(page: JsonObject) -> None:
    rows = [
        (
            item["place"],
            item["flipped"] or "",
            f"{item['champion']['score']:g}",
            f"{item['candidate']['score']:g}",
            first_line(item["champion"]["answer"]),
            first_line(item["candidate"]["answer"]),
        )
        for item in page["data"]
    ]
    print_table(
        ("#item", "flipped", "#before", "#after", "answered before", "answers now"), rows, empty="No such item."
    )
    if page["next_cursor"]:
        print_note(f"More: --cursor {page['next_cursor']}")


@app.command(epilog="Example: `memgen gate approve support-bot 7 --reason 'read the flipped answers'`")
def approve(
    context: typer.Context,
    adapter: AdapterArgument,
    version: VersionArgument,
    expected: ExpectedOption = None,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Approve a version that passed its gate and waits: it becomes the champion.

    Refused if the champion is no longer the one that the gate compared with, unless you name it with --expected.
    """
    print_answer(
        context,
        as_json,
        lambda client: client.gates.approve(adapter, version, reason=reason, expected=expected),
        lambda done: _print_approve(done, adapter, version),
    )


def _print_approve(done: JsonObject, adapter: str, version: int) -> None:
    before = done["move"]["from_version"] or "none"
    print_line(f"Approved. {adapter}@champion: version {before} to {version}.")


@app.command(epilog="Example: `memgen gate reject support-bot 7 --reason 'rude answers'`")
def reject(
    context: typer.Context,
    adapter: AdapterArgument,
    version: VersionArgument,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Reject a version that waits, for good; every alias stays where it is."""
    print_answer(
        context,
        as_json,
        lambda client: client.gates.reject(adapter, version, reason=reason),
        lambda done: print_line(f"{adapter}@{version} is rejected."),
    )


def _evidence(comparison: dict[str, Any]) -> tuple[object, ...]:
    found = comparison.get("evidence") or {}
    interval = f"{points(found['low'])} to {points(found['high'])}" if found else None
    return (
        comparison["task"] + (" (new)" if comparison["new"] else " (settled)" if comparison.get("settled") else ""),
        percent(comparison["champion"]),
        percent(comparison["candidate"]),
        points(comparison["change"]),
        interval,
        *(found.get(name) for name in ("better", "worse", "items")),
        f"{found['p_value']:.3g}" if found else None,
        "passed" if comparison["passed"] else "rejected",
    )
