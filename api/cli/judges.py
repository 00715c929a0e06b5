"""`memgen judge`: models with a rubric that score trajectories."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.answers import print_answer
from api.cli.arguments import read_pairs
from api.cli.completion import judge_names, task_names
from api.cli.invocation import CommandFailed, connect
from api.cli.output import JsonOption, first_line, moment, percent, print_json, print_line, print_table, print_warning
from api.http.json_object import JsonObject
from registry.wording import counted

app = typer.Typer(help="Judges: models with a rubric that score trajectories.", no_args_is_help=True)
JudgeArgument = Annotated[
    str, typer.Argument(help="Name of the judge.", show_default=False, autocompletion=judge_names)
]
TaskOption = Annotated[
    str, typer.Option(help="The task whose trajectories it judges.", show_default=False, autocompletion=task_names)
]

_STATES = ("scored", "undecided", "unparsable", "refused", "too_long")
_WORDS = 80
_INLINE = "@"


@app.command(epilog="Example: `memgen judge create helpful --model base --rubric @rubric.txt`")
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Lower case, such as helpful.", show_default=False)],
    model: Annotated[
        str, typer.Option(help="base, ADAPTER, ADAPTER@ALIAS, ADAPTER@7 or UPSTREAM/MODEL.", show_default=False)
    ],
    rubric: Annotated[str, typer.Option(help="What a good run is, in words; @FILE reads a file.", show_default=False)],
    relative: Annotated[
        bool, typer.Option("--relative", help="Rank runs that begin alike, instead of scoring each by itself.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting as key=value, such as scale=5 or daily_calls=200; repeatable."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Create a judge. What it judges by can't be changed later; creating an equal one again is harmless."""
    text = _read(rubric.removeprefix(_INLINE)) if rubric.startswith(_INLINE) else rubric
    kind = "relative" if relative else "pointwise"
    print_answer(
        context,
        as_json,
        lambda client: client.judges.create(name, model, text, kind=kind, **read_pairs(settings or [], "--set")),
        lambda judge: _print_create(judge, name, kind),
    )


def _print_create(judge: JsonObject, name: str, kind: object) -> None:
    print_line(f"Judge {name}: {judge['model']}, {kind}. Its rewards have the source {judge['reward_source']}.")
    print_line(f"`memgen judge run {name} --task TASK` lets it judge; `memgen judge attach` lets it by itself.")


@app.command("list", epilog="Example: `memgen judge list --json`")
def list_(context: typer.Context, as_json: JsonOption = False) -> None:
    """List all judges."""
    print_answer(context, as_json, lambda client: client.judges.list(), _print_list)


def _print_list(judges: list[JsonObject]) -> None:
    rows = [
        (each["name"], each["kind"], each["model"], ", ".join(each["tasks"]), each["settings"]["daily_calls"])
        for each in judges
    ]
    empty = "No judge yet. Create one with `memgen judge create NAME --model MODEL --rubric TEXT`."
    print_table(("judge", "kind", "model", "by itself on", "#calls a day"), rows, empty=empty)


