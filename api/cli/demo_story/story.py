"""`memgen demo`: the whole loop on a real model and real data, shown as it happens. Every number comes from the run.

Upload expert trajectories of task A, train v1, upload task B. Go on from v1 with one memory for both tasks, which
forgets, and see the gate stop it; train v2, a memory of its own for B, which holds. Look at what was learned and
forgotten, chat with the versions, roll back.
"""

import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from api.cli.demo_story import screen
from api.cli.demo_story.sources import DEMO_TASKS, DemoTask
from api.cli.progress import follow_job
from api.cli.stack import SUPERVISOR
from api.http.json_object import JsonObject
from api.local.control import down, status, up
from memgen.tasks.graders import Grader, Reference, make_grader
from memgen.text.answers import Answer, message_calls, message_text
from memgen_client import JsonClient
from registry.settings import Settings, load_settings
from registry.wiring import configured

GATE_MARGIN = 0.1
"""Ten points: on some 80 items a smaller drop can't be told from chance (the 95% interval is 21 points wide)."""


class DemoFailed(Exception):
    """A step of the story did not end as it must. The message says which and where to look."""


@dataclass(frozen=True)
class HeldOut:
    """What the demo needs of a task's held-out items, read back over REST."""

    items: int
    majority: float
    """Score of always giving the training data's most common answer."""
    example: JsonObject


def run_demo(settings: Settings, *, report_path: Path) -> int:
    """Run the story and write the report. Starts the local servers if they don't run, and stops what it started."""
    started = time.monotonic()
    with _running(settings) as connected, _client(connected) as client:
        report = _story(client, started)
    report_path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    screen.say(f"\nWrote {report_path} after {report['seconds']:.0f} s.")
    return 0


def _story(
    client: JsonClient,
    started: float,
    *,
    tasks: tuple[DemoTask, DemoTask] = DEMO_TASKS,
    memory: JsonObject | None = None,
) -> JsonObject:
    task_a, task_b = tasks
    adapter = _new_adapter(client, memory or {})
    _upload(client, task_a)
    _train(client, adapter, task_a, 1)
    _upload(client, task_b)
    single = _spoil(client, adapter, task_b)
    stopped = _is_stopped(client, single, task_a)
    _train(client, adapter, task_b, 2)

    held_out = {task.name: _held_out(client, task) for task in tasks}
    scores, gate = client.adapters.scores(adapter), client.versions.get(adapter, 2)["gate"]
    screen.chapter("What was learned, and what was forgotten")
    rows = [_row(task, held_out[task.name], scores, client.adapters.scores(single)) for task in tasks]
    screen.show_scores(rows, is_stopped=stopped)
    screen.show_metrics(scores["metrics"])
    screen.show_gate(gate)

    screen.chapter("Chat with the base and the versions")
    for task in tasks:
        models = ("base", f"{adapter}@1", f"{single}@2", f"{adapter}@2")
        _chat(client, models, task, held_out[task.name].example)
    rollback_ok = _roll_back(client, adapter, gate, held_out[task_a.name].example)
    return {
        "tasks": rows,
        "acc": scores["metrics"]["acc"],
        "bwt": scores["metrics"]["bwt"],
        "gate": "passed" if gate["passed"] else "rejected",
        "forgetting_stopped": stopped,
        "rollback_ok": rollback_ok,
        "seconds": round(time.monotonic() - started, 1),
    }


def _new_adapter(client: JsonClient, memory: JsonObject) -> str:
    """`demo`, or `demo-2` and so on where the folder holds an earlier demo."""
    taken = {adapter["name"] for adapter in client.adapters.list()}
    name = next(n for n in ("demo", *(f"demo-{k}" for k in range(2, 10_000))) if n not in taken)
    options = {"strategy": "isolated", "gate_margin": GATE_MARGIN, "memory": memory}
    client.adapters.create(name, description="memgen demo: a memory for each task", **options)
    screen.say(f"Created the adapter {name} on the frozen base {client.adapters.get(name)['base_model']}.")
    return name


