"""The script of docs/upgrading.md that finds versions which learned silence, run as it stands there on a real API."""

import os
import re
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from registry.adapters import get_adapter
from registry.database import transaction
from registry.datasets.suites import freeze_suite, suite_trajectories
from registry.gates.evaluations import record_evaluation, subject_of
from registry.gates.gate import GateTerms, judge, record_gate
from registry.models import Trajectory, Version
from registry.settings import Settings
from registry.tasks import get_task
from registry.wiring import Services
from tests.api.live_api import serve
from tests.registry.conftest import Rows, chats

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = re.compile(r"```python\n(.*?)```", re.DOTALL)


def _calling(count: int) -> list[dict[str, Any]]:
    def call(number: int) -> dict[str, Any]:
        return {"id": "c", "type": "function", "function": {"name": "go", "arguments": f'{{"to": "{number}"}}'}}

    return [
        {
            "messages": [
                {"role": "user", "content": f"Go to {number}."},
                {"role": "assistant", "content": None, "tool_calls": [call(number)]},
            ]
        }
        for number in range(count)
    ]


def _judged(rows: Rows, silent: bool) -> Version:
    """A version of task `a` with its gate, which answers nothing where the expert called, or something everywhere."""
    version = rows.version("a", passed=None)
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, "bot", lock=True)
        version, task = session.get_one(Version, version.id), get_task(session, rows.project_id, "a")
        suite = freeze_suite(session, task)
        assert suite is not None
        for subject in (None, version):
            items = [
                {"score": 1.0, "answer": "" if subject and silent and "tool_calls" in row.messages[-1] else "Here."}
                for row in suite_trajectories(session, suite.id)
            ]
            record_evaluation(session, subject_of(adapter, subject), suite.id, score=1.0, items=items, seconds=0.1)
        terms = GateTerms(margin=0.05)
        found = judge(session, version, baseline=None, terms=terms, suites={task.id: suite.id})
        record_gate(session, version, baseline=None, comparisons=found, terms=terms, policy="automatic")
    return version


def test_the_script_names_versions_that_are_silent_at_calls(
    services: Services, project_id: uuid.UUID, settings: Settings, api_key: str, tmp_path: Path
) -> None:
    rows = Rows(services, project_id)
    with transaction(services.sessions) as session:
        rows.make_adapter(session)
    rows.task("a", [*_calling(40), *chats(40)], share=0.4)
    _judged(rows, silent=True)
    _judged(rows, silent=False)
    rows.version("a", passed=None)
    with transaction(rows.services.sessions) as session:
        held_out = session.scalars(sa.select(Trajectory).where(Trajectory.held_out)).all()
    calls = sum("tool_calls" in row.messages[-1] for row in held_out)
    assert 0 < calls < len(held_out)
    [script] = SCRIPT.findall((ROOT / "docs" / "upgrading.md").read_text(encoding="utf-8"))
    with serve(settings) as url:
        folder = str(ROOT / "packages" / "memgen-client" / "src")
        environment = os.environ | {"MEMGEN_API_URL": url, "MEMGEN_API_KEY": api_key, "PYTHONPATH": folder}
        ran = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
        )
    assert (ran.stderr, ran.stdout) == ("", f"bot@1 on a: silent at {calls} of {calls} calls\n")
