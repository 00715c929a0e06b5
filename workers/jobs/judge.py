"""The job `judge`: a judge scores what waits for it in a task.

A case is one trajectory, or a group that begins alike and is ranked in two orders. Calls are reserved before they are
made, answers recorded as they come, and judgements a case at a time, so a killed job goes on where it was. What one
case can't be judged for is its own finding; only a model that is away, or answers nobody, ends the job.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from registry import jobs
from registry.database import one_of, transaction
from registry.errors import Invalid
from registry.job_requests import JudgeTrajectories
from registry.judging import calls
from registry.judging.answers import ReadVerdict, read_answer
from registry.judging.calls import Budget, JudgeQuestion, Spent
from registry.judging.judgements import CaseFinding, record_finding
from registry.judging.judges import RELATIVE, JudgeSettings, get_judge, usable_upstream
from registry.judging.prompts import JudgedRun, JudgePrompt, JudgingTerms, ranking_prompt, score_prompt
from registry.judging.ranking import rank_rewards
from registry.judging.ticks import DONE, SPENT, UNREADABLE
from registry.judging.waiting import Case, Wanted, find_cases
from registry.models import Job, Judge, Trajectory
from registry.tasks import get_task
from registry.trajectories.holdout import first_answer
from registry.upstreams import is_upstream_model
from registry.wording import counted
from workers.judge_models import BATCH, Ask, Build, JudgeModel
from workers.runner import Running
from workers.upstream_judge import UpstreamJudge

MakeJudge = Callable[[Session, Job, JudgeTrajectories, JudgeSettings], JudgeModel]
"""Makes the judge of a job whose model is the base, or a version."""

_HOPELESS = 10
"""A job whose first answers were so many and none of use goes on no further."""


@dataclass(frozen=True)
class _Judging:
    judge: Judge
    request: JudgeTrajectories
    wanted: Wanted
    shared_turns: int
    budget: Budget


@dataclass
class _PromptedCase:
    """A case with its questions, and what was answered so far."""

    case: Case
    prompts: tuple[JudgePrompt, ...]
    """One, or one for each order; empty if the case can't be shown."""
    tokens: tuple[int, ...] = ()
    read: dict[str, ReadVerdict] = field(default_factory=dict)
    """Answers by the prompt's hash."""
    refusal: str = ""
    tries: dict[str, int] = field(default_factory=dict)
    calls: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0

    def take(self, prompt: JudgePrompt, read: ReadVerdict | None, prompt_tokens: int, answer_tokens: int) -> None:
        """Count an answer; None is one that could not be read."""
        self.calls += 1
        self.prompt_tokens += prompt_tokens
        self.answer_tokens += answer_tokens
        if read is None:
            self.tries[prompt.hash] = self.tries.get(prompt.hash, 0) + 1
        else:
            self.read[prompt.hash] = read

    def open(self) -> list[tuple[JudgePrompt, int]]:
        """Prompts that are to be asked, with their tokens."""
        if self.refusal:
            return []
        return [
            (prompt, tokens)
            for prompt, tokens in zip(self.prompts, self.tokens, strict=True)
            if prompt.hash not in self.read and self.tries.get(prompt.hash, 0) < calls.TRIES
        ]


def run(running: Running, own_judge: MakeJudge | None = None) -> dict[str, Any]:
    """Returns counts by state of judgement, `calls`, `tokens`, and `stopped`: why it ended.

    Args:
        own_judge: None in a process without a model, where only upstreams judge.
    """
    with transaction(running.services.sessions) as session:
        work, cases, asker = _begin(running, own_judge, session)
    counts: dict[str, int] = {}
    stopped = DONE
    for start in range(0, len(cases), BATCH):
        running.check()
        prompted = _prompts(running, work, asker, cases[start : start + BATCH])
        enough = _ask_all(running, work, asker, prompted)
        for each in prompted:
            finding = _finding(work, each)
            if finding is None:
                continue
            with transaction(running.services.sessions) as session:
                made = record_finding(session, work.judge, running.job_id, finding)
            counts[finding.state] = counts.get(finding.state, 0) + len(made)
        running.progress("judge", {"done": min(start + BATCH, len(cases)), "of": len(cases), **counts})
        if not enough:
            stopped = SPENT
            break
        if _is_hopeless(running):
            stopped = UNREADABLE
            break
    return _end(running, work, counts, stopped)


