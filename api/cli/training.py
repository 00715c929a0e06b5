"""`memgen train`: queue a training, watch it, and show what the gate made of the new version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.arguments import AdapterName, read_pairs
from api.cli.invocation import CommandFailed, connect
from api.cli.output import Json, first_line, percent, points, print_json, print_line, print_note, print_table

if TYPE_CHECKING:
    from api.client import Client, JsonObject


def train(
    context: typer.Context,
    adapter: AdapterName,
    task: Annotated[str, typer.Option(help="The task to learn.", show_default=False)],
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimizer steps; the service's default if not given.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Any field of TrainingConfig as key=value, such as learning_rate=0.002; repeatable."
        ),
    ] = None,
    parent: Annotated[
        int | None, typer.Option(min=0, help="Version to go on from, 0 for none. Default: the champion.")
    ] = None,
    min_reward: Annotated[
        float | None, typer.Option(help="Trajectories with a lower reward are not trained on.")
    ] = None,
    promote: Annotated[
        bool, typer.Option("--promote/--no-promote", help="Move the champion if the new version passes its gate.")
    ] = True,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Stay until the job has ended.")] = True,
    as_json: Json = False,
) -> None:
    """Train a new version of an adapter on a task's trajectories, evaluate it, and let the gate judge it.

    The exit code is 0 for a version that was trained, also if the gate rejected it, and 1 if the job failed or
    was cancelled. Ctrl-C stops the waiting, not the job.
    """
    training = read_pairs(settings or [], "--set") | ({} if steps is None else {"steps": steps})
    options: dict[str, Any] = {"training": training, "promote": promote, "parent": parent}
    if min_reward is not None:
        options["min_reward"] = min_reward
    with connect(context) as client:
        job = client.train(adapter, task, **options)
        if wait:
            _finish(client, job, as_json)
        elif as_json:
            print_json({"job": job, "version": None})
        else:
            print_line(f"Job {job['id']} is queued. `memgen jobs show {job['id']}` shows it.")


def _finish(client: Client, job: JsonObject, as_json: bool) -> None:
    from api.cli.progress import follow_job

    job = follow_job(client, job)
    number = (job["result"] or {}).get("version")
    version = client.version(job["adapter"], number) if number is not None else None
    if as_json:
        print_json({"job": job, "version": version})
    elif version is not None:
        _print_verdict(client, version)
    if job["state"] != "succeeded":
        how = "was cancelled" if job["error"] is None else f"failed: {first_line(job['error'])}"
        raise CommandFailed(f"The training {how}. `memgen jobs show {job['id']}` has the whole of it.")


def _print_verdict(client: Client, version: JsonObject) -> None:
    """Scores against the champion, the gate's reasons, and where that leaves the aliases."""
    name, gate = f"{version['adapter']}@{version['number']}", version["gate"]
    if gate is None:
        print_line(f"{name} was trained, and its gate has not run.")
        return
    before = f"{version['adapter']}@{gate['champion']}" if gate["champion"] else "base"
    rows = [
        (
            c["task"] + (" (new)" if c["new"] else ""),
            percent(c["champion"]),
            percent(c["candidate"]),
            points(c["change"]),
            "passed" if c["passed"] else "rejected",
        )
        for c in gate["comparisons"]
    ]
    print_table(("task", f"#{before}", f"#{name}", "#change", "gate"), rows)
    print_line("")
    print_line(f"{name} {'passed its gate' if gate['passed'] else 'was rejected'}:")
    for reason in gate["reasons"]:
        print_line(f"  {reason}")
    aliases = client.adapter(version["adapter"])["aliases"]
    champion = aliases.get("champion")
    if champion == version["number"]:
        print_line(f"It serves now as {version['adapter']}@champion.", style="green")
    elif gate["passed"]:
        print_note(f"`memgen promote {version['adapter']} {version['number']}` makes it the champion.")
    else:
        print_note(f"The champion is still {f'version {champion}' if champion else 'the bare base'}.")
