"""`client.loops` and `.schedules`: what makes an adapter learn by itself."""

from typing import Unpack

from memgen_client.answers import one, page, rows
from memgen_client.calls import Call, ModeT, Noun, Pages, keyed, many, once
from memgen_client.models.loops import (
    Loop,
    LoopChange,
    LoopDeleted,
    LoopReport,
    LoopSetUp,
    Schedule,
    ScheduleEdit,
    ScheduleRun,
)
from memgen_client.models.rows import Page, Rows
from memgen_client.options import LoopOptions, ScheduleChange, ScheduleOptions
from memgen_client.paths import path


class Loops(Noun[ModeT]):
    @once
    def create(self, adapter: str, task: str, **options: Unpack[LoopOptions]) -> Call[LoopSetUp]:
        """Set it up; `setup` in the reply says what was made, changed or kept. Again it is harmless."""
        body = {"adapter": adapter, "task": task, **options}
        return Call("POST", path("loops"), one(LoopSetUp), body=body, harmless=True)

    @once
    def list(self) -> Call[Rows[Loop]]:
        return Call("GET", path("loops"), rows(Loop))

    @once
    def get(self, name: str) -> Call[LoopReport]:
        """What it did in the last day, week and in all, what waits, and why not."""
        return Call("GET", path("loops", name), one(LoopReport))

    @once
    def pause(self, name: str) -> Call[Loop]:
        """Start no more trainings until it is resumed."""
        return Call("POST", path("loops", name, "pause"), one(Loop))

    @once
    def resume(self, name: str) -> Call[Loop]:
        """Let it go on; failures and silences are counted anew."""
        return Call("POST", path("loops", name, "resume"), one(Loop))

    @once
    def delete(self, name: str) -> Call[LoopDeleted]:
        """`stays` in the reply says what is left."""
        return Call("DELETE", path("loops", name), one(LoopDeleted))

    @once
    def history(self, name: str, *, limit: int = 50, cursor: str | None = None) -> Call[Page[LoopChange]]:
        """A page of its changes, newest first."""
        return _changes(name).at(cursor, limit)

    @many
    def all_history(self, name: str) -> Pages[LoopChange]:
        """Every change, newest first."""
        return Pages(_changes(name))


class Schedules(Noun[ModeT]):
    @once
    def create(
        self,
        name: str,
        adapter: str,
        task: str,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> Call[Schedule]:
        """Each run is an ordinary training that goes on from the champion of that moment."""
        body = {"name": name, "adapter": adapter, "task": task, **options}
        return Call("POST", path("schedules"), one(Schedule), body=body, headers=keyed(idempotency_key))

    @once
    def list(self) -> Call[Rows[Schedule]]:
        """All schedules with their next runs."""
        return Call("GET", path("schedules"), rows(Schedule))

    @once
    def get(self, name: str) -> Call[Schedule]:
        return Call("GET", path("schedules", name), one(Schedule))

    @once
    def change(self, name: str, **changes: Unpack[ScheduleChange]) -> Call[Schedule]:
        """What is left out stays."""
        return Call("PATCH", path("schedules", name), one(Schedule), body=changes)

    @once
    def delete(self, name: str) -> Call[Schedule]:
        """Its jobs stay, and its name is free again."""
        return Call("DELETE", path("schedules", name), one(Schedule))

    @once
    def runs(self, name: str, *, limit: int = 50, cursor: str | None = None) -> Call[Page[ScheduleRun]]:
        """A page, newest first: jobs started, and why none was."""
        return _runs(name).at(cursor, limit)

    @many
    def all_runs(self, name: str) -> Pages[ScheduleRun]:
        """Every run, newest first."""
        return Pages(_runs(name))

    @once
    def history(self, name: str) -> Call[Rows[ScheduleEdit]]:
        """Who changed it, oldest first."""
        return Call("GET", path("schedules", name, "history"), rows(ScheduleEdit))


def _changes(name: str) -> Call[Page[LoopChange]]:
    return Call("GET", path("loops", name, "history"), page(LoopChange))


def _runs(name: str) -> Call[Page[ScheduleRun]]:
    return Call("GET", path("schedules", name, "runs"), page(ScheduleRun))
