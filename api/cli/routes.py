"""`memgen route`: share an adapter's traffic among versions, and see which is better; `memgen feedback`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from api.cli.answers import print_answer
from api.cli.arguments import AdapterArgument, ReasonOption, read_pairs
from api.cli.invocation import CommandFailed
from api.cli.output import JsonOption, moment, percent, points, print_line, print_note, print_table
from api.http.json_object import JsonObject
from registry.wording import counted

if TYPE_CHECKING:
    from memgen_client import JsonClient

app = typer.Typer(help="Share an adapter's traffic among versions: A/B, canary, shadow.", no_args_is_help=True)

RouteArgument = Annotated[
    int | None, typer.Argument(min=1, help="Of the route. Default: the newest.", show_default=False)
]
TriedVersionArgument = Annotated[
    int, typer.Argument(min=1, help="The version to try beside the champion.", show_default=False)
]
LevelOption = Annotated[float, typer.Option(help="Most probability of a false alarm, however often you look.")]
EffectOption = Annotated[float, typer.Option(help="Difference of mean rewards below which you would not act.")]
SourceOption = Annotated[str | None, typer.Option(help="The only source of feedback that counts. Default: any.")]
PromotionOption = Annotated[
    Literal["never", "better", "non_inferior"],
    typer.Option(help="What its rewards must show for it to become the champion by itself."),
]
MarginOption = Annotated[
    float | None, typer.Option(help="Of non_inferior: how much worse is too much. Default: 0.05.", show_default=False)
]
ReplaceOption = Annotated[bool, typer.Option(help="End the live route; sessions move only where they must.")]


@app.command(epilog="Example: `memgen route ab support-bot 6=0.5 7=0.5 --reason 'is 7 worth it?'`")
def ab(
    context: typer.Context,
    adapter: AdapterArgument,
    weights: Annotated[list[str], typer.Argument(help="VERSION=WEIGHT, summing to one.", show_default=False)],
    level: LevelOption = 0.05,
    smallest_effect: EffectOption = 0.05,
    reward_source: SourceOption = None,
    replace: ReplaceOption = False,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Share sessions by weight among versions that passed their gate."""
    arms = []
    for version, weight in read_pairs(weights, "WEIGHTS").items():
        if not version.isdecimal() or isinstance(weight, bool) or not isinstance(weight, int | float):
            raise typer.BadParameter(f"{version}={weight} is not of the form 7=0.5", param_hint="WEIGHTS")
        arms.append({"version": int(version), "weight": float(weight)})
    terms = _terms(level, smallest_effect, reward_source, replace, reason)
    print_answer(
        context, as_json, lambda client: client.routes.create(adapter, "ab", arms=arms, **terms), _print_started
    )


