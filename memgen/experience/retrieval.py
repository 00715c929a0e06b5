"""Search in past experience: entries of a pool for a new prompt, by BM25, by the base's own states, or by both.

    bm25     Robertson's ranking of words, in Lucene's variant (the library bm25s)
    states   cosine of the base's hidden states, from which the pool's mean is taken: states of a language model all
             share one large direction, and without it they differ (Mu and Viswanath, arXiv 1702.01417)
    fused    sum of 1 / (60 + rank) over both rankings (Cormack et al., SIGIR 2009)

ExpeL (arXiv 2308.10144) shows the reasoner past successes by similarity of the task, and all insights there are. Here
both are searched, for what is found goes into a cue of few tokens (`memgen.experience.cue`). It knows no weaver.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import bm25s
import torch
from torch import Tensor

from memgen.backbone.loading import Backbone
from memgen.backbone.states import text_states
from memgen.errors import ArtifactMismatch, ConfigError
from memgen.experience.pool import Entry, EntryStates, Experience, Insight, PastTrajectory

METHODS = ("bm25", "states", "fused")
_RANK_OFFSET = 60
_WORDS = r"(?u)\b\w+\b"
"""Single digits and letters too: in small puzzles they tell one item from another."""


@dataclass(frozen=True, eq=False)
class Query:
    """A search for entries.

    Raises:
        ConfigError: a number is negative.
    """

    prompt: str
    task: str | None = None
    """Look among this task's entries only; None is all."""
    state: Tensor | None = None
    """`(H,)` of the prompt, of the pool's kind (`text_states`); `states` and `fused` need it."""
    trajectories: int = 2
    """How many at most."""
    insights: int = 3
    min_reward: float | None = None
    """Trajectories with less are left out; None takes failures too."""
    leave_one_out: bool = True
    """Never find what stems from the very same prompt: no trajectory of it, no insight distilled from one. Off, a
    prompt may find its own earlier answer, which in training would show the target."""
    without: Collection[str] = ()
    """Ids of further entries never to find."""

    def __post_init__(self) -> None:
        for name in ("trajectories", "insights"):
            value = getattr(self, name)
            if value < 0:
                raise ConfigError(f"{name} is {value}; expected 0 or more")


@dataclass(frozen=True)
class Hit:
    entry: Entry
    score: float
    """BM25's score, a cosine, or the fused sum; more is better, and comparable within one search only."""


