"""Anything that anyone may do to an adapter, in any order and at once, keeps what must hold of it.

Rows are real, on a real PostgreSQL. Each example is a project of its own. What a rollback must restore is worked out
here from a copy of the history, not by the registry.
"""

import random
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Barrier
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy.orm import Session

from registry import jobs
from registry.adapters import get_adapter
from registry.database import transaction
from registry.datasets import snapshots
from registry.datasets.suites import freeze_suite
from registry.deletion.deletions import DeletionPolicy, delete_data
from registry.deletion.scope import DeletionSubject
from registry.errors import RegistryError
from registry.gates.gate import GateTerms, compare, record_gate
from registry.job_requests import TrainWeaver
from registry.models import Adapter, Alias, AliasMove, Project, Route, RouteChange, Task, Trajectory, Version
from registry.promotion import decide
from registry.retention.archiving import archive, unarchive
from registry.serving.aliases import promote, roll_back
from registry.serving.exposures import record_exposure
from registry.serving.feedback import Rating, receive_feedback
from registry.serving.resolution import ServingRequest, resolve
from registry.serving.routes import end_route, live_route, start_ab, start_canary, start_shadow
from registry.tasks import create_task, get_task
from registry.trajectories.imports import import_batch, read_item
from registry.versions.records import get_version, list_versions, register_version
from registry.versions.tags import tag, untag
from registry.wiring import Services
from tests.registry.conftest import TOKENS, Rows
from tests.registry.invariants import Ledger, check_adapter, check_held_out, has_passed, is_servable
from tests.registry.routed import Routed, make_routed

T = TypeVar("T")

ADAPTER, NEIGHBOUR = "bot", "neighbour"
TASKS = ("a", "b")
WHO: dict[str, Any] = {"actor": "test", "reason": "why"}

aliases = st.sampled_from(["champion", "champion", "candidate"])
tasks = st.sampled_from(TASKS)
numbers = st.integers(1, 5)
expectations = st.sampled_from(["none asked", "right", "right", "stale"])


@dataclass
class Pointer:
    """The machine's own copy of an alias."""

    moves: list[tuple[datetime, int]] = field(default_factory=list)
    served: list[int] = field(default_factory=list)
    """What plain rollbacks go back through, the present last."""

    @property
    def current(self) -> int:
        """0 before the first move."""
        return self.moves[-1][1] if self.moves else 0

    def expectation(self, kind: str) -> int | None:
        return {"none asked": None, "right": self.current, "stale": self.current + 1}[kind]

    def follow(self, move: AliasMove) -> None:
        number = move.to_version.number
        self.moves.append((move.at, number))
        if move.kind == "rollback":
            kept = len(self.served) - self.served[::-1].index(number) if number in self.served else 0
            self.served = self.served[:kept] or [number]
        elif self.served[-1:] != [number]:
            self.served.append(number)


