"""One call sets a loop up, and says what it made, changed and left; again, it changes only what is given anew."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from registry.adapters import AdapterSettings, adapter_changes, change_adapter, get_adapter
from registry.database import transaction
from registry.errors import Conflict, Invalid, InvalidSchedule, JudgeNotFound
from registry.judging.judges import JudgeSettings, create_judge, get_judge, name_judge
from registry.judging.ticks import tasks_to_judge
from registry.loops.loops import delete_loop
from registry.loops.plan import LoopPlan
from registry.loops.recording import RecordingWish
from registry.models import Loop, RecordingPolicy, RetentionPolicy, Schedule, ScheduleChange
from registry.recordings.policies import clear_policy, find_policy
from registry.recordings.policies import set_policy as set_recording
from registry.retention.policy import set_policy
from registry.schedules.cron import Cron
from registry.schedules.schedules import (
    Idle,
    NewTrajectories,
    TrainingRequest,
    create_schedule,
    delete_schedule,
    training_request,
    when_of,
)
from registry.tasks import get_task
from tests.registry.conftest import Rows
from tests.registry.loops.looped import Looped


@pytest.fixture
def looped(rows: Rows) -> Looped:
    rows.task("a")
    return Looped(rows)


def _outcomes(looped: Looped, plan: LoopPlan | None = None) -> dict[str, str]:
    return {part.part: part.outcome for part in looped.set_up(plan)}


def _settings(rows: Rows) -> AdapterSettings:
    with transaction(rows.services.sessions) as session:
        return AdapterSettings.of(get_adapter(session, rows.project_id, "bot"))


def _schedule(rows: Rows) -> Schedule:
    with transaction(rows.services.sessions) as session:
        return session.scalars(sa.select(Schedule).where(Schedule.deleted_at.is_(None))).one()


def test_a_loop_is_made_of_all_its_parts(rows: Rows, looped: Looped) -> None:
    plan = LoopPlan(cron="0 2 * * *", time_zone="Europe/Berlin", after=200, min_reward=0.8)
    made = _outcomes(looped, plan)
    assert made == {"schedule": "made", "gate": "changed", "retention": "made", "loop": "made"} | made
    assert not set(made.values()) & {"kept"}
    schedule = _schedule(rows)
    assert schedule.name == "loop.bot"
    assert when_of(schedule) == Cron("0 2 * * *", "Europe/Berlin", 200)
    assert training_request(schedule) == TrainingRequest({"steps": 5}, 0.8, True)
    found = _settings(rows)
    assert (found.gate_policy, found.gate_settled, found.canary_promotion) == ("canary", True, "non_inferior")
    assert found.canary_share == 0.2, "with 5% most agents would wait months for a result"
    loop = looped.loop()
    assert (loop.state, loop.held, loop.adapter.name, loop.task.name) == ("running", False, "bot", "a")
    assert [(change.kind, change.actor) for change in looped.changes()][-1] == ("created", "anna")
    with transaction(rows.services.sessions) as session:
        [change] = adapter_changes(session, get_adapter(session, rows.project_id, "bot"))
        assert (change.actor, change.reason) == ("anna", "its loop was set up")


def test_again_it_changes_nothing(rows: Rows, looped: Looped) -> None:
    plan = LoopPlan(cron="0 2 * * *", after=200, settings={"canary_share": 0.3}, keep_last=5, quiet_hours=48)
    looped.set_up(plan)
    history = len(looped.changes())
    for again in (plan, LoopPlan()):
        assert set(_outcomes(looped, again).values()) == {"kept"}
    assert len(looped.changes()) == history
    with transaction(rows.services.sessions) as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Loop)) == 1
        assert session.scalar(sa.select(sa.func.count()).select_from(ScheduleChange)) == 1


def test_what_is_given_anew_is_changed_and_the_rest_stays(rows: Rows, looped: Looped) -> None:
    looped.set_up(LoopPlan(cron="0 2 * * *", time_zone="Europe/Berlin", after=200))
    changed = _outcomes(looped, LoopPlan(after=50, quiet_hours=72, settings={"canary_margin": 0.1}))
    assert {part for part, outcome in changed.items() if outcome == "changed"} == {"schedule", "loop", "gate"}
    assert when_of(_schedule(rows)) == Cron("0 2 * * *", "Europe/Berlin", 50)
    assert looped.loop().quiet_hours == 72
    assert _settings(rows).canary_share == 0.2
    assert looped.changes()[0].kind == "changed"


def test_settings_of_an_earlier_canary_policy_stay(rows: Rows, looped: Looped) -> None:
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, "bot", lock=True)
        terms = {"gate_policy": "canary", "canary_share": 0.02, "canary_promotion": "never"}
        judged = {"gate_settled": True, "gate_gain": False}
        change_adapter(session, adapter, terms | judged, actor="test", reason="")
        set_policy(session, adapter, 3, actor="test")
    made = {part.part: part for part in looped.set_up()}
    assert (made["gate"].outcome, made["retention"].outcome) == ("kept", "kept")
    assert "a person moves the champion" in made["gate"].text
    assert _settings(rows).canary_share == 0.02
    with transaction(rows.services.sessions) as session:
        assert session.scalars(sa.select(RetentionPolicy.keep_last)).one() == 3


def _recording(rows: Rows) -> RecordingPolicy | None:
    with transaction(rows.services.sessions) as session:
        return find_policy(session, rows.project_id, get_adapter(session, rows.project_id, "bot"))


def test_a_loop_records_its_adapter_and_takes_that_back(rows: Rows, looped: Looped) -> None:
    made = {part.part: part for part in looped.set_up()}
    assert (made["recording"].outcome, made["recording"].text) == (
        "made",
        "all requests as a, but those with `store: false`",
    )
    policy = _recording(rows)
    assert policy is not None
    assert (policy.mode, policy.share, policy.actor) == ("all", 1.0, "anna")
    assert _outcomes(looped, LoopPlan(recording=RecordingWish(share=0.5)))["recording"] == "changed"
    assert _outcomes(looped)["recording"] == "kept"
    with transaction(rows.services.sessions) as session:
        _, stays = delete_loop(session, rows.project_id, "bot", actor="ben")
    assert not any("recording" in each for each in stays)
    assert _recording(rows) is None, "nobody asks for it any more"


def test_a_policy_that_was_there_stays_and_comes_back(rows: Rows, looped: Looped) -> None:
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, "bot")
        set_recording(session, rows.project_id, adapter, mode="asked", share=0.5, actor="ben")
    made = {part.part: part for part in looped.set_up()}
    assert (made["recording"].outcome, made["recording"].text) == ("kept", "what asks to be stored")
    looped.set_up(LoopPlan(recording=RecordingWish(mode="all")))
    with transaction(rows.services.sessions) as session:
        _, stays = delete_loop(session, rows.project_id, "bot", actor="ben")
    assert any("as it was before the loop" in each for each in stays)
    policy = _recording(rows)
    assert policy is not None
    assert (policy.mode, policy.share) == ("asked", 0.5)


def test_a_policy_that_somebody_changed_since_is_theirs(rows: Rows, looped: Looped) -> None:
    looped.set_up()
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, "bot")
        set_recording(session, rows.project_id, adapter, mode="off", actor="ben")
        _, stays = delete_loop(session, rows.project_id, "bot", actor="anna")
    assert any("which the loop did not make: off" in each for each in stays)
    assert _recording(rows) is not None


def test_quiet_instead_of_a_clock(rows: Rows, looped: Looped) -> None:
    looped.set_up(LoopPlan(idle_hours=2, after=7))
    assert when_of(_schedule(rows)) == Idle(2, 7)
    looped.set_up(LoopPlan(after=9))
    assert when_of(_schedule(rows)) == Idle(2, 9)
    looped.set_up(LoopPlan(cron="0 3 * * *"))
    assert when_of(_schedule(rows)) == Cron("0 3 * * *", at_least=9)
    with pytest.raises(InvalidSchedule):
        looped.set_up(LoopPlan(idle_hours=2, cron="0 3 * * *"))


def test_only_a_number_needs_no_clock(rows: Rows, looped: Looped) -> None:
    looped.set_up(LoopPlan(after=10))
    assert when_of(_schedule(rows)) == NewTrajectories(10)
    looped.set_up(LoopPlan(cron="0 4 * * *"))
    assert when_of(_schedule(rows)) == Cron("0 4 * * *", at_least=10)


def test_other_schedules_of_the_adapter_are_told_of(rows: Rows, looped: Looped) -> None:
    with transaction(rows.services.sessions) as session:
        create_schedule(
            session,
            rows.project_id,
            "loop.bot",
            adapter=get_adapter(session, rows.project_id, "bot"),
            task=get_task(session, rows.project_id, "a"),
            when=NewTrajectories(9),
            request=TrainingRequest({}),
            actor="test",
        )
    parts = looped.set_up()
    assert parts[-1].text == "loop.bot trains bot too, and no loop holds it"
    assert looped.loop().schedule.name != "loop.bot", "the name is taken"


@pytest.mark.parametrize(
    ("plan", "error"),
    [
        (LoopPlan(cron="99 * * * *"), InvalidSchedule),
        (LoopPlan(time_zone="Mars/Olympus"), InvalidSchedule),
        (LoopPlan(after=0), InvalidSchedule),
        (LoopPlan(quiet_hours=0), Invalid),
        (LoopPlan(quiet_hours=float("nan")), Invalid),
        (LoopPlan(most_failures=0), Invalid),
        (LoopPlan(settings={"canary_share": 0.9}), Invalid),
        (LoopPlan(keep_last=0), Invalid),
    ],
)
def test_what_makes_no_sense_leaves_nothing_behind(
    rows: Rows, looped: Looped, plan: LoopPlan, error: type[Exception]
) -> None:
    with pytest.raises(error):
        looped.set_up(plan)
    with transaction(rows.services.sessions) as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Schedule)) == 0
    assert _settings(rows).gate_policy == "automatic"


def test_an_adapters_loop_learns_one_task(rows: Rows, looped: Looped) -> None:
    rows.task("b")
    looped.set_up()
    with pytest.raises(Conflict, match="has one loop"):
        looped.set_up(task="b")


def test_two_who_set_it_up_at_once_make_one(rows: Rows, looped: Looped) -> None:
    together = threading.Barrier(4)

    def create(_: int) -> str:
        together.wait()
        return _outcomes(looped, LoopPlan(after=7))["schedule"]

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(create, range(4))) == ["kept", "kept", "kept", "made"]
    assert when_of(_schedule(rows)) == NewTrajectories(7)


def test_a_deleted_loop_stays_for_its_history_and_can_be_made_anew(rows: Rows, looped: Looped) -> None:
    looped.set_up(LoopPlan(after=7))
    with transaction(rows.services.sessions) as session:
        loop, stays = delete_loop(session, rows.project_id, "bot", actor="ben")
        assert loop.schedule.deleted_at is not None
        assert any("champion" in each for each in stays)
    assert _settings(rows).gate_policy == "canary", "nothing moves an alias because a loop is gone"
    assert _outcomes(looped)["loop"] == "made"
    with transaction(rows.services.sessions) as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Loop)) == 2


def test_a_schedule_that_somebody_deleted_is_made_anew_as_it_was(rows: Rows, looped: Looped) -> None:
    looped.set_up(
        LoopPlan(cron="0 2 * * *", time_zone="Europe/Berlin", after=200, min_reward=0.8, training={"steps": 9})
    )
    with transaction(rows.services.sessions) as session:
        delete_schedule(session, rows.project_id, "loop.bot", actor="ben")
    assert _outcomes(looped, LoopPlan(after=50))["schedule"] == "made"
    assert when_of(_schedule(rows)) == Cron("0 2 * * *", "Europe/Berlin", 50)
    assert training_request(_schedule(rows)) == TrainingRequest({"steps": 9}, 0.8, True)


def test_what_somebody_set_of_the_gate_since_stays(rows: Rows, looped: Looped) -> None:
    looped.set_up(LoopPlan(settings={"gate_margin": 0.15}))
    assert _settings(rows).gate_margin == 0.15
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, "bot", lock=True)
        change_adapter(session, adapter, {"gate_policy": "manual"}, actor="ben", reason="let me look first")
    changed = {part.part: part for part in looped.set_up(LoopPlan(after=50))}
    assert (changed["gate"].outcome, _settings(rows).gate_policy) == ("kept", "manual")
    assert changed["gate"].text == "a drop of 15 points at most; a person approves what passed"


def test_a_deletion_gives_the_recording_back_as_it_was_whoever_changed_it_last(rows: Rows, looped: Looped) -> None:
    def say(mode: str, **values: float) -> None:
        with transaction(rows.services.sessions) as session:
            adapter = get_adapter(session, rows.project_id, "bot")
            set_recording(session, rows.project_id, adapter, mode=mode, actor="ben", **values)

    say("asked", share=0.5)
    looped.set_up(LoopPlan(recording=RecordingWish(mode="all")))
    say("off")
    looped.set_up(LoopPlan(recording=RecordingWish(mode="all")))
    with transaction(rows.services.sessions) as session:
        delete_loop(session, rows.project_id, "bot", actor="anna")
    policy = _recording(rows)
    assert policy is not None
    assert (policy.mode, policy.share, policy.task_id) == ("off", 1.0, None)


def test_what_is_recorded_as_another_task_is_told_of(rows: Rows, looped: Looped) -> None:
    rows.task("b")
    with transaction(rows.services.sessions) as session:
        adapter, other = get_adapter(session, rows.project_id, "bot"), get_task(session, rows.project_id, "b")
        set_recording(session, rows.project_id, adapter, mode="all", task=other, actor="ben")
    text = {part.part: part.text for part in looped.set_up()}["recording"]
    assert "as b, and not as a, which this loop learns (`memgen recording set all --adapter bot --task a`)" in text
    assert looped.report().recording == text
    with transaction(rows.services.sessions) as session:
        clear_policy(session, rows.project_id, get_adapter(session, rows.project_id, "bot"))
        set_recording(session, rows.project_id, None, mode="off", actor="ben")
    assert looped.report().recording == "by the project's policy, off: nothing is recorded, and so nothing learned"


def _judge(rows: Rows, name: str, kind: str = "pointwise") -> None:
    with transaction(rows.services.sessions) as session:
        values = {"model": "base", "rubric": "Be kind.", "settings": JudgeSettings()}
        create_judge(session, rows.project_id, name=name, kind=kind, **values)


def test_a_judge_rewards_what_nobody_else_does(rows: Rows, looped: Looped) -> None:
    _judge(rows, "strict")
    _judge(rows, "mild")
    made = {part.part: part for part in looped.set_up(LoopPlan(judge="strict"))}
    assert made["judge"].outcome == "made"
    assert made["judge"].text == "strict rewards what nobody else does, within 1000 calls a day"
    assert looped.report().judge == made["judge"].text
    assert _outcomes(looped)["judge"] == "kept"
    assert _outcomes(looped, LoopPlan(judge="mild"))["judge"] == "changed"
    with transaction(rows.services.sessions) as session:
        assert get_task(session, rows.project_id, "a").judge_rewards == "fill"
        assert tasks_to_judge(session) != []
        _, stays = delete_loop(session, rows.project_id, "bot", actor="ben")
        assert "the rewards of judge mild, which still count where nobody else gave one" in stays
        assert tasks_to_judge(session) == [], "nothing is spent any more"


def test_a_judge_that_the_task_had_stays(rows: Rows, looped: Looped) -> None:
    _judge(rows, "strict")
    with transaction(rows.services.sessions) as session:
        name_judge(session, get_task(session, rows.project_id, "a"), get_judge(session, rows.project_id, "strict"))
    kept = {part.part: part for part in looped.set_up()}["judge"]
    assert (
        kept.text
        == "strict judges, but its scores are no rewards (`memgen judge attach strict --task a --rewards fill`)"
    )
    with transaction(rows.services.sessions) as session:
        _, stays = delete_loop(session, rows.project_id, "bot", actor="ben")
        assert "judge strict of task a, whom the loop did not name" in stays
        assert tasks_to_judge(session) != []


def test_a_judge_that_ranks_says_of_no_run_whether_it_is_good(rows: Rows, looped: Looped) -> None:
    _judge(rows, "rank", kind="relative")
    with pytest.raises(Invalid, match="pointwise"):
        looped.set_up(LoopPlan(judge="rank"))
    with pytest.raises(JudgeNotFound):
        looped.set_up(LoopPlan(judge="nobody"))
    with transaction(rows.services.sessions) as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Loop)) == 0


def test_a_deletion_says_that_an_adapter_without_champion_answers_no_more(rows: Rows, looped: Looped) -> None:
    looped.set_up()
    with transaction(rows.services.sessions) as session:
        _, stays = delete_loop(session, rows.project_id, "bot", actor="ben")
    assert "model 'bot' is refused from now on" in stays[0]
