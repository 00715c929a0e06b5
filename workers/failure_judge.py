"""A judge's model, asked of which kind wrong answers are. Where it does not say, the rules of `memgen.analysis` do.

Its answers are kept by the question, without its words: another attempt, or another analysis, does not ask again.
"""

import uuid
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from memgen.analysis.failures import FailureType
from memgen.analysis.items import AnalysisItem
from registry.database import transaction
from registry.job_requests import AnalyzeVersion
from registry.judging import calls
from registry.judging.answers import ReadVerdict, read_answer
from registry.judging.calls import Budget, JudgeQuestion
from registry.judging.judges import JudgeSettings, find_model, get_judge, usable_upstream
from registry.judging.prompts import JudgedRun, JudgePrompt, JudgingTerms, kind_prompt
from registry.models import Job, Judge
from registry.upstreams import is_upstream_model
from registry.wording import counted
from workers.judge_models import Ask, JudgeModel
from workers.local_judge import LocalJudge
from workers.model import Model
from workers.runner import Running
from workers.upstream_judge import UpstreamJudge

KINDS: Mapping[FailureType, str] = {
    FailureType.PLANNING: "its steps hold, but lead to something else, or it began with another tool than was needed",
    FailureType.COMPOSITIONAL: "right steps that are miscalculated, put together wrongly, or only some of those needed",
    FailureType.TOOL_PARSING: "a call that can't be read, or that its tool does not take",
    FailureType.TOOL_RESPONSE: "what a tool has answered is ignored, misread, or asked for again",
    FailureType.ANSWER_FORMAT: "the right thing in another form than was asked for, nothing at all, or no end",
    FailureType.DEMAND: "something else than was asked for: words for a call, a call for words, a refusal, an echo",
    FailureType.THINK_ACT: "what was thought or worked out is not what is then answered or done",
    FailureType.OTHER: "wrong, and none of these",
}
"""What each kind is, as the judge's model is told."""


class FailureJudge:
    def __init__(self, running: Running, judge: Judge, model: str, asker: JudgeModel, max_calls: int) -> None:
        """`model` is the exact one, as calls record it."""
        self._running, self._judge, self._model, self._asker = running, judge, model, asker
        self._budget = Budget(max_calls)
        self._terms = JudgingTerms(judge.id, "", answer_tokens=judge.max_answer_tokens)
        self._kinds = {kind.value: meaning for kind, meaning in KINDS.items()}
        self._enough = True
        self.by_judge = 0
        """Wrong answers whose kind it has named."""
        self.by_rules = 0
        """Wrong answers whose kind the rules had to name."""

    def __call__(self, item: AnalysisItem, answer: str) -> str:
        """The kind of a wrong answer; empty where the rules are to say. Raises as `JudgeModel.ask`."""
        held_out = item.held_out
        run = JudgedRun(
            uuid.UUID(item.item_id), [*held_out.messages, {"role": "assistant", "content": answer}], held_out.tools
        )
        fitted = self._asker.fit(partial(kind_prompt, self._terms, run, held_out.reference.message, self._kinds))
        verdict = self._ask(run.id, *fitted) if fitted is not None else None
        if verdict is None:
            self.by_rules += 1
            return ""
        self.by_judge += 1
        return verdict.kind

    def report(self) -> dict[str, Any]:
        """Who named the kinds of wrong answers; a warning of the job where the rules had to."""
        if self.by_rules:
            why = "" if self._enough else f", the budget of {counted(self._budget.calls, 'call')} being spent"
            self._running.event(
                f"judge {self._judge.name!r} named the kind of {counted(self.by_judge, 'wrong answer')}, the rules the "
                f"kind of {self.by_rules}{why}",
                level="warning",
            )
        return {
            "judge": self._judge.name,
            "model": self._model,
            "by_judge": self.by_judge,
            "by_rules": self.by_rules,
        }

    def _ask(self, trajectory_id: uuid.UUID, prompt: JudgePrompt, tokens: int) -> ReadVerdict | None:
        sessions, most = self._running.services.sessions, self._judge.max_answer_tokens
        with transaction(sessions) as session:
            known = calls.known_answers(session, self._judge.id, self._model, [prompt.hash])
            tries = calls.tries_made(session, self._running.job_id, [prompt.hash]).get(prompt.hash, 0)
        if prompt.hash in known:
            return known[prompt.hash].verdict
        for number in range(tries, calls.TRIES):
            with transaction(sessions) as session:
                job = session.get_one(Job, self._running.job_id)
                question = JudgeQuestion(prompt.hash, (trajectory_id,), tokens, most)
                made = calls.reserve(session, job, self._judge.id, self._model, [question], self._budget)
            if not made:
                self._enough = False
                return None
            [heard] = self._asker.ask([Ask(prompt, tokens, number > 0)], self._running.check)
            read = None if heard.refusal else read_answer(heard.text, prompt)
            with transaction(sessions) as session:
                calls.record_answer(
                    session,
                    made[0],
                    replace(read, reason="") if read else None,
                    refused=bool(heard.refusal),
                    prompt_tokens=heard.prompt_tokens,
                    answer_tokens=heard.answer_tokens,
                )
            if read is not None or heard.refusal:
                return read
        return None


def failure_judge(running: Running, session: Session, request: AnalyzeVersion, model: Model) -> FailureJudge | None:
    """The judge that the request names; None if it names none.

    Raises:
        JudgeNotFound, UpstreamNotFound, VersionNotServable: it, or its model, is gone since.
    """
    if request.judge is None or request.judge_model is None:
        return None
    job = session.get_one(Job, running.job_id)
    judge = get_judge(session, job.project_id, request.judge)
    settings = JudgeSettings.of(judge)
    if is_upstream_model(request.judge_model):
        upstream, name = usable_upstream(session, running.services.settings, job.project_id, request.judge_model)
        asker: JudgeModel = UpstreamJudge(upstream, name, settings)
    else:
        found = find_model(session, job.project_id, request.judge_model)
        if found.adapter is not None:
            model.check_base(found.adapter)
        version = found.version

        def choose(prompts: Any) -> list[str | None]:
            return [each.memory for each in model.choices(version, prompts)]

        asker = LocalJudge(model.host, choose, settings)
    return FailureJudge(running, judge, request.judge_model, asker, request.max_calls)