class AdapterMachine(RuleBasedStateMachine):
    """One adapter under test, beside another of the same project with the same version numbers."""

    def __init__(self, services: Services) -> None:
        super().__init__()
        self.sessions = services.sessions
        self.ledger = Ledger()
        self.pointers: dict[str, Pointer] = {"champion": Pointer(), "candidate": Pointer()}
        self.answers: list[str] = []
        self.project_id = uuid.uuid4()
        self.services = services

    @initialize()
    def begin(self) -> None:
        with transaction(self.sessions) as session:
            session.add(Project(id=self.project_id, name=self.project_id.hex))
            session.flush()
            for name in (ADAPTER, NEIGHBOUR):
                Rows(self.services, self.project_id, name).make_adapter(session)
            for task in TASKS:
                create_task(session, self.project_id, task, grader={"kind": "exact"}, holdout_share=0.4)
        for task in TASKS:
            self.upload(task, range(12), 0, None)
        for name in (ADAPTER, NEIGHBOUR):
            for task, gate in (("a", "passed"), ("b", "passed"), ("a", "passed"), ("a", "failed")):
                self._register(name, task, gate, 0.0, None)
        with transaction(self.sessions) as session:
            neighbour = get_adapter(session, self.project_id, NEIGHBOUR, lock=True)
            promote(session, neighbour, "champion", get_version(session, neighbour, 1), **WHO)
            start_canary(session, neighbour, 2, 0.25, actor="test", reason="why")
        for number in (1, 2, 3):
            self.promote(number, "champion", "right")

    @rule(
        task=tasks,
        prompts=st.lists(st.integers(0, 30), max_size=4),
        answer=st.integers(0, 3),
        reward=st.sampled_from([None, 0.2, 0.9]),
        turns=st.integers(1, 3),
    )
    def upload(self, task: str, prompts: list[int] | range, answer: int, reward: float | None, turns: int = 1) -> None:
        """Conversations of some turns, all of which are learned from; longer ones go on from the shorter."""
        items = [{"messages": _conversation(p, answer, turns), "reward": reward} for p in prompts]
        with transaction(self.sessions) as session:
            sent = [read_item(place, item) for place, item in enumerate(items)]
            results = import_batch(session, self.project_id, sent, default_task=task, tokens=TOKENS)
        assert {result.status for result in results} <= {"accepted", "duplicate"}

    @rule(
        task=tasks,
        gate=st.sampled_from(["passed", "passed", "failed", "unchecked", "waiting"]),
        min_reward=st.sampled_from([0.0, 0.5]),
        parent=st.none() | numbers,
    )
    def register(self, task: str, gate: str, min_reward: float, parent: int | None) -> None:
        self._register(ADAPTER, task, gate, min_reward, parent)

    def _register(self, name: str, task: str, gate: str, min_reward: float, parent: int | None) -> None:
        def act(session: Session, adapter: Adapter) -> None:
            goes_on = get_version(session, adapter, parent) if parent else None
            snapshot = self._snapshot(session, task, min_reward, 0.5 if goes_on else 0.0)
            job = jobs.create_job(session, self.project_id, TrainWeaver(task, parent), adapter)
            job.state, job.dataset_id = "succeeded", snapshots.record_dataset(session, snapshot).id
            version = register_version(
                session,
                job,
                adapter,
                parent_id=goes_on.id if goes_on else None,
                artifact_key=f"artifacts/{job.id}",
                artifact_hash=uuid.uuid4().hex * 2,
                code_version="test",
                report={"flags": []},
            )
            if gate != "unchecked":
                after, terms = [float(gate != "failed")], GateTerms(margin=0.05)
                comparison = compare(task, new=True, baseline=[0.0], candidate=after, terms=terms)
                policy = "manual" if gate == "waiting" else "automatic"
                record_gate(session, version, baseline=None, comparisons=[comparison], terms=terms, policy=policy)

        self._try(act, name)

    @rule(task=tasks, min_reward=st.sampled_from([0.0, 0.5]), share=st.sampled_from([0.0, 0.3]))
    def snapshot(self, task: str, min_reward: float, share: float) -> None:
        def act(session: Session, _: Adapter) -> None:
            snapshots.record_dataset(session, self._snapshot(session, task, min_reward, share))

        self._try(act)

    def _snapshot(self, session: Session, task: str, min_reward: float, share: float) -> snapshots.Snapshot:
        earlier = [get_task(session, self.project_id, name) for name in TASKS if name != task]
        subject = get_task(session, self.project_id, task)
        return snapshots.snapshot(
            session,
            self.project_id,
            subject,
            earlier_tasks=earlier,
            replay_share=share,
            min_reward=min_reward,
            seed=0,
        )

    @rule(task=tasks)
    def freeze(self, task: str) -> None:
        self._try(lambda session, _: freeze_suite(session, get_task(session, self.project_id, task)))

    @rule(wanted=st.lists(st.tuples(numbers, aliases, expectations), min_size=2, max_size=5))
    def promote_some(self, wanted: list[tuple[int, str, str]]) -> None:
        for number, alias, kind in wanted:
            self.promote(number, alias, kind)

    def promote(self, number: int, alias: str, kind: str) -> None:
        pointer = self.pointers[alias]
        expected = pointer.expectation(kind)
        allowed = self._may_serve(number) and kind != "stale"
        move = self._try(
            lambda s, a: promote(s, a, alias, get_version(s, a, number), expected=expected, **WHO),
        )
        assert (move.to_version.number if move else None) == (number if allowed else None)
        if move is not None:
            pointer.follow(move)

    @rule(alias=aliases)
    def promote_again(self, alias: str) -> None:
        """Repeat a promotion, like a caller who never got the first answer."""
        if self.pointers[alias].current:
            self.promote(self.pointers[alias].current, alias, "none asked")

    @rule(alias=aliases, kind=expectations, hide=st.booleans())
    def roll_back_to_the_last_good(self, alias: str, kind: str, hide: bool) -> None:
        """Past what was archived or withdrawn meanwhile; sometimes the one before is archived just now."""
        pointer = self.pointers[alias]
        if hide and len(pointer.served) > 1:
            self.archive(pointer.served[-2], False)
        good = [number for number in pointer.served if number != pointer.current and self._may_serve(number)]
        self._roll_back(alias, kind, good[-1] if good else None)

    @rule(alias=aliases, kind=expectations, number=numbers)
    def roll_back_to_a_number(self, alias: str, kind: str, number: int) -> None:
        been = any(number == to for _, to in self.pointers[alias].moves)
        self._roll_back(alias, kind, number if been else None, to_number=number)

    @rule(
        alias=aliases,
        wanted=st.lists(st.tuples(expectations, st.integers(0, 9), st.booleans()), min_size=2, max_size=4),
    )
    def roll_back_to_some_times(self, alias: str, wanted: list[tuple[str, int, bool]]) -> None:
        for kind, place, earlier in wanted:
            self._roll_back_to_a_time(alias, kind, place, earlier)

    def _roll_back_to_a_time(self, alias: str, kind: str, place: int, earlier: bool) -> None:
        """To when one of its moves was made, or to just before."""
        moves = self.pointers[alias].moves
        if not moves:
            return
        to_time = moves[place % len(moves)][0] - timedelta(microseconds=earlier)
        stood = [number for at, number in moves if at <= to_time]
        self._roll_back(alias, kind, stood[-1] if stood else None, to_time=to_time)

    def _roll_back(
        self,
        alias: str,
        kind: str,
        target: int | None,
        *,
        to_number: int | None = None,
        to_time: datetime | None = None,
    ) -> None:
        pointer = self.pointers[alias]
        expected = pointer.expectation(kind)
        allowed = target not in (None, pointer.current) and self._may_serve(target) and kind != "stale"
        move = self._try(
            lambda s, a: roll_back(s, a, alias, to_number=to_number, to_time=to_time, expected=expected, **WHO)
        )
        assert (move.to_version.number if move else None) == (target if allowed else None)
        if move is not None:
            pointer.follow(move)

    @rule(number=numbers, approved=st.booleans())
    def decide(self, number: int, approved: bool) -> None:
        def act(session: Session, adapter: Adapter) -> AliasMove | None:
            version = get_version(session, adapter, number)
            current = self.pointers["champion"].current
            return decide(session, adapter, version, approved=approved, expected=current, **WHO)[1]

        move = self._try(act)
        if move is not None:
            assert move.to_version.number == number
            self.pointers["champion"].follow(move)

    @rule(
        first=numbers, second=numbers, weight=st.sampled_from([0.0, 0.1, 0.5, 0.9]), replace=st.booleans(),
        total=st.sampled_from([1.0, 1.0, 0.9]),
    )  # fmt: skip
    def start_ab(self, first: int, second: int, weight: float, replace: bool, total: float) -> None:
        weights = {first: weight, second: total - weight}
        self._try(lambda s, a: start_ab(s, a, weights, actor="test", reason="why", replace=replace))

    @rule(number=numbers, share=st.sampled_from([0.05, 0.5, 0.6]), shadow=st.booleans(), replace=st.booleans())
    def start_beside_the_champion(self, number: int, share: float, shadow: bool, replace: bool) -> None:
        start = start_shadow if shadow else start_canary
        self._try(lambda s, a: start(s, a, number, share, actor="test", reason="why", replace=replace))

    @rule(number=st.integers(1, 4))
    def end_a_route(self, number: int) -> None:
        self._try(lambda s, a: end_route(s, a, number, **WHO))

    @rule(session_id=st.none() | st.sampled_from(["anna", "bert", "carl"]))
    def ask(self, session_id: str | None) -> None:
        completion = f"chatcmpl-{uuid.uuid4().hex}"

        def act(session: Session, adapter: Adapter) -> None:
            served = resolve(session, self.project_id, ADAPTER, ServingRequest(completion, session_id))
            assert served.version is not None
            route = live_route(session, adapter)
            shared = {arm.version.number for arm in route.arms if arm.weight > 0} if route else None
            assert served.version.number in (shared or {self.pointers["champion"].current})
            assert has_passed(session, served.version)
            assert is_servable(session, served.version)
            record_exposure(session, self.project_id, completion, served, session_id)
            self.answers.append(completion)

        self._try(act)

    @rule(place=st.integers(0, 20), reward=st.sampled_from([0.0, 1.0]))
    def rate(self, place: int, reward: float) -> None:
        if self.answers:
            completion = self.answers[place % len(self.answers)]
            self._try(lambda s, _: receive_feedback(s, self.project_id, completion, Rating(reward, "test")))

    @rule(number=numbers, out=st.booleans())
    def archive(self, number: int, out: bool) -> None:
        def act(session: Session, adapter: Adapter) -> None:
            version = get_version(session, adapter, number)
            if out:
                unarchive(session, version, **WHO)
            else:
                archive(session, adapter, version, **WHO)

        self._try(act)

    @rule(number=numbers, off=st.booleans())
    def tag(self, number: int, off: bool) -> None:
        label = untag if off else tag
        self._try(lambda s, a: label(s, get_version(s, a, number), "best", actor="test"))

    @rule(
        task=tasks,
        held_out=st.sampled_from([False, False, True]),
        newest=st.integers(0, 15),
        policy=st.sampled_from(["keep", "retrain", "withdraw", "withdraw"]),
    )
    def delete(self, task: str, held_out: bool, newest: int, policy: DeletionPolicy) -> None:
        """One trajectory; aliases leave what is withdrawn with it for the newest good version, if there is one."""
        with transaction(self.sessions) as session:
            ids = session.scalars(
                sa.select(Trajectory.id)
                .join(Trajectory.task)
                .where(Task.project_id == self.project_id, Task.name == task, Trajectory.held_out.is_(held_out))
                .order_by(Trajectory.seq.desc())
            ).all()
            if not ids:
                return
            subject = DeletionSubject("trajectory", str(ids[newest % len(ids)]))
            delete_data(session, self.project_id, subject, policy, actor="test", reason="why")
        with transaction(self.sessions) as session:
            adapter = get_adapter(session, self.project_id, ADAPTER)
            good = [v.number for v in list_versions(session, adapter) if self._may_serve(v.number)]
            for name, pointer in self.pointers.items():
                last = _last_move(session, adapter, name)
                if pointer.current == 0 or pointer.current in good or not good:
                    assert (last.to_version.number if last else 0) == pointer.current
                else:
                    assert last is not None
                    assert last.to_version.number == max(good)
                    pointer.follow(last)

    @invariant()
    def holds(self) -> None:
        with transaction(self.sessions) as session:
            for name in (ADAPTER, NEIGHBOUR):
                check_adapter(session, get_adapter(session, self.project_id, name))
            adapter = get_adapter(session, self.project_id, ADAPTER)
            for alias, pointer in self.pointers.items():
                row = session.get(Alias, (adapter.id, alias))
                assert (row.version.number if row else 0) == pointer.current
            check_held_out(session, self.project_id)
            self.ledger.check(session, self.project_id)

    def _try(self, act: Callable[[Session, Adapter], T], name: str = ADAPTER) -> T | None:
        """What `act` gives in a transaction of its own with the adapter locked; None if the registry refuses."""
        try:
            with transaction(self.sessions) as session:
                return act(session, get_adapter(session, self.project_id, name, lock=True))
        except RegistryError:
            return None

    def _may_serve(self, number: int) -> bool:
        with transaction(self.sessions) as session:
            adapter = get_adapter(session, self.project_id, ADAPTER)
            query = sa.select(Version).where(Version.adapter_id == adapter.id, Version.number == number)
            version = session.scalars(query).one_or_none()
            return version is not None and has_passed(session, version) and is_servable(session, version)


