"""`memgen adapter`, and the commands on an adapter's versions and aliases."""

import json
from functools import partial
from typing import Annotated, Any

import typer

from api.cli.answers import print_answer
from api.cli.arguments import (
    AdapterArgument,
    AliasOption,
    AtOption,
    ExpectedOption,
    ReasonOption,
    read_moment,
    read_pairs,
)
from api.cli.invocation import connect
from api.cli.output import JsonOption, heat, moment, percent, print_json, print_line, print_note, print_table
from api.http.json_object import JsonObject
from registry.names import CHAMPION

app = typer.Typer(help="Adapters: named lineages of memories on one base model.", no_args_is_help=True)


@app.command(epilog="Example: `memgen adapter create support-bot --gate-margin 0.03 --memory latents=16`")
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Lower case, such as support-bot.", show_default=False)],
    description: Annotated[str, typer.Option(help="For people.")] = "",
    strategy: Annotated[
        str,
        typer.Option(help="replay mixes in earlier tasks' items, sequential does not, isolated has a memory per task."),
    ] = "replay",
    replay_share: Annotated[float, typer.Option(help="Share of earlier tasks' items in each training.")] = 0.25,
    gate_margin: Annotated[float, typer.Option(help="Largest drop of an old task's score; 0.05 is 5 points.")] = 0.05,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other setting of `adapter set` as key=value; repeatable."),
    ] = None,
    memory: Annotated[
        list[str] | None, typer.Option(help="Field of MemoryConfig as key=value, such as latents=16; repeatable.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Create an adapter, bound to the base model that the service runs."""
    print_answer(
        context,
        as_json,
        lambda client: client.adapters.create(
            name,
            description=description,
            strategy=strategy,
            replay_share=replay_share,
            gate_margin=gate_margin,
            memory=read_pairs(memory or [], "--memory"),
            **read_pairs(settings or [], "--set"),
        ),
        lambda adapter: _print_create(adapter, name),
    )


def _print_create(adapter: JsonObject, name: str) -> None:
    print_line(f"Adapter {name} on {adapter['base_model']}.")
    print_note(f"Next: memgen train {name} --task TASK")


@app.command(
    "set", epilog="Example: `memgen adapter set support-bot gate_policy=manual --reason 'we read answers now'`"
)
def set_(
    context: typer.Context,
    name: AdapterArgument,
    settings: Annotated[
        list[str],
        typer.Argument(
            help="key=value of replay_share, gate_margin, gate_rule, gate_level, gate_settled, gate_gain, "
            "gate_policy, "
            "canary_share, canary_promotion, canary_margin or retry_replay_share (null for none).",
            show_default=False,
        ),
    ],
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Change settings of replay and gates, for the trainings and gates to come."""
    print_answer(
        context,
        as_json,
        lambda client: client.adapters.change(name, reason=reason, **read_pairs(settings, "SETTINGS")),
        lambda adapter: _print_set(adapter, name, settings),
    )


def _print_set(adapter: JsonObject, name: str, settings: list[str]) -> None:
    for key in read_pairs(settings, "SETTINGS"):
        print_line(f"{name}: {key} is {json.dumps(adapter[key])}.")


@app.command(epilog="Example: `memgen adapter changes support-bot`")
def changes(context: typer.Context, name: AdapterArgument, as_json: JsonOption = False) -> None:
    """Show who changed which settings, when and why."""
    print_answer(
        context, as_json, lambda client: client.adapters.changes(name), lambda found: _print_changes(found, name)
    )


def _print_changes(found: list[JsonObject], name: str) -> None:
    rows = [
        (moment(c["at"]), setting, json.dumps(move["from"]), json.dumps(move["to"]), c["actor"], c["reason"])
        for c in found
        for setting, move in c["changes"].items()
    ]
    print_table(("at", "setting", "from", "to", "by", "reason"), rows, empty=f"{name} is as it was created.")


@app.command("list", epilog="Example: `memgen adapter list`")
def list_(context: typer.Context, as_json: JsonOption = False) -> None:
    """List all adapters and where their aliases stand."""
    print_answer(context, as_json, lambda client: client.adapters.list(), _print_list)


def _print_list(adapters: list[JsonObject]) -> None:
    rows = [
        (a["name"], a["base_model"], a["strategy"], _aliases(a["aliases"]), moment(a["created_at"]), a["description"])
        for a in adapters
    ]
    print_table(
        ("adapter", "base", "strategy", "aliases", "created", "description"),
        rows,
        empty="No adapter yet. Create one with `memgen adapter create NAME`.",
    )


def versions(
    context: typer.Context,
    adapter: AdapterArgument,
    all_: Annotated[bool, typer.Option("--all", help="Archived ones too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List an adapter's versions with their verdicts, aliases and score on each task."""
    with connect(context) as client:
        found = [*client.versions.all(adapter)]
        aliases, scores = client.adapters.get(adapter)["aliases"], client.adapters.scores(adapter)
        hidden = {s["number"] for s in client.versions.all_states(adapter) if s["archived_at"] is not None and not all_}
    found = [version for version in found if version["number"] not in hidden]
    for version in found:
        number = version["number"]
        version["aliases"] = [alias for alias, target in aliases.items() if target == number]
        version["scores"] = {task: score["score"] for task, score in scores["versions"].get(str(number), {}).items()}
    if as_json:
        print_json({"data": found})
        return
    tasks = scores["tasks"]
    rows = [
        (
            v["number"],
            v["verdict"],
            v["form"],
            v["task"],
            v["parent"] or "base",
            ", ".join(v["aliases"]),
            *(percent(v["scores"].get(task)) for task in tasks),
            moment(v["created_at"]),
        )
        for v in found
    ]
    print_table(
        ("#version", "verdict", "form", "task", "#parent", "aliases", *(f"#{task}" for task in tasks), "created"),
        rows,
        empty=f"No version yet. Train one with `memgen train {adapter} --task TASK`.",
    )


def scores(context: typer.Context, adapter: AdapterArgument, as_json: JsonOption = False) -> None:
    """Show R: what each version scores on each task, with ACC, BWT and forgetting."""
    print_answer(context, as_json, lambda client: client.adapters.scores(adapter), _print_scores)


def _print_scores(found: JsonObject) -> None:
    tasks = found["tasks"]
    subjects: list[tuple[str, dict[str, Any]]] = [("base", found["base"]), *found["versions"].items()]
    rows = [(name, *(heat(row[t]["score"]) if t in row else "" for t in tasks)) for name, row in subjects]
    print_table(("version", *(f"#{task}" for task in tasks)), rows if tasks else [], empty="Nothing was scored yet.")
    metrics = found["metrics"]
    if metrics is not None:
        print_line("")
        print_line(
            f"Version {metrics['version']}: ACC {percent(metrics['acc'])}, BWT {percent(metrics['bwt'])}, "
            f"FWT {percent(metrics['fwt'])}"
        )
        for task, lost in metrics["forgetting"].items():
            if lost is not None:
                print_line(f"  forgetting of {task}: {percent(lost)}")


def promote(
    context: typer.Context,
    adapter: AdapterArgument,
    version: Annotated[int, typer.Argument(min=1, help="Number of the version.", show_default=False)],
    alias: AliasOption = CHAMPION,
    expected: ExpectedOption = None,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Move an alias to a version that passed its gate; it serves from the next request on."""
    print_answer(
        context,
        as_json,
        lambda client: client.aliases.promote(adapter, version, alias=alias, expected=expected, reason=reason),
        partial(_print_move, adapter),
    )


def rollback(
    context: typer.Context,
    adapter: AdapterArgument,
    to: Annotated[int | None, typer.Option(min=1, help="Version to go back to. Default: the last good one.")] = None,
    at: AtOption = None,
    alias: AliasOption = CHAMPION,
    expected: ExpectedOption = None,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Move an alias back: to the last good version, to one it pointed at, or to where it stood at a time.

    The last good one is the last that served before and still may. It serves from the next request on.
    """
    terms = {"to": to, "at": read_moment(at, "--at"), "expected": expected, "reason": reason}
    print_answer(
        context,
        as_json,
        lambda client: client.aliases.rollback(adapter, alias=alias, **terms),
        partial(_print_move, adapter),
    )


def history(
    context: typer.Context,
    adapter: AdapterArgument,
    at: AtOption = None,
    alias: AliasOption = CHAMPION,
    as_json: JsonOption = False,
) -> None:
    """Show every move of an alias: when, from, to, by whom and why. With --at, what it named at a time."""
    if at is not None:
        then = read_moment(at, "--at")
        print_answer(
            context,
            as_json,
            lambda client: client.aliases.get(adapter, alias, at=then),
            partial(_print_snapshot, adapter),
        )
        return
    print_answer(
        context,
        as_json,
        lambda client: [*client.aliases.all_history(adapter, alias)],
        partial(_print_history, f"{adapter}@{alias}"),
    )


def _print_history(name: str, moves: list[JsonObject]) -> None:
    rows = [
        (moment(m["at"]), m["kind"], m["from_version"] or "none", m["to_version"], m["actor"], m["reason"])
        for m in moves
    ]
    print_table(("at", "move", "#from", "#to", "by", "reason"), rows, empty=f"{name} has not been moved yet.")


def _print_snapshot(adapter: str, snapshot: dict[str, Any]) -> None:
    since, until = snapshot["since"], snapshot["until"]
    print_line(
        f"{adapter}@{snapshot['alias']} was version {snapshot['version']} at {moment(snapshot['at'])}: moved there "
        f"{moment(since['at'])} by {since['actor']} ({since['kind']}), "
        + (f"moved on {moment(until)}." if until else "where it is still.")
    )
    if snapshot["route"]:
        shares = ", ".join(
            f"version {number} {percent(share)}" for number, share in snapshot["route"]["weights"].items()
        )
        print_line(
            f"Route {snapshot['route']['number']} ({snapshot['route']['kind']}) shared the traffic then: {shares}."
        )


def _print_move(adapter: str, move: dict[str, Any]) -> None:
    before = move["from_version"] or "none"
    print_line(f"{adapter}@{move['alias']}: version {before} to {move['to_version']} ({move['kind']}).")
    for skipped in move["evidence"].get("skipped", ()):
        print_line(f"Passed over version {skipped['version']}: {skipped['why']}.")


def _aliases(aliases: dict[str, int]) -> str:
    return ", ".join(f"{name}={number}" for name, number in aliases.items())