@app.command(epilog="Example: `memgen route canary support-bot 7 --share 0.05`")
def canary(
    context: typer.Context,
    adapter: AdapterArgument,
    version: TriedVersionArgument,
    share: Annotated[float, typer.Option(help="Of the sessions.")] = 0.05,
    level: LevelOption = 0.05,
    smallest_effect: EffectOption = 0.05,
    reward_source: SourceOption = None,
    promotion: PromotionOption = "never",
    margin: MarginOption = None,
    replace: ReplaceOption = False,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Give a version a small share; it stops by itself when its feedback is worse than the champion's.

    With --promotion it also becomes the champion by itself, when it is shown to be better, or not to be worse by the
    margin.
    """
    terms = _terms(level, smallest_effect, reward_source, replace, reason) | {"promotion": promotion, "margin": margin}
    print_answer(
        context,
        as_json,
        lambda client: client.routes.create(adapter, "canary", version=version, share=share, **terms),
        _print_started,
    )


@app.command(epilog="Example: `memgen route shadow support-bot 8 --share 0.2`")
def shadow(
    context: typer.Context,
    adapter: AdapterArgument,
    version: TriedVersionArgument,
    share: Annotated[float, typer.Option(help="Of the answers.")] = 1.0,
    replace: ReplaceOption = False,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Let a version, checked or not, answer the same requests; what it says is compared and discarded."""
    terms = {"version": version, "share": share, "replace": replace, "reason": reason}
    print_answer(context, as_json, lambda client: client.routes.create(adapter, "shadow", **terms), _print_started)


@app.command("list", epilog="Example: `memgen route list support-bot`")
def list_(
    context: typer.Context,
    adapter: AdapterArgument,
    limit: Annotated[int, typer.Option(min=1, max=200, help="Newest ones shown.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List an adapter's routes, newest first."""
    print_answer(
        context,
        as_json,
        lambda client: client.routes.list(adapter, limit=limit),
        lambda page: _print_list(page, adapter),
    )


def _print_list(page: JsonObject, adapter: str) -> None:
    rows = [
        (r["number"], r["kind"], r["state"], _arms(r), moment(r["created_at"]), moment(r["ended_at"]))
        for r in page["data"]
    ]
    print_table(
        ("#route", "kind", "state", "versions", "started", "ended"),
        rows,
        empty=f"No route yet: all of {adapter} goes to the champion.",
    )


@app.command(epilog="Example: `memgen route show support-bot 3`")
def show(
    context: typer.Context, adapter: AdapterArgument, route: RouteArgument = None, as_json: JsonOption = False
) -> None:
    """Show a route's history: what happened when, by whom, why."""
    print_answer(
        context,
        as_json,
        lambda client: client.routes.get(adapter, route or _newest(client, adapter)),
        lambda found: _print_show(found, adapter),
    )


def _print_show(found: JsonObject, adapter: str) -> None:
    print_line(f"Route {found['number']} of {adapter}: {found['kind']}, {found['state']}, {_arms(found)}.")
    if found["promotion"] != "never":
        shown = "better" if found["margin"] is None else f"better, or not worse by {100 * found['margin']:g} points"
        print_line(f"The canary becomes the champion by itself once it is shown to be {shown}.")
    rows = [(moment(c["at"]), c["kind"], c["actor"], c["reason"]) for c in found["history"]]
    print_table(("at", "change", "by", "reason"), rows)


@app.command(epilog="Example: `memgen route results support-bot`")
def results(
    context: typer.Context, adapter: AdapterArgument, route: RouteArgument = None, as_json: JsonOption = False
) -> None:
    """Show what a route has found so far. Look as often as you like: the verdicts allow for it."""
    print_answer(
        context,
        as_json,
        lambda client: client.routes.results(adapter, route or _newest(client, adapter)),
        _print_results,
    )


def _print_results(found: JsonObject) -> None:
    rows = [
        (
            arm["version"],
            percent(arm["weight"]),
            arm["exposures"],
            arm["sessions"],
            f"{percent(arm['mean'])} ({percent(arm['interval']['low'])} to {percent(arm['interval']['high'])})",
            _difference(arm["difference"]),
            _verdict(arm["difference"]),
            arm["sessions_needed"] or "",
        )
        for arm in found["arms"]
    ]
    columns = ("#version", "#share", "#answers", "#rewarded", "reward", "difference", "verdict", "#sessions needed")
    print_table(columns, rows)
    if found["shadow"] is not None:
        _print_shadow(found["shadow"])


@app.command(epilog="Example: `memgen route end support-bot --reason 'the campaign is over'`")
def end(
    context: typer.Context,
    adapter: AdapterArgument,
    route: RouteArgument = None,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """End a route; from the next request on everything goes to the champion."""
    print_answer(
        context,
        as_json,
        lambda client: client.routes.end(adapter, route or _newest(client, adapter), reason=reason),
        lambda ended: print_line(f"Route {ended['number']} of {adapter} has ended; {adapter} is the champion again."),
    )


def _terms(level: float, effect: float, source: str | None, replace: bool, reason: str) -> dict[str, Any]:
    return {
        "level": level,
        "smallest_effect": effect,
        "reward_source": source,
        "replace": replace,
        "reason": reason,
    }


def _newest(client: JsonClient, adapter: str) -> int:
    newest = client.routes.list(adapter, limit=1)["data"]
    if not newest:
        raise CommandFailed(f"{adapter} has no route yet. Start one with `memgen route canary {adapter} VERSION`.")
    return int(newest[0]["number"])


def _print_started(route: JsonObject) -> None:
    print_line(f"Route {route['number']} of {route['adapter']} is live: {route['kind']}, {_arms(route)}.")
    print_note(f"Next: memgen route results {route['adapter']}")


def _print_shadow(found: JsonObject) -> None:
    print_line("")
    print_line(f"Shadow: {counted(found['answers'], 'answer')} compared, {found['failed']} failed.")
    if found["answers"]:
        same, seconds, tokens = found["same_interval"], found["seconds"], found["tokens"]
        print_line(
            f"  the same text: {percent(found['same'])} ({percent(same['low'])} to {percent(same['high'])}), "
            f"words in common: {percent(found['similarity'])}"
        )
        print_line(f"  seconds: {seconds['shadow']:.2f} against {seconds['returned']:.2f}")
        print_line(f"  tokens: {tokens['shadow']:.1f} against {tokens['returned']:.1f}")
    if found["last_error"]:
        print_line(f"  last failure: {found['last_error']}")


def _arms(route: JsonObject) -> str:
    if route["kind"] == "shadow":
        main, beside = (arm["version"] for arm in route["arms"])
        return f"{main} answers, {beside} shadows {percent(route['shadow_share'])}"
    return ", ".join(f"{arm['version']}: {percent(arm['weight'])}" for arm in route["arms"])


def _verdict(found: JsonObject | None) -> str:
    if found is None:
        return ""
    return f"{found['verdict']}, non-inferior" if found["non_inferior"] else str(found["verdict"])


def _difference(found: JsonObject | None) -> str:
    if found is None:
        return ""
    low, high = found["interval"]["low"], found["interval"]["high"]
    return f"{points(found['estimate'])} ({points(low)} to {points(high)})"
