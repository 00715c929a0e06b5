"""`memgen analyze`: what the memory of a version has learned, as far as it can be seen from outside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.arguments import find_version
from api.cli.completion import judge_names, task_names
from api.cli.invocation import connect
from api.cli.output import (
    JsonOption,
    percent,
    points,
    print_json,
    print_line,
    print_note,
    print_table,
)
from api.http.json_object import JsonObject
from registry.wording import counted

if TYPE_CHECKING:
    from memgen_client import JsonClient

_TOKENS = 6
"""Nearest tokens that a row shows."""


def analyze(
    context: typer.Context,
    version: Annotated[str, typer.Argument(help="Such as support-bot@7 or support-bot@champion.", show_default=False)],
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            help="A task whose held-out items are answered; repeatable. Default: all it has learned.",
            autocompletion=task_names,
        ),
    ] = None,
    items: Annotated[int | None, typer.Option(min=1, help="Held-out items at most, of all tasks together.")] = None,
    clusters: Annotated[
        str | None, typer.Option(help="Least and most clusters that are tried, such as 2-8.", show_default=False)
    ] = None,
    interventions: Annotated[
        bool, typer.Option("--interventions/--no-interventions", help="Answer again without each cluster's latents.")
    ] = True,
    ablations: Annotated[
        bool, typer.Option("--ablations/--no-ablations", help="Answer again with less, or other, memory.")
    ] = True,
    against: Annotated[
        int | None, typer.Option(min=1, help="Version of the same adapter whose latents are compared.")
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="Judge that names the kinds of wrong answers. Default: rules do.", autocompletion=judge_names
        ),
    ] = None,
    max_calls: Annotated[int | None, typer.Option(min=1, help="Calls of the judge's model at most.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Decides every draw.")] = None,
    files: Annotated[
        Path | None, typer.Option(help="Write all files of the analysis, latents too, as a tar.", show_default=False)
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Stay until the job has ended.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Look into the memory of a version: its latents, their clusters, and what the answers lose without them.

    docs/analysis.md says what each number means. `memgen versions analysis` shows the last one again. Ctrl-C stops the
    waiting, not the job.
    """
    if files is not None and not wait:
        raise typer.BadParameter("expected --wait: the files are there when the job has ended", param_hint="--files")
    chosen = {"items": items, "against": against, "seed": seed} | _clusters(clusters)
    analysis: dict[str, Any] = {"interventions": interventions, "ablations": ablations}
    analysis |= {name: value for name, value in chosen.items() if value is not None}
    options: dict[str, Any] = {"tasks": tasks or None, "analysis": analysis, "judge": judge}
    options |= {} if max_calls is None else {"max_calls": max_calls}
    with connect(context) as client:
        adapter, number = find_version(client, version)
        job = client.jobs.analyze(adapter, number, **options)
        if wait:
            _finish(client, job, files, as_json)
        elif as_json:
            print_json({"job": job, "analysis": None})
        else:
            print_line(f"Job {job['id']} is queued. `memgen versions analysis {adapter} {number}` shows what it finds.")


def _clusters(text: str | None) -> dict[str, int]:
    """`2-8` as the API's two numbers; `4` is four and no other."""
    if text is None:
        return {}
    least, _, most = text.partition("-")
    if not least.isdecimal() or not (most or least).isdecimal():
        raise typer.BadParameter(f"{text!r} is not of the form 2-8", param_hint="--clusters")
    return {"least_clusters": int(least), "most_clusters": int(most or least)}


def _finish(client: JsonClient, job: JsonObject, files: Path | None, as_json: bool) -> None:
    from api.cli.progress import check_succeeded, follow_job

    job = follow_job(client, job)
    found = client.jobs.analysis(job["id"]) if job["state"] == "succeeded" else None
    if found is not None and files is not None:
        size = client.jobs.analysis_files(job["id"], files)
        print_note(f"All files of it are in {files} ({size} bytes).")
    if as_json:
        print_json({"job": job, "analysis": found})
    elif found is not None:
        print_analysis(found)
    check_succeeded(job, "analysis", f"`memgen jobs show {job['id']}` has the whole of it.")


def print_analysis(found: JsonObject) -> None:
    """Tables of what the API says of an analysis; those of what was not wanted are left out."""
    print_line(
        f"{found['adapter']}@{found['version']}: {counted(found['latents'], 'latent')} of "
        f"{counted(found['items'], 'answer')}."
    )
    _print_tasks(found)
    _print_clusters(found)
    if found["drift"]:
        _print_drift(found["drift"])
    if found["interventions"]:
        _print_interventions(found["interventions"])
    if found["ablations"]:
        _print_ablations(found["ablations"])


