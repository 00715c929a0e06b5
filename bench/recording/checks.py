"""What stands in the database of what the agents were answered."""

import time
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from bench.recording.agents import PlayedRun
from registry.database import transaction
from registry.models import Run, RunCall, Trajectory
from registry.recordings.spool import waiting_files
from registry.wiring import Services


def wait_for_trajectories(services: Services, spool: Path, seconds: float = 900.0) -> float:
    """Until nothing waits in any process's spool, and every run is closed. Returns how long that took."""
    began = time.perf_counter()
    while True:
        with transaction(services.sessions) as session:
            left = session.scalar(select(func.count()).select_from(Run).where(Run.state != "closed"))
        if not left and not waiting_files(spool):
            return time.perf_counter() - began
        if time.perf_counter() - began > seconds:
            raise TimeoutError(f"{left} runs are not closed, or answers wait, after {seconds:.0f} s")
        time.sleep(0.2)


def check(services: Services, plays: Sequence[PlayedRun]) -> dict[str, Any]:
    """What stands in the database of what the agents were answered."""
    with transaction(services.sessions) as session:
        calls: dict[str, list[uuid.UUID | None]] = {}
        for call in session.scalars(select(RunCall)):
            calls.setdefault(call.completion_id, []).append(call.run_id)
        runs = {run.id: run for run in session.scalars(select(Run))}
        stored = {row.id: row for row in session.scalars(select(Trajectory))}
    recorded = [play for play in plays if play.is_recorded]
    answered = {answer for play in recorded for answer in play.answers}
    learned = sum(_learned(row) for row in stored.values())
    outcomes = Counter(_outcome(play, calls, runs, stored) for play in recorded)
    return {
        "runs": len(recorded),
        "answers": len(answered),
        "lost": len(answered - calls.keys()),
        "doubled": sum(len(found) - 1 for found in calls.values()) + max(0, learned - len(calls)),
        "not_asked_but_recorded": sum(
            answer in calls for play in plays if not play.is_recorded for answer in play.answers
        ),
        "one_trajectory": outcomes["one"],
        "split_by_an_answer_that_never_arrived": outcomes["unreceived"],
        "wrong": {name: count for name, count in outcomes.items() if name not in ("one", "unreceived")},
        "trajectories": len(stored),
        "requests_broken_off_by_the_kill": sum(play.broken_off for play in recorded),
        "of_these_recorded": len(calls) - len(answered & calls.keys()),
        "closed": dict(Counter(run.close_reason for run in runs.values())),
        "refused": sum(run.refusal_code is not None for run in runs.values()),
    }


def _learned(row: Trajectory) -> int:
    return sum(message.get("weight") == 1 for message in row.messages)


def _outcome(
    play: PlayedRun,
    calls: dict[str, list[uuid.UUID | None]],
    runs: dict[uuid.UUID, Run],
    stored: dict[uuid.UUID, Trajectory],
) -> str:
    """`one` if the run is one trajectory, with all that was said in it and what was sampled, and its reward."""
    found = {run_id for answer in play.answers for run_id in calls.get(answer, [None])}
    if len(found) != 1:
        return "unreceived" if play.broken_off else "several runs"
    run = runs.get(found.pop() or uuid.UUID(int=0))
    row = stored.get(run.trajectory_id) if run is not None and run.trajectory_id is not None else None
    if run is None or row is None:
        return "no trajectory"
    if [message["content"] for message in row.messages] != [message["content"] for message in play.messages]:
        return "other messages"
    if _learned(row) != play.turns or not all(row.sampled or [None]):
        return "turns not recorded as sampled"
    if play.end == "reward" and row.reward != play.reward:
        return "another reward"
    if run.close_reason != play.end:
        return f"closed by {run.close_reason}"
    return "one"
