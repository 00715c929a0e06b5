"""What happens to aliases, gates, routes and jobs is told, each time once, and nothing that did not happen."""

import uuid
from typing import Any

import pytest
import sqlalchemy as sa

from registry import jobs
from registry.adapters import get_adapter
from registry.database import transaction
from registry.errors import StaleAlias
from registry.gates.gate import GateTerms, compare, record_gate
from registry.job_requests import TrainWeaver
from registry.models import Job, OutboxEvent
from registry.promotion import decide
from registry.serving.aliases import promote, roll_back
from registry.serving.routes import Terms
from registry.versions.records import get_version
from registry.wiring import Services
from tests.docs.pages import event_fields
from tests.registry.conftest import Rows
from tests.registry.routed import make_routed


def _told(services: Services, event: str) -> list[dict[str, Any]]:
    """The data of an event's rows, each with the fields that docs/webhooks.md names."""
    with transaction(services.sessions) as session:
        query = sa.select(OutboxEvent.data).where(OutboxEvent.event == event)
        found = list(session.scalars(query.order_by(OutboxEvent.seq)))
    assert all(list(data) == event_fields()[event] for data in found)
    return found


def _promote(rows: Rows, number: int, expected: int | None = None) -> None:
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, "bot", lock=True)
        version = get_version(session, adapter, number)
        promote(session, adapter, "champion", version, actor="anna", reason="go", expected=expected)


def test_moves_of_an_alias(rows: Rows) -> None:
    rows.task("a")
    rows.version("a")
    rows.version("a")
    for number in (1, 2):
        _promote(rows, number)
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, "bot", lock=True)
        roll_back(session, adapter, "champion", actor="bert", reason="worse")
    with pytest.raises(StaleAlias):
        _promote(rows, 2, expected=2)
    moves = _told(rows.services, "alias.moved")
    assert [(m["kind"], m["from_version"], m["to_version"], m["actor"]) for m in moves] == [
        ("promotion", None, 1, "anna"),
        ("promotion", 1, 2, "anna"),
        ("rollback", 2, 1, "bert"),
    ]


def test_verdicts_of_gates_and_of_people(rows: Rows) -> None:
    rows.task("a")
    rows.version("a", passed=False)
    waits = rows.version("a", passed=None)
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, "bot", lock=True)
        terms = GateTerms(margin=0.05)
        gained = compare("a", new=True, baseline=[0.0], candidate=[1.0], terms=terms)
        version = get_version(session, adapter, waits.number)
        record_gate(session, version, baseline=None, comparisons=[gained], terms=terms, policy="manual")
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, "bot", lock=True)
        version = get_version(session, adapter, waits.number)
        decide(session, adapter, version, approved=True, actor="anna", reason="looks good")
    told = _told(rows.services, "gate.decided")
    assert [(t["version"], t["verdict"], t["decided_by"]) for t in told] == [
        (1, "rejected", None),
        (2, "waiting", None),
        (2, "passed", "anna"),
    ]
    assert told[0]["reasons"][0].startswith("a: 0.0% to 0.0%")


def test_ends_of_routes_with_what_follows_from_them(rows: Rows) -> None:
    routed = make_routed(rows)
    services = rows.services
    moved_before = len(_told(services, "alias.moved"))
    routed.start_ab({1: 0.5, 2: 0.5})
    routed.end(1)
    routed.start_canary(2, 0.5)
    routed.rate_sessions(lambda label, number: 1.0 if label == "bot@1" else 0.0, 60)
    routed.start_canary(3, 0.5, terms=Terms(promotion="better"))
    routed.rate_sessions(lambda label, number: 0.0 if label == "bot@1" else 1.0, 60)
    told = _told(services, "route.ended")
    assert [(t["route"], t["kind"], t["state"], t["versions"]) for t in told] == [
        (1, "ab", "ended", [1, 2]),
        (2, "canary", "stopped", [1, 2]),
        (3, "canary", "promoted", [1, 3]),
    ]
    [promoted] = _told(services, "alias.moved")[moved_before:]
    assert (promoted["from_version"], promoted["to_version"], promoted["actor"]) == (1, 3, "canary monitor")


def _job(services: Services, project_id: uuid.UUID) -> uuid.UUID:
    with transaction(services.sessions) as session:
        return jobs.create_job(session, project_id, TrainWeaver("a")).id


def _claim(services: Services, job_id: uuid.UUID) -> int:
    with transaction(services.sessions) as session:
        attempt = jobs.claim(session, job_id, "w", 60)
    assert attempt is not None
    return attempt


def test_jobs_that_failed_for_good_and_no_others(services: Services, project_id: uuid.UUID) -> None:
    failed, retried, lost = (_job(services, project_id) for _ in range(3))
    with transaction(services.sessions) as session:
        jobs.release(session, retried, jobs.claim(session, retried, "w", 60) or 0, "the store is away")
    assert _told(services, "job.failed") == []
    attempt = _claim(services, retried)
    with transaction(services.sessions) as session:
        assert jobs.finish(session, retried, attempt, "succeeded", result={})
    attempt = _claim(services, failed)
    with transaction(services.sessions) as session:
        assert jobs.finish(session, failed, attempt, "failed", error="did not learn")
        assert not jobs.finish(session, failed, attempt, "failed", error="twice")
    for attempt in (1, 2):
        assert _claim(services, lost) == attempt
        with transaction(services.sessions) as session:
            session.execute(
                sa.update(Job).where(Job.id == lost).values(lease_until=sa.func.now() - sa.text("'1 s'::interval"))
            )
            jobs.reap(session, max_attempts=2, lease_seconds=60, redeliver_after_seconds=100)
    told = _told(services, "job.failed")
    assert [(t["job"], t["kind"], t["task"], t["attempt"]) for t in told] == [
        (str(failed), "train_weaver", "a", 1),
        (str(lost), "train_weaver", "a", 2),
    ]
    assert told[0]["error"] == "did not learn"
