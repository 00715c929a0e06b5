"""`memgen recording`: what is recorded of agents' work, and what became of it."""

from itertools import islice
from typing import Annotated

import typer

from api.cli.answers import print_answer
from api.cli.completion import adapter_names, task_names
from api.cli.invocation import connect
from api.cli.output import JsonOption, print_json, print_line, print_table
from api.http.json_object import JsonObject
from registry.wording import counted

app = typer.Typer(help="Recording: agents' runs become trajectories by themselves.", no_args_is_help=True)


@app.command(epilog="Example: `memgen recording show`")
def show(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show what is recorded, what waits, and what was not recorded, with the reasons."""
    print_answer(context, as_json, lambda client: client.recordings.get(), _print_show)


def _print_show(found: JsonObject) -> None:
    rows = [
        (
            p["adapter"] or "(project)",
            p["mode"],
            f"{100 * p['share']:g}%",
            p["task"] or "-",
            _seconds(p["idle_seconds"]),
        )
        for p in found["policies"]
    ]
    print_table(("adapter", "mode", "#share", "task", "#idle"), rows)
    print_line("")
    print_line(f"{counted(found['recorded'], 'answer')} recorded, {found['waiting']} waiting in the process asked.")
    print_line(f"The recorder that is furthest behind is {found['behind_seconds']:g} s behind.")
    if found["stuck"]:
        print_line(f"{counted(found['stuck'], 'answer')} stuck in a process (its log says why): runs end without them.")
    print_line("Runs: " + (", ".join(f"{count} {state}" for state, count in found["runs"].items()) or "none yet") + ".")
    if found["not_recorded"]:
        print_table(("not recorded because", "#answers"), list(found["not_recorded"].items()))


@app.command("set", epilog="Example: `memgen recording set all --adapter support-bot --task support`")
def set_(
    context: typer.Context,
    mode: Annotated[str, typer.Argument(help="off, asked (store: true or X-Memgen-Task) or all.", show_default=False)],
    adapter: Annotated[
        str | None, typer.Option(help="Of this adapter alone; else of the whole project.", autocompletion=adapter_names)
    ] = None,
    share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the sessions, in mode all.")] = 1.0,
    task: Annotated[
        str | None, typer.Option(help="Task of requests that name none.", autocompletion=task_names)
    ] = None,
    idle_seconds: Annotated[float | None, typer.Option(help="Silence after which a run is closed.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Set what is recorded. It counts from the next request on."""
    print_answer(
        context,
        as_json,
        lambda client: client.recordings.set_policy(
            mode, adapter=adapter, share=share, task=task, idle_seconds=idle_seconds
        ),
        lambda policy: _print_set(policy, adapter),
    )


def _print_set(policy: JsonObject, adapter: str | None) -> None:
    whose = f"adapter {adapter}" if adapter else "the project"
    print_line(f"Recording of {whose}: {policy['mode']}, task {policy['task'] or 'as requests name it'}.")


@app.command(epilog="Example: `memgen recording clear support-bot`")
def clear(
    context: typer.Context,
    adapter: Annotated[str, typer.Argument(show_default=False, autocompletion=adapter_names)],
    as_json: JsonOption = False,
) -> None:
    """Let the project's policy hold for an adapter again."""
    with connect(context) as client:
        client.recordings.clear_policy(adapter)
    if as_json:
        print_json({"adapter": adapter, "policy": None})
    else:
        print_line(f"Recording of adapter {adapter}: as the project's.")


@app.command(epilog="Example: `memgen recording runs --task support --state refused`")
def runs(
    context: typer.Context,
    task: Annotated[str | None, typer.Option(help="Of this task.", autocompletion=task_names)] = None,
    session: Annotated[str | None, typer.Option(help="Of this session.")] = None,
    completion: Annotated[str | None, typer.Option(help="The run of this answer, by its id.")] = None,
    state: Annotated[str | None, typer.Option(help="open, closing, closed or refused.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List runs, newest first."""
    with connect(context) as client:
        found = client.recordings.all_runs(task=task, session_id=session, completion_id=completion, state=state)
        listed = list(islice(found, limit))
    if as_json:
        print_json({"data": listed})
        return
    rows = [
        (
            run["id"],
            run["task"],
            run["session_id"] or "-",
            run["state"],
            run["close_reason"] or "-",
            run["calls"],
            # Its id is in `memgen recording run`: two ids are more than a line of a screen.
            "a trajectory" if run["trajectory_id"] else _end(run),
        )
        for run in listed
    ]
    columns = ("run", "task", "session", "state", "closed by", "#answers", "became")
    print_table(columns, rows, empty="No run yet. `memgen recording show` says what is recorded.")


@app.command(epilog="Example: `memgen recording run 6f0c2a52-4c3e-4a0e-9f0e-0d8b8f6f7f11 --json`")
def run(
    context: typer.Context,
    run_id: Annotated[str, typer.Argument(help="As an answer's memgen.recorded has it.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Show one run with its messages."""
    print_answer(context, as_json, lambda client: client.recordings.run(run_id), _print_run)


def _print_run(found: JsonObject) -> None:
    answers = counted(found["calls"], "answer")
    print_line(f"Run {found['id']} of task {found['task']}: {found['state']}, {answers}, {_end(found)}")
    for message in found["messages"]:
        weight = "" if message.get("weight", 1) else " (context)"
        calls = ", ".join(call["function"]["name"] for call in message.get("tool_calls") or ())
        text = message.get("content") or (f"calls {calls}" if calls else "")
        print_line(f"  {message['role']}{weight}: {text}")


def _end(run: dict[str, object]) -> str:
    if run["trajectory_id"]:
        return f"trajectory {run['trajectory_id']}"
    return f"refused: {run['refusal_code']}" if run["refusal_code"] else "-"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:g} s"