def _upload(client: JsonClient, task: DemoTask) -> None:
    screen.chapter(f"Upload expert trajectories: {task.name}")
    screen.say(task.about)
    client.tasks.create(task.name, grader=task.grader, holdout_share=task.holdout_share, description=task.about)
    trajectories = task.trajectories()
    with screen.counting(f"upload {task.name}", len(trajectories)) as counted:
        report = client.trajectories.upload(counted(trajectories), task=task.name)
    screen.show_import(report)
    if report["refused"] or not report["complete"]:
        raise DemoFailed(f"the upload of {task.name} was not accepted whole: {report['refused_by_code']}")


def _train(client: JsonClient, adapter: str, task: DemoTask, number: int) -> None:
    screen.chapter(f"Train version {number} on {task.name}, evaluate it, let the gate judge")
    _follow_training(client, adapter, task, number, task.training)


def _spoil(client: JsonClient, adapter: str, task: DemoTask) -> str:
    """Go on from version 1 with another task in the same memory, as fine-tuning does. Returns the adapter's name."""
    screen.chapter(f"One memory for both tasks: go on from version 1 with {task.name} alone")
    single, memory = f"{adapter}-one-memory", client.adapters.get(adapter)["memory"]
    options = {"strategy": "sequential", "gate_margin": GATE_MARGIN, "memory": memory}
    client.adapters.create(single, description="memgen demo: one memory for all tasks", **options)
    with tempfile.TemporaryDirectory(prefix="memgen-demo-") as folder:
        archive = Path(folder) / "version-1.tar"
        client.versions.export_file(adapter, 1, archive)
        imported = client.versions.import_file(single, archive)
    check = follow_job(client, client.jobs.get(imported["check_job"]))
    if check["state"] != "succeeded" or check["result"]["gate"] != "passed":
        raise DemoFailed(f"version 1 does not pass the gate of {single}: {check['error'] or check['result']}")
    client.aliases.promote(single, 1, reason="carried over")
    _follow_training(client, single, task, 2, task.spoiling or task.training)
    return single


def _is_stopped(client: JsonClient, single: str, task: DemoTask) -> bool:
    """Whether the gate rejected version 2 for what it forgot of a task; says so."""
    comparisons = client.versions.get(single, 2)["gate"]["comparisons"]
    stopped = any(each["task"] == task.name and not each["passed"] for each in comparisons)
    if stopped:
        screen.say(f"It forgot {task.name}. So nothing moved: {single} is still answered by its version 1.")
    else:
        screen.say(f"It forgot less of {task.name} than the margin, so there was nothing to stop.")
    return stopped


def _follow_training(client: JsonClient, adapter: str, task: DemoTask, number: int, training: JsonObject) -> None:
    """Train a version from the champion, and show it with its gate."""
    job = follow_job(client, client.jobs.train(adapter, task.name, training=training))
    if job["state"] != "succeeded":
        raise DemoFailed(f"the training of {task.name} {job['state']}: {job['error']}; the logs are in <home>/logs")
    version = client.versions.get(adapter, number)
    report = version["report"]
    screen.say(
        f"{adapter}@{number}: {report['steps']} steps on {report['examples']} turns in {report['seconds']:.0f} s, loss "
        f"{report['losses'][0]:.2f} to {report['losses'][-1]:.2f}."
    )
    screen.show_gate(version["gate"])


def _held_out(client: JsonClient, task: DemoTask) -> HeldOut:
    rows = {
        split: [*client.trajectories.all(task=task.name, held_out=split, include_messages=True)]
        for split in (True, False)
    }
    grade = make_grader(task.grader)
    common = Counter(_answer_key(row) for row in rows[False]).most_common(1)[0][0]
    majority = sum(_grade(grade, common, row) for row in rows[True]) / len(rows[True])
    return HeldOut(len(rows[True]), majority, rows[True][0])