@app.command(epilog="Example: `memgen judge show helpful --limit 5`")
def show(
    context: typer.Context,
    name: JudgeArgument,
    limit: Annotated[int, typer.Option(min=0, max=200, help="How many judgements, the newest first.")] = 10,
    state: Annotated[str | None, typer.Option(help=f"Only those that are {', '.join(_STATES)}.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show a judge, what it said, and how it agrees with rewards from elsewhere."""
    filters = {} if state is None else {"state": state}
    with connect(context) as client:
        judge = client.judges.get(name)
        judgements = client.judges.judgements(judge=name, limit=limit, **filters)["data"] if limit else []
    if as_json:
        print_json({"judge": judge, "judgements": judgements})
        return
    print_table(("", ""), _described(judge))
    if judgements:
        print_line("")
        rows = [
            (each["trajectory"], each["state"], _score(each), moment(each["at"]), _words(each)) for each in judgements
        ]
        print_table(("trajectory", "state", "#score", "at", "reason"), rows)


@app.command(epilog="Example: `memgen judge run helpful --task support --max-calls 200`")
def run(
    context: typer.Context,
    name: JudgeArgument,
    task: TaskOption,
    max_calls: Annotated[int | None, typer.Option(min=1, help="Calls of its model at most.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens of prompts and answers at most.")] = None,
    unrewarded: Annotated[bool, typer.Option("--unrewarded", help="Only trajectories that have no reward.")] = False,
    held_out: Annotated[bool, typer.Option("--held-out", help="Those kept for evaluation, too.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Those that got no score before, too.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Stay until the job has ended.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Judge what waits in a task: trajectories that the judge has not judged yet, held-out ones only by --held-out."""
    from api.cli.progress import check_succeeded, follow_job, print_queued

    options: dict[str, Any] = {"unrewarded": unrewarded, "held_out": held_out, "again": again}
    options |= {key: value for key, value in (("max_calls", max_calls), ("max_tokens", max_tokens)) if value}
    with connect(context) as client:
        job = client.judges.run(name, task, **options)
        if wait:
            job = follow_job(client, job)
    if as_json:
        print_json(job)
    elif not wait:
        print_queued(job)
    elif job["result"] is not None:
        _print_result(name, job["result"])
    if wait:
        check_succeeded(job, "judging", "What was judged stays; `memgen judge run` again goes on.")


@app.command(epilog="Example: `memgen judge attach helpful --task support --rewards fill`")
def attach(
    context: typer.Context,
    name: JudgeArgument,
    task: TaskOption,
    daily_calls: Annotated[int | None, typer.Option(min=0, help="Calls that it may make in 24 hours.")] = None,
    rewards: Annotated[
        str | None, typer.Option(help="fill: its scores are rewards where there is no other; apart: they never are.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Let a judge judge a task's new trajectories by itself."""
    with connect(context) as client:
        if daily_calls is not None:
            client.judges.change(name, daily_calls=daily_calls)
        changed = client.tasks.change(task, judge=name, **({} if rewards is None else {"judge_rewards": rewards}))
    if as_json:
        print_json(changed)
    else:
        used = {"fill": "where there is no other", "apart": "never"}[changed["judge_rewards"]]
        print_line(f"Judge {name} judges what comes for task {task} from now on. Its scores are used {used}.")


@app.command(epilog="Example: `memgen judge detach --task support`")
def detach(context: typer.Context, task: TaskOption, as_json: JsonOption = False) -> None:
    """Let no judge judge a task's trajectories by itself."""
    print_answer(
        context,
        as_json,
        lambda client: client.tasks.change(task, judge=None),
        lambda changed: print_line(f"Nothing judges task {task} by itself."),
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"The rubric can't be read: {error}.") from error


def _described(judge: JsonObject) -> list[tuple[str, Any]]:
    agreement, counts = judge["agreement"], judge["judgements"]
    share = agreement["concordance"]
    return [
        ("judge", judge["name"]),
        ("kind", judge["kind"]),
        ("model", judge["model"]),
        ("rubric", first_line(judge["rubric"])),
        ("settings", ", ".join(f"{key}={value}" for key, value in judge["settings"].items())),
        ("reward source", judge["reward_source"]),
        ("by itself on", ", ".join(judge["tasks"])),
        ("judgements", ", ".join(f"{counts[state]} {state}" for state in _STATES if state in counts)),
        ("mean score", "-" if judge["mean_score"] is None else f"{judge['mean_score']:.3f}"),
        (
            "agreement",
            f"orders {percent(share)} of {counted(agreement['pairs'], 'pair')} as other rewards do (chance: 50%)"
            if share is not None
            else "no pairs with other rewards that differ",
        ),
    ]


def _score(judgement: JsonObject) -> str:
    return "-" if judgement["score"] is None else f"{judgement['score']:.2f}"


def _words(judgement: JsonObject) -> str:
    text = " ".join(judgement["reason"].split())
    return text if len(text) <= _WORDS else f"{text[:_WORDS]}..."


def _print_result(name: str, result: JsonObject) -> None:
    counts = ", ".join(f"{result[state]} {state}" for state in _STATES if result.get(state)) or "nothing waited"
    spent = f"{counted(result['calls'], 'call')}, {counted(result['tokens'], 'token')}"
    print_line(f"{name}: {counts}; {spent} of {result['model']}.")
    if result["stopped"] == "budget":
        print_warning("The budget is spent before all was judged; run it again to go on.")
    elif result["stopped"] == "unreadable":
        print_warning("No answer was a verdict. `memgen judge show` has the judgements; another model may do better.")
