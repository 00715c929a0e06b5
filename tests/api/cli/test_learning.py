"""Tasks, uploads, adapters, training and jobs on the command line, against the real application."""

import gzip
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from registry import jobs
from registry.database import transaction
from registry.models import Adapter, Job, Task
from registry.serving.aliases import promote
from registry.trajectories.formats.formats import FORMATS
from registry.wiring import Services
from tests.api.cli.invoking import fail, memgen, succeed
from tests.api.stored import make_adapter, make_gate, make_task, make_version
from tests.trajectory_samples import PAIRS, chat

OPERATIONS = Path(__file__).resolve().parents[3] / "docs" / "operations.md"


@pytest.fixture
def bot(api_url: str, services: Services, project_id: uuid.UUID) -> None:
    """An adapter `bot` and a task `t`."""
    with transaction(services.sessions) as session:
        make_adapter(session, project_id)
        make_task(session, project_id, "t")


def test_tasks(api_url: str) -> None:
    assert "memgen task create" in succeed("task", "list").out
    created = succeed("task", "create", "gsm", "--grader", "numeric", "--option", "tolerance=0.01", "--json")
    assert created.document["grader"] == {"kind": "numeric", "tolerance": 0.01}
    assert "30%" in succeed("task", "create", "other", "--holdout-share", "0.3").out
    assert succeed("task", "create", "shots", "--shared-turns", "2", "--json").document["shared_turns"] == 2
    assert [each["name"] for each in succeed("task", "list", "--json").document["data"]] == ["gsm", "other", "shots"]
    assert "gsm" in succeed("task", "list").out
    assert "grader" in fail("task", "create", "third", "--grader", "magic")
    assert "(409 name_taken)" in fail("task", "create", "gsm")


def test_the_documented_commands_for_the_held_out_share_work(api_url: str) -> None:
    section = OPERATIONS.read_text().partition("## What is held out\n")[2].partition("\n## ")[0]
    commands = [line for block in re.findall(r"```bash\n(.*?)```", section, re.DOTALL) for line in block.splitlines()]
    assert commands
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "memgen"
        succeed(*arguments)


def test_upload_warns_of_conversations_that_open_alike(api_url: str, tmp_path: Path) -> None:
    succeed("task", "create", "t")
    file = tmp_path / "alike.jsonl"
    opening = chat("Begin.", "What?")["messages"]
    file.write_text("\n".join(json.dumps({"messages": [*opening, *chat(f"q{n}")["messages"]]}) for n in range(30)))
    told = succeed("upload", str(file), "--task", "t").err
    assert "30 of 30 trajectories of task 't' begin alike" in " ".join(told.split())


def test_upload_warns_of_lines_that_will_not_be_learned(api_url: str, tmp_path: Path) -> None:
    succeed("task", "create", "t")
    file = tmp_path / "long.jsonl"
    file.write_text("\n".join(json.dumps(chat(f"{n} {'x' * 970}", "y")) for n in range(30)))
    told = " ".join(succeed("upload", str(file), "--task", "t").err.split())
    assert "tokens with its prompt, and trainings skip what is longer than 988 by default" in told


def test_upload_names_the_format(api_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "pairs", PAIRS)
    succeed("task", "create", "t")
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"question": "2+2?", "answer": "4"}\n')
    sent = succeed("upload", str(file), "--task", "t", "--format", "pairs", "--json")
    assert sent.document["accepted"] == 1
    assert "expected one of: atif, chat, " in fail("upload", str(file), "--task", "t", "--format", "csv")