def _conversation(prompt: int, answer: int, turns: int) -> list[dict[str, str]]:
    return [
        message
        for turn in range(turns)
        for message in (
            {"role": "user", "content": f"{prompt}?" + " And then?" * turn},
            {"role": "assistant", "content": f"{prompt} {answer}." + " Later." * turn},
        )
    ]


def _last_move(session: Session, adapter: Adapter, alias: str) -> AliasMove | None:
    query = sa.select(AliasMove).where(AliasMove.adapter_id == adapter.id, AliasMove.alias == alias)
    return session.scalars(query.order_by(AliasMove.seq.desc()).limit(1)).one_or_none()


def test_any_order_of_operations_keeps_the_invariants(services: Services) -> None:
    run_state_machine_as_test(
        lambda: AdapterMachine(services),  # type: ignore[arg-type] # any callable that makes one will do
        settings=settings(
            max_examples=20,
            stateful_step_count=25,
            deadline=None,
            database=None,
            derandomize=True,
            # 25 steps are read sooner than they are shrunk, each of them being some transactions.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


@dataclass
class Done:
    """What a thread's operations came to."""

    followed: dict[int, int] = field(default_factory=dict)
    """By `seq` of a move, the version that its caller expected to move from."""
    moves: int = 0
    started: int = 0
    ended: int = 0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_callers_at_once_keep_the_invariants(rows: Rows, seed: int) -> None:
    """Four sessions, each looking first and acting then on what it saw: no move is lost, none follows another than
    its caller expected."""
    routed = make_routed(rows)
    ready = Barrier(4)

    def work(place: int) -> Done:
        plan, done = random.Random(4 * seed + place), Done()
        ready.wait(timeout=30)
        for _ in range(20):
            _one_operation(routed, plan, done)
        return done

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(work, range(4)))
    followed = {seq: number for done in outcomes for seq, number in done.followed.items()}
    assert followed
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, rows.adapter)
        check_adapter(session, adapter)
        moves = session.scalars(sa.select(AliasMove).where(AliasMove.adapter_id == adapter.id)).all()
        # The fixture made the first.
        assert len(moves) == 1 + sum(done.moves for done in outcomes)
        left = {move.seq: move.from_version.number for move in moves if move.from_version}
        assert {seq: left[seq] for seq in followed} == followed
        routes = session.scalars(sa.select(Route).where(Route.adapter_id == adapter.id)).all()
        assert sorted(route.number for route in routes) == list(range(1, 1 + sum(done.started for done in outcomes)))
        changes = session.execute(sa.select(RouteChange.route_id, RouteChange.kind)).all()
        starts_and_ends = [(route.id, "started") for route in routes]
        starts_and_ends += [(route.id, "ended") for route in routes if route.state == "ended"]
        assert sorted(tuple(change) for change in changes) == sorted(starts_and_ends)
        by_hand = sa.select(sa.func.count()).where(RouteChange.kind == "ended", RouteChange.actor == "ender")
        assert session.scalar(by_hand) == sum(done.ended for done in outcomes)


