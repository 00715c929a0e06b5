"""Judges that start by themselves: when, with what budget, and when not."""

import uuid
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from registry import jobs
from registry.clock import utc_now
from registry.database import transaction
from registry.errors import Invalid, JudgeBusy, JudgeNotFound
from registry.job_requests import JudgeTrajectories
from registry.judging.calls import Budget, JudgeQuestion, reserve, spent_by
from registry.judging.judgements import CaseFinding, concordance, record_finding
from registry.judging.judges import JudgeSettings, create_judge, get_judge, name_judge
from registry.judging.ticks import JudgingOrder, judging_request, tasks_to_judge, tick_judge
from registry.judging.waiting import split_group
from registry.models import Job, JudgeCall, Project, Trajectory
from registry.tasks import get_task
from registry.trajectories.imports import import_batch, read_item
from tests.registry.conftest import TOKENS, Rows, chats


def add(rows: Rows, items: list[dict[str, Any]]) -> None:
    with transaction(rows.services.sessions) as session:
        sent = [read_item(n, item) for n, item in enumerate(items)]
        import_batch(session, rows.project_id, sent, default_task="support", tokens=TOKENS)


def alike(count: int, prompt: str = "Hi", first: int = 0) -> list[dict[str, Any]]:
    return [
        {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": f"a{n}"}]}
        for n in range(first, first + count)
    ]


def make(rows: Rows, kind: str = "pointwise", **settings: Any) -> None:
    with transaction(rows.services.sessions) as session:
        judge, _ = create_judge(
            session,
            rows.project_id,
            name="strict",
            kind=kind,
            model="base",
            rubric="r",
            settings=JudgeSettings(**settings),
        )
        name_judge(session, get_task(session, rows.project_id, "support"), judge)


def tick(rows: Rows) -> JudgeTrajectories | None:
    started = []
    with transaction(rows.services.sessions) as session:
        for task_id in tasks_to_judge(session):
            started.append(tick_judge(session, task_id))
    with transaction(rows.services.sessions) as session:
        found = [session.get_one(Job, each) for each in started if each is not None]
        return jobs.request_as(found[0], JudgeTrajectories) if found else None


def end(rows: Rows, state: str = "succeeded", stopped: str = "done", minutes: float = 0.0) -> None:
    """End the live job so long ago."""
    with transaction(rows.services.sessions) as session:
        result = {"stopped": stopped} if state == "succeeded" else None
        ended = func.now() - timedelta(minutes=minutes)
        session.execute(
            update(Job).where(Job.state.in_(jobs.LIVE)).values(state=state, result=result, finished_at=ended)
        )


def judge_all(rows: Rows) -> None:
    with transaction(rows.services.sessions) as session:
        judge = get_judge(session, rows.project_id, "strict")
        job = session.scalars(select(Job).order_by(Job.seq.desc())).first()
        assert job is not None
        for each in session.scalars(select(Trajectory.id)).all():
            finding = CaseFinding((each,), "scored", "r", "base", ("h",), (0.5,), ({},))
            record_finding(session, judge, job.id, finding)


def spend(rows: Rows, calls: int) -> None:
    with transaction(rows.services.sessions) as session:
        judge = get_judge(session, rows.project_id, "strict")
        job = session.scalars(select(Job).order_by(Job.seq.desc())).first()
        assert job is not None
        questions = [JudgeQuestion(f"h{n}", (), 10, 5) for n in range(calls)]
        assert len(reserve(session, job, judge.id, "base", questions, Budget(10_000))) == calls


def test_a_task_that_names_a_judge_is_judged_when_something_waits(rows: Rows) -> None:
    rows.task("support", [])
    assert tick(rows) is None
    make(rows)
    assert tick(rows) is None, "nothing has come"
    add(rows, chats(8))
    request = tick(rows)
    assert request is not None
    assert (request.judge, request.task, request.model, request.max_calls) == ("strict", "support", "base", 1_000)
    assert request.by_itself
    assert tick(rows) is None, "one at a time"
    judge_all(rows)
    end(rows)
    assert tick(rows) is None, "all is judged"
    add(rows, chats(8, word="parcel"))
    again = tick(rows)
    assert again is not None
    assert again.up_to > request.up_to


def test_held_out_runs_wait_for_nobody(rows: Rows) -> None:
    rows.task("support", chats(8))
    make(rows)
    with transaction(rows.services.sessions) as session:
        session.execute(update(Trajectory).values(held_out=True))
    assert tick(rows) is None


def test_one_run_of_a_prompt_waits_for_another(rows: Rows) -> None:
    rows.task("support", [])
    make(rows, "relative")
    with transaction(rows.services.sessions) as session:
        session.execute(update(Trajectory).values(held_out=False))
    add(rows, alike(1))
    _train_on_all(rows)
    assert tick(rows) is None
    add(rows, alike(1, first=1))
    _train_on_all(rows)
    assert tick(rows) is not None
    end(rows)
    assert tick(rows) is None, "the job has dealt with them"
    add(rows, alike(1, first=2))
    _train_on_all(rows)
    assert tick(rows) is not None, "the newcomer waits with those that are older"


def _train_on_all(rows: Rows) -> None:
    with transaction(rows.services.sessions) as session:
        session.execute(update(Trajectory).values(held_out=False))


@pytest.mark.parametrize(("state", "stopped"), [("failed", ""), ("cancelled", ""), ("succeeded", "unreadable")])
def test_a_job_that_did_not_end_well_is_followed_by_one_for_new_runs_alone_and_not_at_once(
    rows: Rows, state: str, stopped: str
) -> None:
    rows.task("support", chats(8))
    make(rows)
    assert tick(rows) is not None
    end(rows, state, stopped, minutes=20)
    assert tick(rows) is None, "nothing new has come"
    add(rows, chats(8, word="parcel"))
    assert tick(rows) is not None
    end(rows, state, stopped, minutes=5)
    add(rows, chats(8, word="refund"))
    assert tick(rows) is None, "it has just failed"


def test_what_a_judge_spends_by_itself_in_a_day_is_bounded(rows: Rows) -> None:
    rows.task("support", chats(20))
    make(rows, daily_calls=15)
    first = tick(rows)
    assert first is not None
    assert first.max_calls == 15
    spend(rows, 10)
    end(rows, stopped="budget")
    second = tick(rows)
    assert second is not None
    assert second.max_calls == 5
    spend(rows, 5)
    end(rows, stopped="budget")
    assert tick(rows) is None
    with transaction(rows.services.sessions) as session:
        session.execute(update(JudgeCall).values(sent_at=utc_now() - timedelta(hours=25)))
    third = tick(rows)
    assert third is not None
    assert third.max_calls == 15
    end(rows, stopped="budget")
    with transaction(rows.services.sessions) as session:
        get_judge(session, rows.project_id, "strict").daily_calls = 0
    assert tick(rows) is None


def test_a_job_that_somebody_asks_for_and_one_of_the_tick_are_not_two(rows: Rows) -> None:
    rows.task("support", chats(8))
    make(rows)
    with transaction(rows.services.sessions) as session:
        task = get_task(session, rows.project_id, "support")
        adapter, request = judging_request(session, rows.project_id, "strict", task, JudgingOrder())
        jobs.create_job(session, rows.project_id, request, adapter)
    assert tick(rows) is None
    with transaction(rows.services.sessions) as session, pytest.raises(JudgeBusy):
        judging_request(session, rows.project_id, "strict", task, JudgingOrder())


def test_other_projects_have_no_such_judge(rows: Rows) -> None:
    rows.task("support", chats(8))
    make(rows)
    with transaction(rows.services.sessions) as session:
        other = Project(id=uuid.uuid4(), name="other")
        session.add(other)
        session.flush()
        with pytest.raises(JudgeNotFound):
            get_judge(session, other.id, "strict")
        for name in ("none", "a\0b", "", "x" * 1000):
            with pytest.raises(JudgeNotFound):
                get_judge(session, rows.project_id, name)


@pytest.mark.parametrize(
    "settings",
    [
        {"scale": 0},
        {"scale": 101},
        {"group_size": 1},
        {"group_size": 6},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"max_answer_tokens": 1},
        {"max_characters": 10},
        {"too_long": "hide"},
        {"daily_calls": -1},
    ],
)
def test_settings_have_ranges(settings: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match=next(iter(settings))):
        JudgeSettings(**settings).check()


