"""Calls of a judge's model: reserved before they are made, counted, and kept until a judgement is made of them.

A job that is killed between an answer and its judgement finds the answer here when it goes on, and does not ask again.
Only questions that were under way when it died are asked twice; both count against its budget, as both may have cost.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from registry.clock import utc_now
from registry.judging.answers import ReadVerdict
from registry.models import Job, JudgeCall

TRIES = 2
"""An answer that can't be read is asked for once more."""


@dataclass(frozen=True)
class Budget:
    calls: int
    tokens: int | None = None


@dataclass(frozen=True)
class Spent:
    calls: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.answer_tokens


@dataclass(frozen=True)
class CallAnswer:
    """An answer that came, and what it cost."""

    verdict: ReadVerdict
    prompt_tokens: int
    answer_tokens: int


@dataclass(frozen=True)
class JudgeQuestion:
    """A prompt about to be asked, and what it may cost at most."""

    prompt_hash: str
    trajectory_ids: tuple[uuid.UUID, ...]
    prompt_tokens: int
    answer_tokens: int


def reserve(
    session: Session,
    job: Job,
    judge_id: uuid.UUID,
    model: str,
    questions: Sequence[JudgeQuestion],
    budget: Budget,
) -> list[uuid.UUID]:
    """Ids of the calls for as many of the questions, from the first on, as the job's budget still has room for."""
    spent = spent_by(session, job.id)
    calls, tokens, made = spent.calls, spent.tokens, []
    for question in questions:
        calls += 1
        tokens += question.prompt_tokens + question.answer_tokens
        if calls > budget.calls or (budget.tokens is not None and tokens > budget.tokens):
            break
        call = JudgeCall(
            id=uuid.uuid4(),
            judge_id=judge_id,
            job_id=job.id,
            trajectory_ids=list(question.trajectory_ids),
            model=model,
            prompt_hash=question.prompt_hash,
            state="sent",
            prompt_tokens=question.prompt_tokens,
            answer_tokens=question.answer_tokens,
        )
        session.add(call)
        made.append(call.id)
    session.flush()
    return made


def record_answer(
    session: Session,
    call_id: uuid.UUID,
    verdict: ReadVerdict | None,
    *,
    refused: bool = False,
    prompt_tokens: int | None = None,
    answer_tokens: int | None = None,
) -> None:
    """Record what came of a call. Tokens that nobody counted stay as they were reserved."""
    state = "refused" if refused else "unparsable" if verdict is None else "answered"
    counted = {"prompt_tokens": prompt_tokens, "answer_tokens": answer_tokens}
    session.execute(
        update(JudgeCall)
        .where(JudgeCall.id == call_id)
        .values(
            state=state,
            answer=None if verdict is None else _to_json(verdict),
            answered_at=utc_now(),
            **{name: count for name, count in counted.items() if count is not None},
        )
    )


def known_answers(session: Session, judge_id: uuid.UUID, model: str, hashes: Iterable[str]) -> dict[str, CallAnswer]:
    """Answers that came and of which no judgement was made, by the prompt's hash."""
    rows = session.scalars(
        select(JudgeCall).where(
            JudgeCall.judge_id == judge_id,
            JudgeCall.prompt_hash.in_(set(hashes)),
            JudgeCall.model == model,
            JudgeCall.answer.is_not(None),
        )
    )
    return {
        row.prompt_hash: CallAnswer(_from_json(row.answer), row.prompt_tokens, row.answer_tokens)
        for row in rows
        if row.answer is not None
    }


def tries_made(session: Session, job_id: uuid.UUID, hashes: Iterable[str]) -> dict[str, int]:
    """How often a job has asked a prompt and got an answer that was none, by the prompt's hash."""
    query = (
        select(JudgeCall.prompt_hash, func.count())
        .where(
            JudgeCall.job_id == job_id,
            JudgeCall.prompt_hash.in_(set(hashes)),
            JudgeCall.state.in_(("unparsable", "refused")),
        )
        .group_by(JudgeCall.prompt_hash)
    )
    return {row[0]: row[1] for row in session.execute(query)}


def use_answers(session: Session, judge_id: uuid.UUID, hashes: Iterable[str]) -> None:
    """Drop the words of calls of which a judgement has been made: it has them."""
    session.execute(
        update(JudgeCall)
        .where(JudgeCall.judge_id == judge_id, JudgeCall.prompt_hash.in_(set(hashes)))
        .values(answer=None)
    )


def spent_by(session: Session, job_id: uuid.UUID) -> Spent:
    """What a job has spent: a call that was not answered counts as what it may have cost."""
    return _sum(session, JudgeCall.job_id == job_id)


def spent_since(session: Session, judge_id: uuid.UUID, moment: datetime) -> Spent:
    return _sum(session, JudgeCall.judge_id == judge_id, JudgeCall.sent_at >= moment)


def states_of(session: Session, job_id: uuid.UUID) -> dict[str, int]:
    """How many of a job's calls are in each state."""
    query = select(JudgeCall.state, func.count()).where(JudgeCall.job_id == job_id).group_by(JudgeCall.state)
    return {row[0]: row[1] for row in session.execute(query)}


def _sum(session: Session, *conditions: Any) -> Spent:
    prompts, answers = func.sum(JudgeCall.prompt_tokens), func.sum(JudgeCall.answer_tokens)
    found = session.execute(select(func.count(), prompts, answers).where(*conditions)).one()
    return Spent(found[0], int(found[1] or 0), int(found[2] or 0))


def _to_json(verdict: ReadVerdict) -> dict[str, Any]:
    kind = {"kind": verdict.kind} if verdict.kind else {}
    return {"reason": verdict.reason, "score": verdict.score, "ranking": list(verdict.ranking), **kind}


def _from_json(stored: dict[str, Any]) -> ReadVerdict:
    return ReadVerdict(stored["reason"], stored["score"], tuple(stored["ranking"]), stored.get("kind", ""))
