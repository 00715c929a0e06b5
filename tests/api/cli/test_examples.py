"""The examples of the commands' help, run in one story against a real service: each as it stands there."""

import gzip
import json
import re
import shlex
import uuid
from pathlib import Path

import pytest

from registry.adapters import get_adapter
from registry.database import transaction
from registry.tasks import get_task
from registry.wiring import Services
from tests.api.cli.invoking import memgen, succeed
from tests.api.cli.test_main import EXAMPLES
from tests.api.stored import make_gate, make_scores, make_version
from tests.trajectory_samples import chat

BEFORE = ("adapter create", "task create")
STORY = (
    *("upload", "trajectories", "task list", "adapter set", "adapter changes", "adapter list", "scores", "promote"),
    *("history", "rollback", "versions list", "versions compare", "versions lineage", "versions tag", "versions untag"),
    *("versions archive", "versions unarchive", "versions states", "versions standings", "versions keep"),
    *("gate show", "gate items", "route ab", "route results", "route end", "route canary", "route end", "route shadow"),
    *("route list", "route show", "route end", "recording set", "recording show", "recording runs", "recording clear"),
    *("judge create", "judge list", "judge show", "judge attach", "judge detach", "loop create", "loop list"),
    *("loop show", "loop pause", "loop resume", "loop history", "loop delete", "schedule create", "schedule list"),
    *("schedule show", "schedule change", "schedule pause", "schedule resume", "schedule runs", "schedule delete"),
    *("webhooks create", "webhooks list", "webhooks show", "webhooks deliveries", "webhooks rotate", "webhooks change"),
    *("webhooks delete", "keys create", "keys list", "upstreams list", "jobs", "jobs list", "delete-data", "deletions"),
    *("versions prune", "gc", "status", "down"),
)
ELSEWHERE = {
    *("up", "init", "open", "doctor", "demo", "base check", "memgen itself"),  # of a whole installation
    *("train", "train-trigger", "analyze", "judge run", "gate run", "gate approve", "gate reject"),  # need a worker
    *("chat", "feedback", "webhooks test", "upstreams check"),  # need a model or a receiver
    *("versions analysis", "versions export", "versions import", "push", "pull", "convert"),  # need files of their own
    *("jobs show", "jobs cancel", "jobs events", "trace", "recording run", "keys revoke", "webhooks redeliver"),  # ids
}


def _run(name: str) -> str:
    """What went wrong, empty if nothing did."""
    [example] = re.findall(r"`memgen ([^`]+)`", EXAMPLES[name])
    done = memgen(*shlex.split(example))
    return "" if done.code == 0 else f"{name}: {done.code} {done.err}"


def test_each_example_is_run_here_or_said_to_be_elsewhere() -> None:
    assert {*BEFORE, *STORY} | ELSEWHERE == set(EXAMPLES)
    assert not {*BEFORE, *STORY} & ELSEWHERE


def test_the_examples_run_as_they_stand(
    api_url: str, services: Services, project_id: uuid.UUID, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rubric.txt").write_text("Is it polite?")
    runs = [chat("a refund, please", metadata={"user": "anna"}), chat("and where is it?")]
    (tmp_path / "runs.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, runs)).encode()))
    for task in ("support", "refunds"):
        succeed("task", "create", task, "--grader", "exact")
    assert [wrong for name in BEFORE if (wrong := _run(name))] == []
    with transaction(services.sessions) as session:
        adapter, refunds = get_adapter(session, project_id, "support-bot"), get_task(session, project_id, "refunds")
        versions = [make_version(session, adapter, refunds) for _ in range(8)]
        for version in versions:
            make_gate(session, version, refunds, before=0.1, after=0.5)
        make_scores(session, adapter, refunds, {None: 0.1, **dict.fromkeys(versions, 0.5)})
    succeed("promote", "support-bot", "6")
    assert [wrong for name in STORY if (wrong := _run(name))] == []