def test_upload_reports_every_line(api_url: str, tmp_path: Path) -> None:
    succeed("task", "create", "t")
    good = [json.dumps(chat(f"question {n}")) for n in range(3)]
    plain, packed, broken = tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz", tmp_path / "c.jsonl.gz"
    plain.write_text("\n".join([*good, "[1]", "{"]))
    packed.write_bytes(gzip.compress("\n".join([*good, json.dumps(chat("another"))]).encode()))
    broken.write_bytes(packed.read_bytes()[:-9])

    done = succeed("upload", str(plain), str(packed), "--task", "t")
    assert "not_an_object" in done.out
    assert "invalid_json" in done.out
    assert done.err == "2 lines were refused; all others are stored.\n"
    done = succeed("upload", str(plain), str(packed), "--task", "t", "--json")
    counts = {name: done.document[name] for name in ("accepted", "duplicate", "refused", "complete")}
    assert counts == {"accepted": 0, "duplicate": 7, "refused": 2, "complete": True}
    assert [each["file"] for each in done.document["files"]] == [str(plain), str(packed)]

    strict = memgen("upload", str(plain), "--task", "t", "--strict", "--json")
    assert (strict.code, strict.document["refused"]) == (1, 2)
    cut = memgen("upload", str(broken), "--task", "t")
    assert cut.code == 1
    assert "send the whole file again" in cut.err


def test_many_refusals_are_shown_in_part(api_url: str, tmp_path: Path) -> None:
    succeed("task", "create", "t")
    file = tmp_path / "a.jsonl"
    file.write_text("{\n" * 25)
    out = succeed("upload", str(file), "--task", "t").out
    assert out.count("invalid_json") == 10
    assert "and 15 more" in out


def test_adapters(api_url: str) -> None:
    assert "memgen adapter create" in succeed("adapter", "list").out
    created = succeed("adapter", "create", "bot", "--memory", "latents=4", "--gate-margin", "0.1", "--json").document
    assert (created["memory"]["latents"], created["gate_margin"]) == (4, 0.1)
    assert [each["name"] for each in succeed("adapter", "list", "--json").document["data"]] == ["bot"]
    assert "bot" in succeed("adapter", "list").out
    assert "latent" in fail("adapter", "create", "other", "--memory", "latent=4")


def work_in_background(services: Services, *, after: float | None) -> threading.Thread:
    """A worker: takes the first queued job, reports, registers a version, and judges it; with `after` None it fails."""

    def work() -> None:
        deadline = time.monotonic() + 60
        job_id = None
        while job_id is None and time.monotonic() < deadline:
            time.sleep(0.05)
            with transaction(services.sessions) as session:
                job_id = session.scalar(select(Job.id).where(Job.state == "queued"))
        assert job_id is not None
        with transaction(services.sessions) as session:
            attempt = jobs.claim(session, job_id, "test", 60) or 0
            step = {"step": 1, "steps": 2, "loss": 0.5, "tokens_per_second": 9.0, "seconds_left": 1.0}
            jobs.record_progress(session, job_id, attempt, {"phase": "train", **step})
            jobs.add_event(session, job_id, "progress", "train", step)
        with transaction(services.sessions) as session:
            if after is None:
                jobs.finish(session, job_id, attempt, "failed", error="the loss is not finite")
                return
            adapter, task = session.scalars(select(Adapter)).one(), session.scalars(select(Task)).one()
            version = make_version(session, adapter, task, session.get_one(Job, job_id))
            gate = make_gate(session, version, task, before=0.25, after=after)
            if gate.passed:
                promote(session, adapter, "champion", version, actor="test", reason="")
            jobs.finish(session, job_id, attempt, "succeeded", result={"version": version.number})

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.fixture
def worker(services: Services) -> Callable[[float | None], threading.Thread]:
    return lambda after: work_in_background(services, after=after)


def test_training_shows_progress_scores_and_verdict(
    bot: None, worker: Callable[[float | None], threading.Thread]
) -> None:
    working = worker(0.75)
    done = succeed("train", "bot", "--task", "t", "--steps", "2", "--set", "learning_rate=0.01")
    working.join()
    assert "train: step 1/2, loss 0.5000, 9 tokens/s, 0:01 left" in done.err
    assert ["t", "(new)", "25.0%", "75.0%", "+50.0", "passed"] in [line.split() for line in done.out.splitlines()]
    assert "a gain on the new task" in done.out
    assert "It serves now as bot@champion." in done.out
    newest = succeed("jobs", "--json").document["data"][0]
    assert newest["params"]["training"]["steps"] == 2
    assert newest["params"]["training"]["learning_rate"] == 0.01


