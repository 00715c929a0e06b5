"""The loop of training from reward, with a learner that only counts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memgen.errors import Cancelled
from memgen.training.reward.loop import drawn_of_step, run_steps


class Counter:
    """Plays the step's number and learns it."""

    def __init__(self, learned: list[int] | None = None, stops_in: int | None = None) -> None:
        self.learned = learned or []
        self.saved: list[list[int]] = []
        self.seconds = 0.0
        self._stops_in = stops_in

    @property
    def steps_done(self) -> int:
        return len(self.learned)

    def play(self, step: int) -> int:
        if step == self._stops_in:
            raise Cancelled("stopped while playing")
        return step

    def learn(self, batch: int) -> str:
        self.learned.append(batch)
        return f"learned {batch}"

    def save(self, path: Path) -> None:
        self.saved.append(list(self.learned))


def run(learner: Counter, steps: int, **hooks: Any) -> None:
    usual: dict[str, Any] = {
        "checkpoint": None,
        "checkpoint_interval_seconds": 30.0,
        "on_checkpoint": None,
        "on_step": None,
        "should_stop": None,
    }
    run_steps(learner, steps, **usual | hooks)


def test_the_steps_that_are_left_are_taken_in_order() -> None:
    learner, reports = Counter([7, 7]), []
    run(learner, 5, on_step=lambda report, left: reports.append((report, left > 0)))
    assert learner.learned == [7, 7, 2, 3, 4]
    assert reports == [("learned 2", True), ("learned 3", True), ("learned 4", False)]
    assert learner.seconds > 0


@pytest.mark.parametrize("stopper", ["play", "should_stop"])
def test_a_stop_leaves_the_last_whole_step_saved(tmp_path: Path, stopper: str) -> None:
    learner = Counter(stops_in=2 if stopper == "play" else None)
    stop: Callable[[], bool] | None = (lambda: learner.steps_done == 2) if stopper == "should_stop" else None
    written: list[Path] = []
    with pytest.raises(Cancelled, match="stopped before step 3 of 5 was learned from"):
        run(learner, 5, checkpoint=tmp_path / "state", on_checkpoint=written.append, should_stop=stop)
    assert learner.saved == [[0, 1]]
    assert written == [tmp_path / "state"]


def test_a_checkpoint_is_written_when_its_interval_is_over(tmp_path: Path) -> None:
    often, never = Counter(), Counter()
    run(often, 3, checkpoint=tmp_path / "state", checkpoint_interval_seconds=0.0)
    run(never, 3, checkpoint=tmp_path / "state", checkpoint_interval_seconds=1e6)
    assert often.saved == [[0], [0, 1], [0, 1, 2]]
    assert never.saved == []


def test_every_epoch_plays_every_item_once() -> None:
    drawn = [n for step in range(6) for n in drawn_of_step(6, 4, 5, step)]
    epochs = [drawn[n : n + 6] for n in range(0, 24, 6)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
