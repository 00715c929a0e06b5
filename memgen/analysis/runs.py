"""One run of a version over items: every answer with its score, how it failed, and what was woven.

Runs that are compared answer the same items in the same order, greedily, so they differ by what was changed; in
bfloat16 also by the company that answers have in a batch, as everywhere (`memgen.evaluation.accuracy`). Some batches
are answered at a time, so that latents of all items are never held together.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from memgen.analysis.failures import FailureType, Judge, failure_of
from memgen.analysis.items import ReadAnalysisItem
from memgen.config_mapping import require
from memgen.errors import ConfigError
from memgen.evaluation.accuracy import Subject, subjects_of
from memgen.evaluation.grading import ItemScore
from memgen.generation.engine import generate_all
from memgen.generation.requests import Decision, Generation, GenerationRequest
from memgen.memory.host import AdapterHost
from memgen.tasks.graders import Grader, make_grader

_BATCHES_TOGETHER = 4
"""Enough that answers of unequal length seldom wait for the longest."""
Change = Callable[[int, GenerationRequest], GenerationRequest]
"""What a run changes of the request of the item at a place."""


@dataclass(frozen=True)
class AnalysisRun:
    """How an analysis answers items; the same for all that is compared.

    Raises:
        ConfigError: a value is outside its range.
    """

    seed: int = 0
    """Seed of every draw, 0 or more."""
    batch_size: int = 32
    judge: Judge | None = None
    """Labels wrong answers in place of the rules (`memgen.analysis.failures.failure_of`)."""
    on_progress: Callable[[str, int, int], None] | None = None
    """Called with (phase, items done, items of the phase) as answers end. What it raises ends the analysis."""

    def __post_init__(self) -> None:
        require(self.seed >= 0, f"seed is {self.seed}; expected 0 or more")
        require(self.batch_size >= 1, f"batch_size is {self.batch_size}; expected at least 1")


@dataclass(frozen=True)
class Outcome:
    """What became of one item in one run."""

    item: ReadAnalysisItem
    score: ItemScore
    failure: FailureType | None
    """None if it is right, or was left out."""
    decisions: tuple[Decision, ...] = ()

    @property
    def judged(self) -> bool:
        return not self.score.left_out

    @property
    def right(self) -> bool:
        """Whether it has the full score: partial credit is no right answer."""
        return self.judged and self.score.score >= 1.0

    @property
    def woven(self) -> int:
        """Latents that were inserted."""
        return sum(decision.latents for decision in self.decisions)

    @property
    def insertions(self) -> int:
        return sum(decision.invoked for decision in self.decisions)


def run_items(
    host: AdapterHost,
    memories: Sequence[str | None],
    items: Sequence[ReadAnalysisItem],
    run: AnalysisRun,
    *,
    phase: str,
    change: Change = lambda _, request: request,
) -> Iterator[list[Outcome]]:
    """Answer the items, each with the memory at its place (None: the bare base). Outcomes come some at a time, in the
    order of the items.

    Raises:
        ConfigError: there are no items, or not as many memories as items.
        UnknownGrader, SandboxUnavailable: as `memgen.evaluation.accuracy.score_items`.
    """
    if not items or len(memories) != len(items):
        raise ConfigError(f"got {len(items)} items and {len(memories)} memories; expected one or more, and as many")
    graders = {item.item.task: make_grader(item.item.grader) for item in items}
    size = run.batch_size * _BATCHES_TOGETHER
    for start in range(0, len(items), size):
        some = items[start : start + size]
        on_done = partial(_report, run, phase, start, len(items))
        changed = partial(_moved, change, start)
        yield _answer(host, memories[start : start + size], some, run, graders, changed, on_done)
        on_done(len(some))


def _moved(change: Change, start: int, place: int, request: GenerationRequest) -> GenerationRequest:
    return change(start + place, request)


def _report(run: AnalysisRun, phase: str, before: int, items: int, done: int) -> None:
    if run.on_progress:
        run.on_progress(phase, before + done, items)


def _answer(
    host: AdapterHost,
    memories: Sequence[str | None],
    items: Sequence[ReadAnalysisItem],
    run: AnalysisRun,
    graders: dict[str, Grader],
    change: Change,
    on_done: Callable[[int], None],
) -> list[Outcome]:
    places = [place for place, item in enumerate(items) if not item.read.trouble]
    subjects = subjects_of(host, [memories[place] for place in places], [items[place].read for place in places])
    requests = [change(place, subject.request()) for place, subject in zip(places, subjects, strict=True)]
    answers = generate_all(host, requests, batch_size=run.batch_size, on_done=on_done)
    found = {
        place: _outcome(items[place], subject, answer, graders[items[place].item.task], run.judge)
        for place, subject, answer in zip(places, subjects, answers, strict=True)
    }
    return [found.get(place) or _unread(item) for place, item in enumerate(items)]


def _outcome(
    item: ReadAnalysisItem, subject: Subject, answer: Generation, grade: Grader, judge: Judge | None
) -> Outcome:
    score = subject.score(grade, answer.text)
    if score.left_out:
        return Outcome(item, score, None)
    wrong = score.score < 1.0
    cut_off = answer.finish_reason == "length"
    failure = failure_of(item.item, answer.text, cut_off=cut_off, judge=judge) if wrong else None
    return Outcome(item, score, failure, answer.decisions)


def _unread(item: ReadAnalysisItem) -> Outcome:
    return Outcome(item, ItemScore(0.0, "", item.read.trouble, True), None)
