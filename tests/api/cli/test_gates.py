"""`memgen gate`, settings of adapters and times of aliases against the real application, and the documented recipes."""

import re
import shlex
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.adapters import get_adapter
from registry.database import transaction
from registry.datasets.suites import freeze_suite
from registry.gates.evaluations import record_evaluation, subject_of
from registry.gates.gate import GateTerms, judge, record_gate
from registry.models import Job, Version
from registry.serving.aliases import promote
from registry.tasks import get_task
from registry.trajectories.imports import TokenLimit, import_batch, read_item
from registry.versions.records import get_version
from registry.wiring import Services
from tests.api.cli.invoking import fail, memgen, succeed
from tests.api.stored import make_adapter, make_gate, make_task, make_version

OPERATIONS = Path(__file__).resolve().parents[3] / "docs" / "operations.md"
SECTIONS = ("Gates and approval", "Promotion and rollback", "Strategies")
NAME = "support-bot"


@pytest.fixture
def bot(api_url: str, services: Services, project_id: uuid.UUID) -> None:
    """Versions 1 to 6 passed, 6 is the champion; 7 and 8 passed with policy `manual`, and wait. 7 was measured."""
    with transaction(services.sessions) as session:
        adapter, task = make_adapter(session, project_id, NAME), make_task(session, project_id, "refunds")
        make_task(session, project_id, "delivery")
        for _ in range(6):
            make_gate(session, make_version(session, adapter, task), task, before=0.25, after=0.5)
        promote(session, adapter, "champion", get_version(session, adapter, 5), actor="test", reason="")
        promote(session, adapter, "champion", get_version(session, adapter, 6), actor="test", reason="")
        adapter.gate_policy = "manual"
        tokens = TokenLimit(count=lambda messages, tools: 10, max_tokens=1000)
        items = [
            {"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}]}
            for n in range(40)
        ]
        import_batch(
            session, project_id, [read_item(n, i) for n, i in enumerate(items)], default_task="refunds", tokens=tokens
        )
        suite = freeze_suite(session, task)
        assert suite is not None
        version = make_version(session, adapter, task)
        best = get_version(session, adapter, 6)
        for subject, right in ((best, 1), (version, suite.items - 1)):
            scores = [1.0] * right + [0.0] * (suite.items - right)
            answers = [{"score": score, "answer": f"answer {place}"} for place, score in enumerate(scores)]
            who = subject_of(adapter, subject)
            record_evaluation(session, who, suite.id, score=right / suite.items, items=answers, seconds=0.1)
        terms = GateTerms.of(adapter)
        found = judge(session, version, baseline=best, terms=terms, suites={task.id: suite.id})
        record_gate(session, version, baseline=best, comparisons=found, terms=terms, policy="manual")
        last = make_version(session, adapter, task)
        record_gate(session, last, baseline=best, comparisons=found, terms=terms, policy="manual")


def test_a_verdict_is_audited_item_by_item(bot: None) -> None:
    gate = succeed("gate", "show", NAME, "7", "--json").document
    assert (gate["verdict"], gate["rule"], gate["champion"], gate["suites"]) == ("waiting", "point", 6, {"refunds": 1})
    evidence = gate["comparisons"][0]["evidence"]
    items = evidence["items"]
    assert (evidence["test"], evidence["better"], evidence["worse"]) == ("mcnemar", items - 2, 0)
    shown = succeed("gate", "show", NAME, "7")
    assert f"{NAME}@7 against {NAME}@6: waiting" in shown.out
    assert "memgen gate approve" in shown.err
    flipped = succeed("gate", "items", NAME, "7", "--task", "refunds", "--flipped", "better", "--json").document["data"]
    assert [pair["place"] for pair in flipped] == list(range(1, items - 1))
    assert flipped[0]["candidate"] == {"score": 1.0, "answer": "answer 1"}
    assert all(pair["trajectory_id"] for pair in flipped)
    assert "No such item" in succeed("gate", "items", NAME, "7", "--task", "refunds", "--flipped", "worse").out
    page = succeed("gate", "items", NAME, "7", "--task", "refunds", "--limit", "3", "--json").document
    rest = succeed("gate", "items", NAME, "7", "--task", "refunds", "--cursor", page["next_cursor"], "--json").document
    places = [pair["place"] for pair in page["data"] + rest["data"]]
    assert (places, rest["next_cursor"]) == (list(range(items)), None)
    assert "(404 task_not_found)" in fail("gate", "items", NAME, "7", "--task", "other")
    assert succeed("gate", "items", NAME, "1", "--task", "refunds", "--json").document["data"] == []


def test_a_gate_that_never_ran_is_run_on_request(bot: None, services: Services, project_id: uuid.UUID) -> None:
    with transaction(services.sessions) as session:
        version = make_version(
            session, get_adapter(session, project_id, NAME), get_task(session, project_id, "refunds")
        )
        number, job_id = str(version.number), version.job_id
    assert f"`memgen gate run {NAME} {number}` has it judged" in " ".join(fail("gate", "show", NAME, number).split())
    assert "(409 job_state_conflict)" in fail("gate", "run", NAME, number)
    with transaction(services.sessions) as session:
        session.get_one(Job, job_id).state = "failed"
    assert "is queued" in succeed("gate", "run", NAME, number).out
    assert "(409 job_state_conflict)" in fail("gate", "run", NAME, number)
    assert "(409 nothing_to_decide)" in fail("gate", "run", NAME, "7")
    [queued] = [job for job in succeed("jobs", "list", "--json").document["data"] if job["kind"] == "evaluate"]
    assert queued["params"] == {"version": int(number), "judge": True}


def test_approval_and_rejection(bot: None, services: Services, project_id: uuid.UUID) -> None:
    assert "(403 gate_not_passed)" in fail("promote", NAME, "7")
    assert "support-bot@champion: version 6 to 7" in succeed("gate", "approve", NAME, "7", "--reason", "fine").out
    assert "(409 stale_alias)" in fail("gate", "approve", NAME, "8")
    done = succeed("gate", "reject", NAME, "8", "--reason", "rude", "--json").document
    assert (done["decision"]["approved"], done["decision"]["reason"], done["move"]) == (False, "rude", None)
    assert "(409 nothing_to_decide)" in fail("gate", "approve", NAME, "8", "--expected", "7")
    assert "rejected by key" in succeed("gate", "show", NAME, "8").out
    verdicts = [v["verdict"] for v in succeed("versions", NAME, "--json").document["data"]]
    assert verdicts[-2:] == ["passed", "rejected"]
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, project_id, NAME)
        make_version(session, adapter, get_version(session, adapter, 1).dataset.task)
    assert "(404 gate_not_found)" in fail("gate", "show", NAME, "9")