class Retriever:
    """Searches one pool. Made once for many queries."""

    def __init__(self, pool: Experience, method: str = "bm25") -> None:
        """Raises ConfigError if the method is unknown, or needs states that the pool lacks."""
        if method not in METHODS:
            raise ConfigError(f"retrieval method is {method!r}; expected one of {METHODS}")
        if method != "bm25" and pool.states is None:
            raise ConfigError(f"retrieval method {method!r} needs states; give the pool some by `with_states`")
        self.pool, self.method = pool, method
        self._entries = pool.entries
        self._prompts = [{same_prompt(prompt) for prompt in entry.prompts} for entry in pool.entries]
        self._index: bm25s.BM25 | None = None
        words = _words([entry.searched_text for entry in pool.entries])
        if method != "states" and any(words):
            self._index = bm25s.BM25(method="lucene")
            self._index.index(words, show_progress=False)

    def search(self, query: Query) -> tuple[Hit, ...]:
        """Trajectories, then insights, the best first. Equal scores keep the pool's order.

        A trajectory with a score of 0 or less is no hit: it shares no word with the prompt, or is less like it than the
        mean of the pool. Insights are rules for any prompt, and are hits all the same.

        Raises:
            ConfigError: the query lacks a state.
            ArtifactMismatch: its state is another base's.
        """
        allowed = self._allowed(query)
        cases = [n for n in allowed if isinstance(self._entries[n], PastTrajectory)]
        rules = [n for n in allowed if isinstance(self._entries[n], Insight)]
        trajectories = [hit for hit in self._ranked(cases, query) if hit.score > 0]
        return (*trajectories[: query.trajectories], *self._ranked(rules, query)[: query.insights])

    def _allowed(self, query: Query) -> list[int]:
        """Numbers of the entries that may be found."""
        left_out = same_prompt(query.prompt) if query.leave_one_out else None
        least = -math.inf if query.min_reward is None else query.min_reward
        return [
            number
            for number, entry in enumerate(self._entries)
            if (query.task is None or entry.task == query.task)
            and left_out not in self._prompts[number]
            and entry.entry_id not in query.without
            and (isinstance(entry, Insight) or entry.reward >= least)
        ]

    def _ranked(self, numbers: Sequence[int], query: Query) -> list[Hit]:
        scores = self._scores(numbers, query) if numbers else []
        order = sorted(range(len(numbers)), key=lambda n: -scores[n])
        return [Hit(self._entries[numbers[n]], scores[n]) for n in order]

    def _scores(self, numbers: Sequence[int], query: Query) -> list[float]:
        if self.method == "bm25":
            return self._word_scores(numbers, query)
        if self.method == "states":
            return self._state_scores(numbers, query)
        return fused_scores(self._word_scores(numbers, query), self._state_scores(numbers, query))

    def _word_scores(self, numbers: Sequence[int], query: Query) -> list[float]:
        [words] = _words([query.prompt])
        if self._index is None or not words:
            return [0.0] * len(numbers)
        scores = self._index.get_scores(words)
        return [float(scores[number]) for number in numbers]

    def _state_scores(self, numbers: Sequence[int], query: Query) -> list[float]:
        states = self.pool.states
        if states is None or query.state is None:
            raise ConfigError(f"retrieval method {self.method!r} needs the prompt's state; give the query one")
        if query.state.shape != states.vectors.shape[1:]:
            raise ArtifactMismatch(
                f"the prompt's state is {tuple(query.state.shape)}, the pool's are {tuple(states.vectors.shape[1:])}; "
                f"compute it with base {states.base_revision}"
            )
        mean = states.vectors.mean(dim=0)
        centred = query.state.detach().float().cpu() - mean
        found = torch.cosine_similarity(states.vectors[list(numbers)] - mean, centred[None], dim=1)
        return [float(value) for value in found]


def fused_scores(*rankings: Sequence[float]) -> list[float]:
    """Reciprocal rank fusion of scores of the same entries: the sum over the rankings of 1 / (60 + rank), from rank 1.

    A score of 0 or less is no hit of its ranking. For `[3, 1, 0]` and `[0.1, 0.9, 0.5]`: `[1/61 + 1/63, 1/62 + 1/61,
    1/62]`.
    """
    totals = [0.0] * len(rankings[0])
    for scores in rankings:
        order = sorted((n for n, score in enumerate(scores) if score > 0), key=lambda n: -scores[n])
        for rank, number in enumerate(order, start=1):
            totals[number] += 1 / (_RANK_OFFSET + rank)
    return totals


def same_prompt(prompt: str) -> str:
    """Equal for prompts that differ in case and white space only."""
    return " ".join(prompt.casefold().split())


def with_states(pool: Experience, backbone: Backbone, *, kind: str = "mean") -> Experience:
    """The pool with a state of each entry, so that it can be searched by `states` and `fused`.

    Raises:
        ConfigError, PromptTooLong: raised by `text_states`.
    """
    vectors = text_states(backbone, [entry.searched_text for entry in pool.entries], kind=kind)
    return replace(pool, states=EntryStates(vectors, kind, backbone.revision))


def _words(texts: Sequence[str]) -> list[list[str]]:
    found: list[list[str]] = bm25s.tokenize(
        list(texts), token_pattern=_WORDS, stopwords="english", return_ids=False, show_progress=False
    )
    return found