def test_a_score_that_is_there_stays_and_one_that_was_missing_comes(rows: Rows) -> None:
    rows.task("support", chats(1))
    make(rows)
    tick(rows)
    with transaction(rows.services.sessions) as session:
        judge = get_judge(session, rows.project_id, "strict")
        job = session.scalars(select(Job)).one()
        run = session.scalars(select(Trajectory.id)).one()
        (none,) = record_finding(
            session, judge, job.id, CaseFinding((run,), "unparsable", "no verdict", "base", ("h",))
        )
        (some,) = record_finding(
            session, judge, job.id, CaseFinding((run,), "scored", "r", "base", ("h",), (0.7,), ({},))
        )
        assert (none.id, some.score, some.reason) == (some.id, 0.7, "r")
        assert record_finding(session, judge, job.id, CaseFinding((run,), "scored", "r", "base", ("h",), (0.1,))) == []
        gone = CaseFinding((run, uuid.uuid4()), "scored", "r", "base", ("h",), (1.0, 0.0))
        assert record_finding(session, judge, job.id, gone) == [], "one of the group was deleted"


def test_a_budget_of_tokens_is_reserved_before_it_is_spent(rows: Rows) -> None:
    rows.task("support", chats(1))
    make(rows)
    tick(rows)
    with transaction(rows.services.sessions) as session:
        judge = get_judge(session, rows.project_id, "strict")
        job = session.scalars(select(Job)).one()
        questions = [JudgeQuestion(f"h{n}", (), 100, 50) for n in range(10)]
        assert len(reserve(session, job, judge.id, "base", questions, Budget(10, 700))) == 4
        assert (spent_by(session, job.id).calls, spent_by(session, job.id).tokens) == (4, 600)
        assert reserve(session, job, judge.id, "base", questions, Budget(10, 700)) == []
        assert len(reserve(session, job, judge.id, "base", questions, Budget(6))) == 2