def test_who_may_not(bot: None, api_url: str) -> None:
    key = succeed("keys", "create", "reader", "--scope", "read").out.strip()
    headers = {"Authorization": f"Bearer {key}"}
    gate = f"{api_url}/v1/adapters/{NAME}/versions/7/gate"
    assert httpx.get(gate, headers=headers).status_code == 200
    for path in ("approve", "reject"):
        assert httpx.post(f"{gate}/{path}", json={}, headers=headers).status_code == 403
    assert httpx.patch(f"{api_url}/v1/adapters/{NAME}", json={}, headers=headers).status_code == 403


def test_settings(bot: None) -> None:
    done = succeed("adapter", "set", NAME, "gate_margin=0.1", "gate_rule=significant_drop", "--reason", "few items")
    assert done.out == f'{NAME}: gate_margin is 0.1.\n{NAME}: gate_rule is "significant_drop".\n'
    assert "(422 invalid)" in fail("adapter", "set", NAME, "gate_rule=guess")
    assert succeed("adapter", "set", NAME, "retry_replay_share=0.5", "--json").document["retry_replay_share"] == 0.5
    assert succeed("adapter", "set", NAME, "retry_replay_share=null", "--json").document["retry_replay_share"] is None
    done = succeed("adapter", "set", NAME, "canary_promotion=better", "canary_margin=0.1", "--json").document
    assert (done["canary_promotion"], done["canary_margin"]) == ("better", 0.1)
    changes = succeed("adapter", "changes", NAME, "--json").document["data"]
    assert [set(change["changes"]) for change in changes] == [
        {"gate_margin", "gate_rule"},
        {"retry_replay_share"},
        {"retry_replay_share"},
        {"canary_promotion", "canary_margin"},
    ]
    assert "few items" in succeed("adapter", "changes", NAME).out


def test_times(bot: None) -> None:
    now = datetime.now(UTC).isoformat()
    stood = succeed("history", NAME, "--at", now, "--json").document
    assert (stood["version"], stood["until"], stood["route"]) == (6, None, None)
    assert f"{NAME}@champion was version 6" in succeed("history", NAME, "--at", now).out
    assert "(404 alias_not_found)" in fail("history", NAME, "--at", "2020-01-01 03:00")
    assert "(409 nothing_to_roll_back_to)" in fail("rollback", NAME, "--at", now)
    first = succeed("history", NAME, "--json").document["data"][0]["at"]
    assert succeed("rollback", NAME, "--at", first, "--json").document["to_version"] == 5
    assert memgen("history", NAME, "--at", "last Tuesday").code == 2
    assert succeed("history", NAME, "--at", now, "--json").document["until"] is not None


def _recipes() -> list[str]:
    text = OPERATIONS.read_text()
    found: list[str] = []
    for section in SECTIONS:
        [body] = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
        found += [line for block in re.findall(r"```bash\n(.*?)```", body, re.DOTALL) for line in block.splitlines()]
    return [line for line in found if line.strip()]


def test_the_documented_commands_work(bot: None, services: Services, project_id: uuid.UUID) -> None:
    """Each line of the recipes in turn. Times in them are far from now: they are replaced by one that is not."""
    first = succeed("history", NAME, "--json").document["data"][0]["at"]
    lines = _recipes()
    assert len(lines) > 12
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "memgen", line
        given: list[Any] = [first if re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d", each) else each for each in arguments]
        done = memgen(*given)
        assert done.code == 0, f"{line}: {done.err}"
    with transaction(services.sessions) as session:
        assert session.query(Version).count() == 8
