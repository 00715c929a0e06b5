"""The benchmark of judges: what it measures of judges whose worth is known."""

import json
from collections.abc import Callable, Sequence

import pytest

from bench.judges import RUBRIC, judge_task, make_pairs
from registry.judging.prompts import JudgePrompt, JudgingTerms
from workers.judge_models import Ask, Build, Heard

TASK = "reasoning-gym:chain_sum"
PAIRS = make_pairs(TASK, 9)
QUESTIONS = {str(pair.right.messages[0]["content"]): str(pair.right.messages[-1]["content"]) for pair in PAIRS}


class _Judge:
    """Prefers a run, or none, by a rule: the worth of a run that answers right is 1, of another 0."""

    def __init__(self, score: Callable[[bool], int], rank: Callable[[list[bool]], list[int]]) -> None:
        self._score, self._rank = score, rank

    def fit(self, build: Build) -> tuple[JudgePrompt, int] | None:
        prompt = build(10_000)
        return None if prompt is None else (prompt, 1)

    def ask(self, questions: Sequence[Ask], check: Callable[[], None]) -> list[Heard]:
        return [Heard(json.dumps(self._verdict(question.prompt))) for question in questions]

    def _verdict(self, prompt: JudgePrompt) -> dict[str, object]:
        lines = [json.loads(line) for line in prompt.messages[1]["content"].split("\n") if line.startswith("{")]
        wanted = QUESTIONS[lines[0]["content"]]
        right = [line["content"] == wanted for line in lines[1:]]
        verdict = {"id": prompt.code, "reason": "by rule"}
        if not prompt.labels:
            return {**verdict, "score": self._score(right[0])}
        return {**verdict, "ranking": [prompt.labels[place] for place in self._rank(right)]}


def _by_worth(right: list[bool]) -> list[int]:
    return sorted(range(len(right)), key=lambda place: not right[place])


@pytest.mark.parametrize(
    ("score", "rank", "agreement"),
    [
        (lambda right: 9 if right else 2, _by_worth, (1.0, 1.0)),
        (lambda right: 2 if right else 9, lambda right: _by_worth(right)[::-1], (0.0, 0.0)),
        (lambda right: 7, lambda right: list(range(len(right))), (0.5, 0.5)),
    ],
    ids=["knows", "knows and says the contrary", "always the same score, and the first place"],
)
def test_agreement_of_judges_that_are_known(
    score: Callable[[bool], int], rank: Callable[[list[bool]], list[int]], agreement: tuple[float, float]
) -> None:
    found = judge_task(_Judge(score, rank), JudgingTerms(PAIRS[0].right.id, RUBRIC), PAIRS)
    assert (found["pointwise"]["agreement"], found["relative"]["agreement"]) == agreement
    assert found["pointwise"]["unparsable"] == 0
    assert found["relative"]["undecided"] == found["pointwise"]["ties"] == float(agreement == (0.5, 0.5))


def test_a_wrong_run_is_wrong_by_the_task_s_own_grader() -> None:
    assert len(PAIRS) == 9
    for pair in PAIRS:
        assert pair.right.messages[:-1] == pair.wrong.messages[:-1]
        assert pair.right.messages[-1] != pair.wrong.messages[-1]