def _one_operation(routed: Routed, plan: random.Random, done: Done) -> None:
    rows = routed.rows
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, rows.adapter)
        seen = session.get_one(Alias, (adapter.id, "champion")).version.number
        live = live_route(session, adapter)
    expected = plan.choice([None, seen, seen])
    kind, number = plan.choice(["promote", "promote", "back", "back to", "start", "start", "end"]), plan.randint(1, 5)
    who: dict[str, Any] = {"actor": "by hand", "reason": "why"}
    try:
        with transaction(rows.services.sessions) as session:
            adapter = routed.adapter(session)
            if kind == "start":
                start_canary(session, adapter, number, 0.5, actor="by hand", reason="why", replace=plan.random() < 0.3)
                move = None
            elif kind == "end":
                end_route(session, adapter, live.number if live else 1, actor="ender", reason="why")
                move = None
            elif kind == "promote":
                version = get_version(session, adapter, number)
                move = promote(session, adapter, "champion", version, expected=expected, **who)
            else:
                to = number if kind == "back to" else None
                move = roll_back(session, adapter, "champion", to_number=to, expected=expected, **who)
    except RegistryError:
        return
    done.started += kind == "start"
    done.ended += kind == "end"
    if move is not None:
        done.moves += 1
        if expected is not None:
            done.followed[move.seq] = expected
