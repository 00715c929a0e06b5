"""`client.versions` and `.gates`: trained memories, compared, tagged, archived, moved; verdicts on them."""

from pathlib import Path
from typing import Literal

from memgen_client.answers import count, one, page, rows
from memgen_client.calls import Call, Download, ModeT, Noun, Pages, many, once
from memgen_client.content import Content, OnProgress
from memgen_client.models.analyses import Analysis
from memgen_client.models.jobs import Job
from memgen_client.models.rows import Page, Rows
from memgen_client.models.versions import (
    ComparedItem,
    Comparison,
    Decided,
    GateAudit,
    ImportedVersion,
    Version,
    VersionChange,
    VersionLineage,
    VersionState,
)
from memgen_client.paths import path

_ARCHIVE_SECONDS = 600.0


class Versions(Noun[ModeT]):
    @once
    def list(self, adapter: str, *, limit: int = 50, cursor: str | None = None) -> Call[Page[Version]]:
        """A page, oldest first."""
        return _versions(adapter).at(cursor, limit)

    @many
    def all(self, adapter: str) -> Pages[Version]:
        """Every version, oldest first."""
        return Pages(_versions(adapter))

    @once
    def get(self, adapter: str, number: int) -> Call[Version]:
        return Call("GET", _path(adapter, number), one(Version))

    @once
    def states(self, adapter: str, *, limit: int = 50, cursor: str | None = None) -> Call[Page[VersionState]]:
        """A page of tags, and of what is archived, withdrawn or purged; oldest first."""
        return _states(adapter).at(cursor, limit)

    @many
    def all_states(self, adapter: str) -> Pages[VersionState]:
        """The same of every version."""
        return Pages(_states(adapter))

    @once
    def lineage(self, adapter: str, number: int) -> Call[VersionLineage]:
        """What the version was made from, and what was made from it."""
        return Call("GET", _path(adapter, number, "lineage"), one(VersionLineage))

    @once
    def analysis(self, adapter: str, number: int) -> Call[Analysis]:
        """What the last job that analyzed the version has found; `jobs.analyze` starts one."""
        return Call("GET", _path(adapter, number, "analysis"), one(Analysis))

    @once
    def history(self, adapter: str, number: int) -> Call[Rows[VersionChange]]:
        """Who tagged, archived, withdrew, purged, restored, exported or imported it, oldest first."""
        return Call("GET", _path(adapter, number, "history"), rows(VersionChange))

    @once
    def compare(self, adapter: str, left: int, right: int) -> Call[Comparison]:
        params = {"left": left, "right": right}
        return Call("GET", path("adapters", adapter, "comparison"), one(Comparison), params=params)

    @once
    def tag(self, adapter: str, number: int, label: str) -> Call[VersionState]:
        return Call("PUT", _path(adapter, number, "tags", label), one(VersionState))

    @once
    def untag(self, adapter: str, number: int, label: str) -> Call[VersionState]:
        return Call("DELETE", _path(adapter, number, "tags", label), one(VersionState))

    @once
    def archive(self, adapter: str, number: int, *, reason: str = "") -> Call[VersionState]:
        """Hide a version that nothing refers to."""
        return Call("POST", _path(adapter, number, "archive"), one(VersionState), body={"reason": reason})

    @once
    def unarchive(self, adapter: str, number: int, *, reason: str = "") -> Call[VersionState]:
        return Call("POST", _path(adapter, number, "unarchive"), one(VersionState), body={"reason": reason})

    @once
    def export_file(self, adapter: str, number: int, target: str | Path) -> Call[int]:
        """Write the version as a file to `target`, which is whole or absent, and return its size in bytes."""
        return Download(
            "GET", _path(adapter, number, "export"), count("bytes"), target=Path(target), seconds=_ARCHIVE_SECONDS
        )

    @once
    def import_file(
        self, adapter: str, source: str | Path, *, on_progress: OnProgress | None = None
    ) -> Call[ImportedVersion]:
        """Importing the same again is harmless. `check_job` in the reply judges it by this installation's suites."""
        return Call(
            "POST",
            path("adapters", adapter, "versions", "import"),
            one(ImportedVersion),
            content=Content(Path(source), on_progress),
            headers={"Content-Type": "application/x-tar"},
            seconds=_ARCHIVE_SECONDS,
            harmless=True,
        )


class Gates(Noun[ModeT]):
    @once
    def get(self, adapter: str, version: int) -> Call[GateAudit]:
        """The verdict, its reasons, and the evidence on every task."""
        return Call("GET", _path(adapter, version, "gate"), one(GateAudit))

    @once
    def run(self, adapter: str, version: int) -> Call[Job]:
        """Queue a job that judges a version whose own job failed before its gate had run."""
        return Call("POST", _path(adapter, version, "gate"), one(Job))

    @once
    def items(
        self,
        adapter: str,
        version: int,
        task: str,
        *,
        flipped: Literal["better", "worse", "any"] | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Call[Page[ComparedItem]]:
        """A page of what champion and candidate answered, in the order of the suite."""
        return _items(adapter, version, task, flipped).at(cursor, limit)

    @many
    def all_items(
        self, adapter: str, version: int, task: str, *, flipped: Literal["better", "worse", "any"] | None = None
    ) -> Pages[ComparedItem]:
        """Every item of the suite, or every one that flipped."""
        return Pages(_items(adapter, version, task, flipped))

    @once
    def approve(self, adapter: str, version: int, *, reason: str = "", expected: int | None = None) -> Call[Decided]:
        """Make a version that waits the champion.

        Args:
            expected: the champion as you know it, 0 for none; by default the one that the gate compared with.
        """
        body = {"reason": reason, "expected_version": expected}
        return Call("POST", _path(adapter, version, "gate", "approve"), one(Decided), body=body)

    @once
    def reject(self, adapter: str, version: int, *, reason: str = "") -> Call[Decided]:
        """Turn a version that waits down, for good."""
        return Call("POST", _path(adapter, version, "gate", "reject"), one(Decided), body={"reason": reason})


def _path(adapter: str, number: int, *parts: str) -> str:
    return path("adapters", adapter, "versions", number, *parts)


def _versions(adapter: str) -> Call[Page[Version]]:
    return Call("GET", path("adapters", adapter, "versions"), page(Version))


def _states(adapter: str) -> Call[Page[VersionState]]:
    return Call("GET", path("adapters", adapter, "states"), page(VersionState))


def _items(adapter: str, version: int, task: str, flipped: str | None) -> Call[Page[ComparedItem]]:
    params = {"task": task, "flipped": flipped}
    return Call("GET", _path(adapter, version, "gate", "items"), page(ComparedItem), params=params)
