"""JSON of trajectories and import reports; the bodies of requests come from `registry.trajectories.formats`."""

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from registry.models import Trajectory, TrajectoryReward
from registry.trajectories.formats.formats import FORMATS
from registry.trajectories.imports import MAX_REPORTED_LINES, ImportReport

_TRAJECTORY: dict[str, Any] = {"anyOf": [{"title": name, **each.schema} for name, each in FORMATS.items()]}
TRAJECTORY_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "anyOf": [
                    _TRAJECTORY,
                    {"type": "array", "items": _TRAJECTORY},
                    {
                        "type": "object",
                        "required": ["trajectories"],
                        "additionalProperties": False,
                        "properties": {"trajectories": {"type": "array", "items": _TRAJECTORY}},
                    },
                ]
            }
        }
    },
}
IMPORT_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        kind: {
            "schema": {
                "type": "string",
                "format": "binary",
                "description": "One trajectory a line, or a document of the format.",
            }
        }
        for kind in ("application/x-ndjson", "application/json", "application/x-protobuf", "application/gzip")
    },
}


class LineOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    line: int = Field(description="Line number from 1; in a JSON list, the place in it; of documents, their number")
    status: Literal["accepted", "duplicate", "refused"]
    id: uuid.UUID | None = Field(description="Id of the stored trajectory; null where refused")
    code: str | None = Field(description="Reason of a refusal, for programs; stable")
    reason: str | None = Field(description="Reason of a refusal, for people, with the place of the fault")


class WarnedLine(BaseModel):
    line: int = Field(description="Line number from 1; in a JSON list, the place in it; of documents, their number")
    code: str = Field(description="For programs; stable")
    reason: str


class ImportReportOut(BaseModel):
    accepted: int = Field(description="Stored by this request")
    duplicate: int = Field(description="Stored already, or earlier in the same file; nothing was added")
    refused: int
    held_out: int = Field(description="How many of the accepted ones are kept for evaluation and never trained on")
    complete: bool = Field(description="False if it was not read to its end; what was accepted is kept")
    stopped: str | None = Field(description="Why it was not: where the stream broke off, or what the file is instead")
    lines_read: int = Field(description="Lines that arrived whole, blank ones included; or documents, or items")
    refused_by_code: dict[str, int] = Field(description="Number of refused lines by code")
    lines: list[LineOut] = Field(
        description=f"Every refused line up to {MAX_REPORTED_LINES:,}; for JSON bodies the others too"
    )
    lines_left_out: int = Field(description="Refused lines beyond that limit")
    warned_by_code: dict[str, int] = Field(description="Number of warnings of accepted lines by code")
    warned: list[WarnedLine] = Field(
        description="Accepted lines that will hardly be learned from or judged on by default settings, "
        f"{MAX_REPORTED_LINES:,} at most"
    )
    warnings: list[str] = Field(
        description="What was warned of, summed up, and problems of a whole task that got many of the lines, such as "
        "that most of it begins alike and so is held out as one, or not at all"
    )

    @classmethod
    def of(cls, report: ImportReport, *, lines_read: int, stopped: str | None = None) -> "ImportReportOut":
        return cls(
            accepted=report.counts["accepted"],
            duplicate=report.counts["duplicate"],
            refused=report.counts["refused"],
            held_out=report.held_out,
            complete=stopped is None,
            stopped=stopped,
            lines_read=lines_read,
            refused_by_code=dict(sorted(report.refused_by_code.items())),
            lines=[LineOut.model_validate(line) for line in report.lines],
            lines_left_out=report.lines_left_out,
            warned_by_code=dict(sorted(report.warned_by_code.items())),
            warned=[WarnedLine(line=line, code=found.code, reason=found.reason) for line, found in report.warned],
            warnings=report.warnings,
        )


class TrajectorySummary(BaseModel):
    id: uuid.UUID
    task: str
    trajectory_id: str | None
    session_id: str | None
    reward: float | None
    reward_source: str | None
    success: bool | None
    adapter_version: str | None
    metadata: dict[str, Any]
    held_out: bool = Field(description="Kept for evaluation, never trained on")
    tokens: int = Field(description="Longest supervised prompt plus answer")
    content_hash: str = Field(description="Equal content in one task is stored once")
    created_at: datetime

    @classmethod
    def of(cls, row: Trajectory) -> "TrajectorySummary":
        return cls(**_summary(row))


class TrajectoryOut(TrajectorySummary):
    messages: list[Any]
    tools: list[Any] | None
    sampled: list[Any] | None = Field(
        description="Of a recorded run, by assistant turn: token ids, log probabilities, settings (docs/recording.md)"
    )

    @classmethod
    def of(cls, row: Trajectory) -> "TrajectoryOut":
        return cls(**_summary(row), messages=row.messages, tools=row.tools, sampled=row.sampled)


class GivenReward(BaseModel):
    source: str = Field(description="`upload` where an upload named none")
    reward: float
    completion_id: str | None = Field(description="The answer that was rewarded; null where the whole was")
    comment: str
    actor: str
    feedback: int | None = Field(description="`id` of the feedback that gave it")
    at: datetime

    @classmethod
    def of(cls, row: TrajectoryReward) -> "GivenReward":
        return cls(
            source=row.source,
            reward=row.reward,
            completion_id=row.completion_id,
            comment=row.feedback.comment if row.feedback else row.comment,
            actor=row.actor,
            feedback=row.feedback_seq,
            at=row.at,
        )


class RewardedTrajectory(TrajectoryOut):
    rewards: list[GivenReward] = Field(description="All that were given, in order of arrival")

    @classmethod
    def of_rewarded(cls, row: Trajectory, rewards: Sequence[TrajectoryReward]) -> "RewardedTrajectory":
        given = [GivenReward.of(reward) for reward in rewards]
        shown = {"messages": row.messages, "tools": row.tools, "sampled": row.sampled}
        return cls(**_summary(row), **shown, rewards=given)


def _summary(row: Trajectory) -> dict[str, Any]:
    return {
        "id": row.id,
        "task": row.task.name,
        "trajectory_id": row.trajectory_id,
        "session_id": row.session_id,
        "reward": row.reward,
        "reward_source": row.reward_source,
        "success": row.success,
        "adapter_version": row.adapter_version,
        "metadata": row.details,
        "held_out": row.held_out,
        "tokens": row.tokens,
        "content_hash": row.content_hash,
        "created_at": row.created_at,
    }