def _begin(running: Running, own_judge: MakeJudge | None, session: Session) -> tuple[_Judging, list[Case], JudgeModel]:
    job = session.get_one(Job, running.job_id)
    request = jobs.request_as(job, JudgeTrajectories)
    judge = get_judge(session, job.project_id, request.judge)
    task = get_task(session, job.project_id, request.task)
    wanted = Wanted(
        judge,
        task.id,
        request.up_to,
        request.after,
        request.unrewarded,
        request.held_out,
        job.id if request.again else None,
    )
    work = _Judging(judge, request, wanted, task.shared_turns, Budget(request.max_calls, request.max_tokens))
    # A case costs a call at least, so the budget bounds what is looked up.
    cases = find_cases(session, wanted, request.max_calls + 1)
    if is_upstream_model(request.model):
        upstream, name = usable_upstream(session, running.services.settings, job.project_id, request.model)
        return work, cases, UpstreamJudge(upstream, name, JudgeSettings.of(judge))
    if own_judge is None:
        raise RuntimeError(f"job {job.id}: {request.model!r} is to judge, and this process has no model")
    return work, cases, own_judge(session, job, request, JudgeSettings.of(judge))


def _prompts(running: Running, work: _Judging, asker: JudgeModel, cases: Sequence[Case]) -> list[_PromptedCase]:
    with transaction(running.services.sessions) as session:
        rows = session.query(Trajectory).where(one_of(Trajectory.id, [each for case in cases for each in case]))
        by_id = {row.id: row for row in rows}
    made = []
    for case in cases:
        found = [by_id[each] for each in case if each in by_id]
        if len(found) < len(case):  # deleted since: what is left of a group waits for the next job
            continue
        builds = _builds(work, found)
        fitted = [fit for build in builds if (fit := asker.fit(build)) is not None]
        if len(fitted) < len(builds) or (work.judge.too_long == "refuse" and any(_is_cut(one) for one, _ in fitted)):
            made.append(_PromptedCase(case, ()))
        else:
            made.append(_PromptedCase(case, tuple(one for one, _ in fitted), tuple(tokens for _, tokens in fitted)))
    hashes = [prompt.hash for each in made for prompt in each.prompts]
    with transaction(running.services.sessions) as session:
        known = calls.known_answers(session, work.judge.id, work.request.model, hashes)
        tries = calls.tries_made(session, running.job_id, hashes)
    for each in made:
        for prompt in each.prompts:
            each.tries[prompt.hash] = tries.get(prompt.hash, 0)
            if (answered := known.get(prompt.hash)) is not None:
                each.take(prompt, answered.verdict, answered.prompt_tokens, answered.answer_tokens)
    return made


def _is_cut(prompt: JudgePrompt) -> bool:
    return prompt.left_out_characters > 0


def _builds(work: _Judging, rows: Sequence[Trajectory]) -> list[Build]:
    judge = work.judge
    terms = JudgingTerms(judge.id, judge.rubric, judge.scale, judge.max_answer_tokens)
    if judge.kind != RELATIVE:
        run_ = JudgedRun(rows[0].id, rows[0].messages, rows[0].tools)
        return [partial(score_prompt, terms, run_)]
    begin = first_answer(rows[0].messages, work.shared_turns) or 0
    shared = rows[0].messages[:begin]
    runs = []
    for row in rows:
        own = first_answer(row.messages, work.shared_turns) or 0
        runs.append(JudgedRun(row.id, row.messages[own:], row.tools))
    return [_ranking_build(terms, runs, shared, 0), _ranking_build(terms, runs[::-1], shared, 1)]


def _ranking_build(terms: JudgingTerms, runs: Sequence[JudgedRun], shared: Sequence[Any], order: int) -> Build:
    return lambda characters: ranking_prompt(terms, runs, shared, characters, order=order)


def _ask_all(running: Running, work: _Judging, asker: JudgeModel, prompted: Sequence[_PromptedCase]) -> bool:
    """Ask what is not answered yet, and once more what could not be read. False if the budget was too small."""
    enough = True
    for _ in range(calls.TRIES):
        questions = [(each, prompt, tokens) for each in prompted for prompt, tokens in each.open()]
        while questions and enough:
            batch, questions = questions[:BATCH], questions[BATCH:]
            enough = _ask(running, work, asker, batch)
    return enough