def test_groups_are_split_evenly() -> None:
    ids = [uuid.UUID(int=n) for n in range(12)]
    sizes = {
        (n, most): [len(part) for part in split_group(ids[:n], most)] for n in range(2, 12) for most in range(2, 6)
    }
    assert sizes[5, 4] == [2, 3]
    assert sizes[3, 2] == [2], "one waits"
    assert sizes[4, 4] == [4]
    assert sizes[9, 4] == [3, 3, 3]
    assert all(max(found) <= most and n - sum(found) <= n // most for (n, most), found in sizes.items())


def test_concordance_by_hand() -> None:
    agreement = concordance([(0.9, 1.0, None), (0.4, 0.0, None), (0.4, 1.0, None)])
    assert (agreement.compared, agreement.pairs, agreement.concordance) == (3, 2, 0.75)
    assert concordance([(0.9, 1.0, None)]).concordance is None
    assert concordance([(0.1, 1.0, None), (0.9, 0.0, None)]).concordance == 0.0
    one, other = uuid.uuid4(), uuid.uuid4()
    assert concordance([(1.0, 1.0, one), (0.0, 0.0, one), (1.0, 0.0, other), (0.0, 0.5, other)]).concordance == 0.5


def test_a_job_that_failed_ahead_of_now_by_a_clock_that_was_set_back_holds_nothing_up(rows: Rows) -> None:
    rows.task("support", chats(8))
    make(rows)
    assert tick(rows) is not None
    end(rows, "failed", minutes=-24 * 60)
    add(rows, chats(8, word="parcel"))
    assert tick(rows) is not None