def _print_tasks(found: JsonObject) -> None:
    rows = [
        (
            each["task"],
            each["suite"],
            each["items"],
            each["left_out"] or "",
            each["right"],
            each["latents"],
            _counts(each["failures"]),
        )
        for each in found["tasks"]
    ]
    print_line("")
    print_table(("task", "#suite", "#items", "#left out", "#right", "#latents", "wrong, by kind"), rows)
    by = found["kinds_by"]
    if by["judge"]:
        print_note(f"Judge {by['judge']} named {by['by_judge']} of the kinds, the rules {by['by_rules']}.")


def _print_clusters(found: JsonObject) -> None:
    clusters, nearest = found["clusters"], found["tokens"]
    tokens = {each["name"]: each["tokens"] for each in nearest["directions"]}
    roles = {each["cluster"]: each["role"] for each in (found["interventions"] or {"effects": []})["effects"]}
    print_line("")
    print_line(f"{clusters['verdict'].capitalize()}. {_sentence(clusters['reason'])}")
    if not clusters["clusters"]:
        return
    rows = [
        (
            each["number"],
            percent(each["share"]),
            _counts(each["tasks"]),
            _counts(each["insertions"]),
            percent(each["right_share"]),
            " ".join(repr(token["token"]) for token in tokens.get(f"cluster {each['number']}", [])[:_TOKENS]),
            roles.get(each["number"], ""),
        )
        for each in clusters["clusters"]
    ]
    print_table(("#cluster", "#latents", "of tasks", "woven at", "#right", "nearest tokens", "role"), rows)
    explained = ", ".join(f"{name} {value:.2f}" for name, value in clusters["explained_by"].items())
    print_note(f"Explained by (1: entirely): {explained}.")
    best = max((each["cosine"] for some in tokens.values() for each in some[:1]), default=0.0)
    print_note(
        f"The nearest token of all has a cosine of {best:.2f}; one in twenty random directions has one above "
        f"{nearest['chance_cosine']:.2f}."
    )


def _print_drift(drift: JsonObject) -> None:
    rows = [
        (each["task"], each["items"], f"{each['cosine']:.3f}", f"{each['least_cosine']:.3f}") for each in drift["tasks"]
    ]
    print_line("")
    print_table(("task", "#items", f"#cosine with version {drift['against']}", "#least"), rows)
    cka = "-" if drift["cka"] is None else f"{drift['cka']:.3f}"
    others = "-" if drift["other_items_cosine"] is None else f"{drift['other_items_cosine']:.3f}"
    print_line(
        f"Over all: cosine {drift['cosine']:.3f} (with other items' latents {others}), CKA {cka}. "
        f"{_sentence(drift['meaning'])}"
    )


def _print_interventions(found: JsonObject) -> None:
    rows = [
        (
            effect["cluster"],
            move["failure"].replace("_", " "),
            percent(move["untouched"]),
            percent(move["dropped"]),
            percent(move["random"]),
            f"{percent(move['random_interval'][0])} to {percent(move['random_interval'][1])}",
            "rises" if move["rises"] else "",
        )
        for effect in found["effects"]
        for move in effect["moves"]
        if move["untouched"] or move["dropped"] or move["random"]
    ]
    print_line("")
    columns = ("#cluster", "wrong in this way", "#all latents", "#without it", "#without as many", "by chance", "")
    print_table(columns, rows, empty="Nothing was dropped: there are no clusters, or no answer was wrong.")
    for effect in found["effects"]:
        print_line(f"Cluster {effect['cluster']}: {effect['role']}. {_sentence(effect['reason'])}")
    print_note(found["rule"])


def _print_ablations(found: JsonObject) -> None:
    rows = [
        (
            each["name"],
            percent(each["accuracy"]),
            points(each["difference"]),
            f"{points(each['difference_interval'][0])} to {points(each['difference_interval'][1])}",
            f"{each['insertions_per_answer']:.2f}",
            f"{each['latents_per_answer']:.1f}",
        )
        for each in found["rows"]
    ]
    print_line("")
    print_table(("memory", "#right", "#change", "interval", "#insertions an answer", "#latents an answer"), rows)
    for name, why in found["skipped"].items():
        print_note(f"Left out, {name}: {why}")


def _sentence(clause: str) -> str:
    return f"{clause[:1].upper()}{clause[1:]}."


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if count)