def _ask(
    running: Running, work: _Judging, asker: JudgeModel, batch: Sequence[tuple[_PromptedCase, JudgePrompt, int]]
) -> bool:
    running.check()
    most = work.judge.max_answer_tokens
    with transaction(running.services.sessions) as session:
        job = session.get_one(Job, running.job_id)
        questions = [JudgeQuestion(prompt.hash, each.case, tokens, most) for each, prompt, tokens in batch]
        made = calls.reserve(session, job, work.judge.id, work.request.model, questions, work.budget)
    called = batch[: len(made)]
    asks = [Ask(prompt, tokens, each.tries.get(prompt.hash, 0) > 0) for each, prompt, tokens in called]
    heard = asker.ask(asks, running.check) if asks else []
    for call_id, (each, prompt, tokens), answer in zip(made, called, heard, strict=True):
        read = None if answer.refusal else read_answer(answer.text, prompt)
        counted = (
            tokens if answer.prompt_tokens is None else answer.prompt_tokens,
            most if answer.answer_tokens is None else answer.answer_tokens,
        )
        with transaction(running.services.sessions) as session:
            calls.record_answer(
                session,
                call_id,
                read,
                refused=bool(answer.refusal),
                prompt_tokens=counted[0],
                answer_tokens=counted[1],
            )
        each.take(prompt, read, *counted)
        each.refusal = each.refusal or answer.refusal
    return len(called) == len(batch)


def _finding(work: _Judging, each: _PromptedCase) -> CaseFinding | None:
    """What came of a case; None if it has not been asked to the end."""
    spent = Spent(each.calls, each.prompt_tokens, each.answer_tokens)
    made = partial(
        CaseFinding,
        each.case,
        model=work.request.model,
        prompt_hashes=tuple(prompt.hash for prompt in each.prompts),
        spent=spent,
    )
    if not each.prompts:
        return made(state="too_long", reason="it is longer than the judge takes")
    if each.refusal:
        return made(state="refused", reason=each.refusal)
    if each.open():
        return None
    if len(each.read) < len(each.prompts):
        return made(state="unparsable", reason=f"asked {calls.TRIES} times, no answer was one verdict")
    return _scored(work, each, made)


def _scored(work: _Judging, each: _PromptedCase, made: Callable[..., CaseFinding]) -> CaseFinding:
    read = [each.read[prompt.hash] for prompt in each.prompts]
    cut = {
        "left_out_messages": max(prompt.left_out_messages for prompt in each.prompts),
        "left_out_characters": max(prompt.left_out_characters for prompt in each.prompts),
    }
    noted = cut if cut["left_out_characters"] else {}
    if read[0].score is not None:
        verdict = {"score": read[0].score, "scale": work.judge.scale, **noted}
        score = read[0].score / work.judge.scale
        return made(state="scored", reason=read[0].reason, scores=(score,), verdicts=(verdict,))
    last = len(each.case) - 1
    second = [last - place for place in read[1].ranking]  # the runs were shown the other way round
    ranked = rank_rewards(read[0].ranking, second)
    verdicts = tuple(
        {
            "ranks": [read[0].ranking.index(place) + 1, second.index(place) + 1],
            "of": len(each.case),
            "disagreement": ranked.disagreement,
            **noted,
        }
        for place in range(len(each.case))
    )
    reason = read[0].reason
    if ranked.rewards is None:
        return made(state="undecided", reason=f"the two orders disagree; the first said: {reason}", verdicts=verdicts)
    return made(state="scored", reason=reason, scores=ranked.rewards, verdicts=verdicts)


def _is_hopeless(running: Running) -> bool:
    """Whether no answer of the job was of any use, and there were some. Raises Invalid if all were refused."""
    with transaction(running.services.sessions) as session:
        states = calls.states_of(session, running.job_id)
    useless = states.get("unparsable", 0) + states.get("refused", 0)
    if states.get("answered", 0) or useless < _HOPELESS:
        return False
    if states.get("refused", 0) == useless:
        raise Invalid(
            f"the judge's model refused the first {useless} questions, and none was answered; the judgements say why"
        )
    return True


def _end(running: Running, work: _Judging, counts: dict[str, int], stopped: str) -> dict[str, Any]:
    with transaction(running.services.sessions) as session:
        spent = calls.spent_by(session, running.job_id)
    result = {**counts, "calls": spent.calls, "tokens": spent.tokens, "model": work.request.model, "stopped": stopped}
    without = sum(count for state, count in counts.items() if state != "scored")
    if without:
        shown = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()) if state != "scored")
        message = f"no score for {counted(without, 'trajectory')}: {shown}; their judgements say why"
        running.event(message, counts, level="warning")
    if stopped == SPENT:
        running.event("the budget is spent before all was judged; what is left waits for another job", level="warning")
    if stopped == UNREADABLE:
        running.event("no answer was a verdict; the judge's model does not do what it is asked", level="warning")
    return result