def test_a_rejected_version_is_no_failure_and_says_why(
    bot: None, worker: Callable[[float | None], threading.Thread]
) -> None:
    working = worker(0.2)
    done = succeed("train", "bot", "--task", "t")
    working.join()
    assert "bot@1 was rejected" in done.out
    assert "no gain on the new task" in done.out
    assert "still the bare base" in done.err
    working = worker(0.1)
    document = succeed("train", "bot", "--task", "t", "--json").document
    working.join()
    assert (document["job"]["state"], document["version"]["verdict"]) == ("succeeded", "rejected")


def test_a_failed_training_ends_with_1(bot: None, worker: Callable[[float | None], threading.Thread]) -> None:
    working = worker(None)
    done = memgen("train", "bot", "--task", "t", "--json")
    working.join()
    assert (done.code, done.document["job"]["state"], done.document["version"]) == (1, "failed", None)
    assert "the loss is not finite" in done.err.splitlines()[-1]


def test_jobs(bot: None) -> None:
    started = succeed("train", "bot", "--task", "t", "--no-wait", "--no-promote", "--json").document["job"]
    assert started["params"]["promote"] is False
    job_id = started["id"]
    assert "is queued" in succeed("train", "bot", "--task", "t", "--no-wait").out
    assert len(succeed("jobs", "list", "--limit", "5", "--json").document["data"]) == 2
    assert job_id in succeed("jobs").out
    assert succeed("jobs", "show", job_id, "--json").document["state"] == "queued"
    assert "train_weaver" in succeed("jobs", "show", job_id).out
    assert succeed("jobs", "cancel", job_id, "--json").document["state"] == "cancelled"
    assert "(409 job_state_conflict)" in fail("jobs", "cancel", job_id)
    told = ["queued", "cancelled before it began"]
    for flags in ([], ["--follow"]):
        events = succeed("jobs", "events", job_id, *flags, "--json").document["data"]
        assert [each["message"] for each in events] == told
        assert [line.split("  ")[-1] for line in succeed("jobs", "events", job_id, *flags).out.splitlines()] == told
    assert "(404 job_not_found)" in fail("jobs", "show", str(uuid.uuid4()))
    assert "unknown" in fail("train", "bot", "--task", "t", "--set", "speed=9")


def test_insights_are_a_files_lines(bot: None, tmp_path: Path) -> None:
    rules = tmp_path / "rules.txt"
    rules.write_text("Ask for the order number.\n\n  Be brief. \n", encoding="utf-8")
    flags = ("--task", "t", "--no-wait", "--insights", str(rules))
    assert "shows its weaver no insights" in fail("train", "bot", *flags)
    memory = ("--memory", "cue_tokens=160", "--memory", "cue_insights=3")
    succeed("adapter", "create", "ruled", *memory)
    started = succeed("train", "ruled", *flags, "--json").document["job"]
    assert started["params"]["insights"] == ["Ask for the order number.", "Be brief."]
    rules.write_bytes(b"caf\xe9")
    assert "rules.txt is not UTF-8 text" in fail("train", "ruled", *flags)


def test_as_a_process_json_alone_is_on_stdout_and_ctrl_c_leaves_the_job(bot: None) -> None:
    # A process that was started in the background of a shell, as these tests may be, hands on that it ignores Ctrl-C.
    heeding = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [sys.executable, "-c", f"{heeding}; from api.cli.main import run; run()"]
    done = subprocess.run([*command, "jobs", "--json"], capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout)["data"], done.stderr) == (0, [], "")
    arguments = [*command, "train", "bot", "--task", "t"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "queued\n"
        os.kill(process.pid, signal.SIGINT)
        try:
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, out) == (130, "")
    assert "The job goes on" in err
    assert succeed("jobs", "--json").document["data"][0]["state"] == "queued"
