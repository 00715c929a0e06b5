"""A loop of `bot` that learns task `a`, and what happens around it: days, gates, routes, ticks of the beat."""

import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from registry.adapters import get_adapter
from registry.clock import utc_now
from registry.database import transaction
from registry.gates.baseline import baseline_of
from registry.gates.gate import GateTerms, compare, record_gate
from registry.loops.disks import Disk
from registry.loops.findings import Surroundings
from registry.loops.loops import get_loop, list_changes, pause_loop, resume_loop
from registry.loops.plan import LoopDefaults, LoopPlan, SetUpPart
from registry.loops.report import LoopReport, report_of
from registry.loops.setup import set_up_loop
from registry.loops.states import check_loop, loops_to_check, why_held
from registry.models import Job, Loop, LoopChange, OutboxEvent, Schedule, ScheduleRun, Version
from registry.promotion import follow_up
from registry.schedules.ticks import tick
from registry.tasks import get_task
from registry.trajectories.imports import import_batch, read_item
from tests.docs.pages import event_fields
from tests.registry.conftest import TOKENS, Rows, chats
from tests.registry.routed import Routed

DEFAULTS = LoopDefaults(cron="0 3 * * *", keep_last=20, training={"steps": 5})
TERMS = GateTerms(margin=0.05)


@dataclass
class Looped:
    rows: Rows
    now: datetime = field(default_factory=utc_now)
    full_disks: tuple[Disk, ...] = ()

    @property
    def around(self) -> Surroundings:
        return Surroundings(self.now, self.full_disks)

    @property
    def routed(self) -> Routed:
        return Routed(self.rows)

    def set_up(self, plan: LoopPlan | None = None, task: str = "a") -> list[SetUpPart]:
        with transaction(self.rows.services.sessions) as session:
            adapter = get_adapter(session, self.rows.project_id, self.rows.adapter, lock=True)
            found = get_task(session, self.rows.project_id, task)
            return set_up_loop(session, adapter, found, plan or LoopPlan(), DEFAULTS, self.around, actor="anna")[1]

    def pass_hours(self, hours: float) -> None:
        self.now += timedelta(hours=hours)

    def check(self) -> Loop:
        """One look of the beat; the loop after it."""
        with transaction(self.rows.services.sessions) as session:
            [loop_id] = loops_to_check(session)
            assert check_loop(session, loop_id, self.around) is not None
        return self.loop()

    def loop(self) -> Loop:
        with transaction(self.rows.services.sessions) as session:
            return get_loop(session, self.rows.project_id, self.rows.adapter)

    def pause(self) -> Loop:
        with transaction(self.rows.services.sessions) as session:
            return pause_loop(session, self.rows.project_id, self.rows.adapter, self.around, actor="anna")

    def resume(self) -> Loop:
        with transaction(self.rows.services.sessions) as session:
            return resume_loop(session, self.rows.project_id, self.rows.adapter, self.around, actor="anna")

    def report(self) -> LoopReport:
        with transaction(self.rows.services.sessions) as session:
            loop = get_loop(session, self.rows.project_id, self.rows.adapter)
            return report_of(session, loop, self.around)

    def changes(self) -> list[LoopChange]:
        with transaction(self.rows.services.sessions) as session:
            loop = get_loop(session, self.rows.project_id, self.rows.adapter)
            return list_changes(session, loop, before=None, limit=50)

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        """Events of loops and their data, each with the fields that docs/webhooks.md names."""
        with transaction(self.rows.services.sessions) as session:
            query = sa.select(OutboxEvent).where(OutboxEvent.event.like("loop.%")).order_by(OutboxEvent.seq)
            found = [(row.event, row.data) for row in session.scalars(query)]
        assert all(list(data) == event_fields()[event] for event, data in found)
        return found

    def send(self, count: int, word: str, **envelope: Any) -> None:
        with transaction(self.rows.services.sessions) as session:
            sent = [read_item(n, item) for n, item in enumerate(chats(count, word=word, **envelope))]
            import_batch(session, self.rows.project_id, sent, default_task="a", tokens=TOKENS)

    def tick(self) -> uuid.UUID | None:
        """The beat asks the loop's schedule, which is due; the job that it started."""
        with transaction(self.rows.services.sessions) as session:
            schedule = session.get_one(Schedule, get_loop(session, self.rows.project_id, "bot").schedule_id)
            if schedule.kind == "cron":
                schedule.next_run_at = self.now
        with transaction(self.rows.services.sessions) as session:
            return tick(session, schedule.id, self.now, partial(why_held, around=self.around))

    def why_skipped(self) -> str:
        with transaction(self.rows.services.sessions) as session:
            newest = session.scalars(sa.select(ScheduleRun).order_by(ScheduleRun.seq.desc()).limit(1)).one()
            assert newest.outcome == "skipped"
            return newest.reason

    def date(self, session: Session, table: str, change: str) -> None:
        """Let rows have come at the loop's time, `:at`: their own clock is the machine's, which passes no days."""
        immutable = session.scalar(
            sa.text(
                "select count(*) from pg_trigger where tgrelid = cast(:table as regclass) and tgname = 'immutable'"
            ),
            {"table": table},
        )
        if immutable:
            session.execute(sa.text(f"alter table {table} disable trigger immutable"))
        session.execute(sa.text(f"update {table} set {change}"), {"at": self.now})
        if immutable:
            session.execute(sa.text(f"alter table {table} enable trigger immutable"))

    def end(self, job_id: uuid.UUID, state: str, error: str | None = None) -> None:
        with transaction(self.rows.services.sessions) as session:
            ended = {"state": state, "error": error, "finished_at": self.now}
            session.execute(sa.update(Job).where(Job.id == job_id).values(**ended))

    def judge(self, *, passed: bool, promote: bool = True) -> Version:
        """A version that is trained on the task and judged, with what follows from it."""
        version = self.rows.version("a", passed=None)
        with transaction(self.rows.services.sessions) as session:
            adapter = get_adapter(session, self.rows.project_id, self.rows.adapter, lock=True)
            version = session.get_one(Version, version.id)
            job = session.get_one(Job, version.job_id)
            job.params, job.state, job.finished_at = {**job.params, "promote": promote}, "succeeded", self.now
            best = baseline_of(session, adapter).version
            after = [1.0 if passed else 0.0]
            found = compare("a", new=True, baseline=[0.0], candidate=after, terms=TERMS)
            policy = adapter.gate_policy
            gate = record_gate(session, version, baseline=best, comparisons=[found], terms=TERMS, policy=policy)
            self.date(session, "gates", f"created_at = :at where id = '{gate.id}'")
            follow_up(session, adapter, version, gate, job)
            return version


def make_looped(rows: Rows, plan: LoopPlan | None = None) -> Looped:
    rows.task("a")
    looped = Looped(rows)
    looped.set_up(plan)
    looped.pass_hours(0.01)
    return looped
