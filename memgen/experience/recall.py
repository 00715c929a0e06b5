"""A memory's experience as text: what it was trained with, searched for a cue for its weaver.

The pool is a part of the memory and is saved in its artifact (`memgen.artifacts.artifact`), so a version is cued by the
same experience for ever, whatever is uploaded later. Which entries there are is the caller's to say.
"""

from collections.abc import Sequence

from torch import Tensor

from memgen.backbone.loading import Backbone
from memgen.backbone.states import text_states
from memgen.config import MemoryConfig
from memgen.experience.cue import NO_CUE, Cue, render_cue
from memgen.experience.pool import Entry, Experience, Insight, PastTrajectory, merged_insights, question_of
from memgen.experience.retrieval import Hit, Query, Retriever, with_states
from memgen.text.answers import ChatMessage

MOST_ENTRIES = 5_000
"""Trajectories that a memory keeps at most, the last ones: requests wait for one another's searches."""
MOST_INSIGHTS = 200
"""Insights that a memory keeps at most, the most important ones."""
_TRAJECTORIES = 8
"""Trajectories found at most; the cue's tokens usually end it before."""
_STATES = "mean"


class Recall:
    """Cues for conversations out of one pool. Immutable."""

    def __init__(self, backbone: Backbone, config: MemoryConfig, pool: Experience | None = None) -> None:
        """The cue is searched and cut as the config says, whose `cue_tokens` is 1 or more.

        Args:
            pool: None is an empty one. States are computed if the search needs them and they are missing.
        """
        pool = pool or Experience()
        if config.cue_states and pool.states is None:
            pool = with_states(pool, backbone, kind=_STATES)
        self.pool = pool
        self._backbone, self._config = backbone, config
        self._retriever = Retriever(pool, "fused" if config.cue_states else "bm25")

    def with_entries(self, trajectories: Sequence[PastTrajectory], insights: Sequence[Insight] = ()) -> "Recall":
        """A recall with further entries: trajectories as the last ones, each replacing one with the same id, and
        insights merged with the present ones.

        An entry that no cue has room for is left out.
        """
        known = {entry.entry_id: entry for entry in self.pool.trajectories}
        for entry in trajectories:
            known.pop(entry.entry_id, None)
            if self._has_room(entry):
                known[entry.entry_id] = entry
        kept = tuple(known.values())[-MOST_ENTRIES:]
        rules = merged_insights([*self.pool.insights, *filter(self._has_room, insights)])[:MOST_INSIGHTS]
        return Recall(self._backbone, self._config, Experience(kept, rules))

    def cues(self, conversations: Sequence[Sequence[ChatMessage]], *, leave_one_out: bool = False) -> list[Cue]:
        """What the weaver reads beside each conversation: it is searched by the question that it begins with, so it
        stays the same from turn to turn.

        Args:
            leave_one_out: for training. Nothing is found of the very same question, whose answer is the target.

        Returns:
            A cue for each. It is empty where nothing alike is known, or the base can't read so long a question.
        """
        questions = [question_of(messages) for messages in conversations]
        return [
            self._cue(question, state, leave_one_out)
            for question, state in zip(questions, self._states(questions), strict=True)
        ]

    def _cue(self, question: str, state: Tensor | None, leave_one_out: bool) -> Cue:
        if not self.pool.entries or (self._config.cue_states and state is None):
            return NO_CUE
        query = Query(
            question,
            state=state,
            trajectories=_TRAJECTORIES,
            insights=self._config.cue_insights,
            leave_one_out=leave_one_out,
        )
        return self._rendered(self._retriever.search(query))

    def _has_room(self, entry: Entry) -> bool:
        return bool(self._rendered([Hit(entry, 1.0)]).entry_ids)

    def _rendered(self, hits: Sequence[Hit]) -> Cue:
        return render_cue(self._backbone.profile, hits, max_tokens=self._config.cue_tokens)

    def _states(self, questions: Sequence[str]) -> list[Tensor | None]:
        """States of the questions that the base can read, if states are searched."""
        found: list[Tensor | None] = [None] * len(questions)
        if not self._config.cue_states or not self.pool.entries:
            return found
        longest, profile = self._backbone.max_tokens, self._backbone.profile
        fit = [n for n, question in enumerate(questions) if len(profile.text_ids(question, begin=True)) <= longest]
        states = text_states(self._backbone, [questions[n] for n in fit], kind=_STATES)
        for number, state in zip(fit, states, strict=True):
            found[number] = state
        return found