def _answer_key(row: JsonObject) -> str:
    """The expert's answer as comparable text."""
    answer = row["messages"][-1]
    return json.dumps([message_text(answer), message_calls(answer)], sort_keys=True)


def _grade(grade: Grader, answer_key: str, row: JsonObject) -> float:
    text, calls = json.loads(answer_key)
    return grade(Answer(text or None, tuple(calls)), Reference(row["messages"][-1], row["metadata"]))


def _row(task: DemoTask, held_out: HeldOut, scores: JsonObject, single: JsonObject) -> JsonObject:
    """A line of the table of scores; `single` are those of the adapter with one memory."""
    measured = {label: of[task.name] for label, of in (("base", scores["base"]), *scores["versions"].items())}
    if measured["base"]["items"] != held_out.items:
        raise DemoFailed(f"the suite of {task.name} has {measured['base']['items']} items, not {held_out.items}")
    return {
        "name": task.name,
        "majority": held_out.majority,
        "base": measured["base"]["score"],
        "v1": measured["1"]["score"],
        "one_memory": single["versions"]["2"][task.name]["score"],
        "v2": measured["2"]["score"],
        "items": held_out.items,
    }


def _chat(client: JsonClient, models: tuple[str, ...], task: DemoTask, example: JsonObject) -> None:
    prompt, expert = example["messages"][:-1], example["messages"][-1]
    answers = [_ask(client, model, prompt, example["tools"]) for model in models]
    screen.show_chat(task.name, message_text(prompt[-1]), answers, _text_of(expert))


def _ask(client: JsonClient, model: str, prompt: list[JsonObject], tools: list[JsonObject] | None) -> JsonObject:
    options: JsonObject = {"max_tokens": 80, "temperature": 0, **({"tools": tools} if tools else {})}
    reply = client.chat.create(model, prompt, **options)
    return {"version": reply["model"], "text": _text_of(reply["choices"][0]["message"])}


def _text_of(message: JsonObject) -> str:
    calls = [f"{call['name']}({json.dumps(call['arguments'])[1:-1]})" for call in message_calls(message)]
    return "\n".join(part for part in (message_text(message).strip(), *calls) if part)


def _roll_back(client: JsonClient, adapter: str, gate: JsonObject, example: JsonObject) -> bool:
    """True if the champion answered before and after, and the answer's stamp followed the alias."""
    screen.chapter("Roll back")
    if not gate["passed"]:
        screen.say("Version 2 was rejected by its gate, so version 1 still serves: there is nothing to roll back.")
        return False
    prompt, tools = example["messages"][:-1], example["tools"]
    before = _ask(client, adapter, prompt, tools)["version"]
    began = time.monotonic()
    client.aliases.rollback(adapter, reason="demo")
    after = _ask(client, adapter, prompt, tools)["version"]
    screen.say(
        f"{adapter} answered as {before}; one call later it answers as {after} "
        f"({time.monotonic() - began:.1f} s with the answer, no restart)."
    )
    screen.show_history([*client.aliases.all_history(adapter)])
    return (before, after) == (f"{adapter}@2", f"{adapter}@1")


@contextmanager
def _running(settings: Settings) -> Iterator[Settings]:
    """The local servers, started if need be and then stopped again; yields settings with their URLs."""
    was_running = status(settings)["running"]
    if not was_running and "api_port" not in settings.model_fields_set:
        settings = settings.model_copy(update={"api_port": 0})
    with screen.starting() as on_event:
        up(settings, on_event=on_event, command=SUPERVISOR)
    connected = load_settings(home=settings.home)
    screen.say(f"Watch it in a browser: {connected.api_url}/ui, by the key in {settings.home / 'service.env'}.")
    try:
        yield connected
    finally:
        if not was_running:
            screen.say("Stopping the servers; the data stays in " + str(settings.home) + ".")
            down(settings)


def _client(settings: Settings) -> JsonClient:
    return JsonClient(settings.api_url, configured(settings.api_key, "MEMGEN_API_KEY"), timeout=300.0)
