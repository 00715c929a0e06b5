"""`memgen train` and `train-trigger`: queue a training, watch it, and show what the gate made of the new version."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.arguments import AdapterArgument, read_pairs
from api.cli.completion import task_names
from api.cli.invocation import CommandFailed, connect
from api.cli.output import (
    JsonOption,
    curve,
    percent,
    points,
    print_json,
    print_line,
    print_note,
    print_table,
    print_warning,
)
from api.http.json_object import JsonObject
from registry.job_requests import Method
from registry.names import CHAMPION

if TYPE_CHECKING:
    from memgen_client import JsonClient


class VersionForm(StrEnum):
    CACHE = "cache"
    EMBEDDING = "embedding"
    LORA = "lora"


PromoteOption = Annotated[
    bool, typer.Option("--promote/--no-promote", help="Move the champion if the new version passes its gate.")
]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Stay until the job has ended.")]
EnvironmentOption = Annotated[
    str | None,
    typer.Option(
        help="Play items of this instead of the task's: textworld, bfcl, reasoning-gym:DATASET.", show_default=False
    ),
]
EnvironmentSetOption = Annotated[
    list[str] | None,
    typer.Option("--environment-set", help="An option of the environment as key=value, such as level=2; repeatable."),
]
ItemsOption = Annotated[int | None, typer.Option(min=1, help="How many items of the environment to draw from.")]


def train(
    context: typer.Context,
    adapter: AdapterArgument,
    task: Annotated[str, typer.Option(help="The task to learn.", show_default=False, autocompletion=task_names)],
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimizer steps; the service's default if not given.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Any field of TrainingConfig, or with another method of GrpoConfig, as key=value; repeatable. "
            "Such as learning_rate=0.002",
        ),
    ] = None,
    method: Annotated[
        Method, typer.Option(help="From demonstrations; from reward for its own answers; for recorded answers.")
    ] = Method.SFT,
    form: Annotated[
        VersionForm | None,
        typer.Option(help="A memory, or a plain LoRA of the base. Default: as the adapter's memory says."),
    ] = None,
    environment: EnvironmentOption = None,
    environment_options: EnvironmentSetOption = None,
    items: ItemsOption = None,
    parent: Annotated[
        int | None, typer.Option(min=0, help="Version to go on from, 0 for none. Default: the champion.")
    ] = None,
    min_reward: Annotated[
        float | None, typer.Option(help="Trajectories with a lower reward are not trained on.")
    ] = None,
    insights: Annotated[
        Path | None,
        typer.Option(help="File of rules in words, one a line, for the weaver's cue.", exists=True, dir_okay=False),
    ] = None,
    promote: PromoteOption = True,
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Train a new version of an adapter for a task, evaluate it, and let the gate judge it.

    The exit code is 0 for a version that was trained, also if the gate rejected it, and 1 if the job failed or
    was cancelled. Ctrl-C stops the waiting, not the job.
    """
    training = read_pairs(settings or [], "--set") | ({} if steps is None else {"steps": steps})
    options: dict[str, Any] = {"training": training, "promote": promote, "parent": parent, "method": method.value}
    if form is not None:
        options["form"] = form.value
    if min_reward is not None:
        options["min_reward"] = min_reward
    if insights is not None:
        options["insights"] = _lines(insights)
    options |= _environment(environment, environment_options, items)
    with connect(context) as client:
        _show(client, client.jobs.train(adapter, task, **options), wait=wait, as_json=as_json)


def train_trigger(
    context: typer.Context,
    adapter: AdapterArgument,
    parent: Annotated[int, typer.Option(min=1, help="The version whose trigger is trained.", show_default=False)],
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            help="A task to play; repeatable. Default: all that the version has learned.",
            autocompletion=task_names,
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Batches of rollouts; the service's default if not given.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any field of TriggerConfig as key=value, such as penalty=0.05; repeatable."),
    ] = None,
    environment: EnvironmentOption = None,
    environment_options: EnvironmentSetOption = None,
    items: ItemsOption = None,
    promote: PromoteOption = True,
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Teach a version's trigger when to weave, from reward; its weaver stays as it is.

    The memory of the adapter needs trigger `lora` or `head`. Until it is trained, memory is woven at every decision
    point.
    """
    training = read_pairs(settings or [], "--set") | ({} if steps is None else {"steps": steps})
    options: dict[str, Any] = {"training": training, "promote": promote, "tasks": tasks or None}
    options |= _environment(environment, environment_options, items)
    with connect(context) as client:
        _show(client, client.jobs.train_trigger(adapter, parent, **options), wait=wait, as_json=as_json)


def _lines(path: Path) -> list[str]:
    """The lines of a file that are not empty."""
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise CommandFailed(f"{path} is not UTF-8 text: {error}. Save it as UTF-8.") from error
    return [line.strip() for line in text.split("\n") if line.strip()]


def _environment(name: str | None, pairs: list[str] | None, items: int | None) -> JsonObject:
    if name is None:
        if pairs or items is not None:
            raise typer.BadParameter("expected --environment beside it", param_hint="--environment-set or --items")
        return {}
    options = read_pairs(pairs or [], "--environment-set")
    return {"environment": {"name": name, "options": options} | ({} if items is None else {"items": items})}


def _show(client: JsonClient, job: JsonObject, *, wait: bool, as_json: bool) -> None:
    from api.cli.progress import print_queued

    if wait:
        _finish(client, job, as_json)
    elif as_json:
        print_json({"job": job, "version": None})
    else:
        print_queued(job)
        if job["waits_for_broker"]:
            print_warning("The broker is down; the job is sent to the workers when it is back.")


def _finish(client: JsonClient, job: JsonObject, as_json: bool) -> None:
    from api.cli.progress import check_succeeded, follow_job

    job = follow_job(client, job)
    number = (job["result"] or {}).get("version")
    version = client.versions.get(job["adapter"], number) if number is not None else None
    if as_json:
        print_json({"job": job, "version": version})
    elif version is not None:
        _print_verdict(client, version)
    check_succeeded(job, "training", f"`memgen jobs show {job['id']}` has the whole of it.")


def _print_verdict(client: JsonClient, version: JsonObject) -> None:
    """The loss, scores against the champion, the gate's reasons, and where that leaves the aliases."""
    name, gate = f"{version['adapter']}@{version['number']}", version["gate"]
    if losses := version["report"].get("losses"):
        print_line(f"loss {curve(losses)}")
        print_line("")
    if gate is None:
        print_line(f"{name} was trained, and its gate has not run.")
        return
    before = f"{version['adapter']}@{gate['champion']}" if gate["champion"] else "base"
    rows = [
        (
            c["task"] + (" (new)" if c["new"] else " (settled)" if c.get("settled") else ""),
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
    aliases = client.adapters.get(version["adapter"])["aliases"]
    champion = aliases.get(CHAMPION)
    if champion == version["number"]:
        print_line(f"It serves now as {version['adapter']}@{CHAMPION}.", style="green")
    elif version["verdict"] == "waiting":
        print_note(f"It waits: memgen gate approve {version['adapter']} {version['number']}, or memgen gate reject ...")
    elif gate["passed"]:
        print_note(f"`memgen promote {version['adapter']} {version['number']}` makes it the champion.")
    else:
        print_note(f"The champion is still {f'version {champion}' if champion else 'the bare base'}.")
