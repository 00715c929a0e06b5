"""The text of a cue: what was found in past experience, within a number of tokens.

Insights stand first, for they are short and hold for many prompts; then past trajectories, the best hit first. An
entry that does not fit is left out whole: a cut example would end without its answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from memgen.errors import ConfigError
from memgen.experience.pool import Entry, Insight, PastTrajectory
from memgen.experience.retrieval import Hit
from memgen.text.profile import BaseProfile

_RULES = "Rules learned from experience:\n"
_CASES = "Past cases:\n"


@dataclass(frozen=True)
class Cue:
    text: str
    token_ids: tuple[int, ...]
    """Begun as the tokenizer begins any text, for the base reads a cue by itself; empty if nothing fits."""
    entry_ids: tuple[str, ...]
    """Ids of the entries in it, in their order."""


NO_CUE = Cue("", (), ())


def render_cue(profile: BaseProfile, hits: Sequence[Hit], *, max_tokens: int) -> Cue:
    """A cue of as many of the hits as fit into `max_tokens`; each that does not is left out.

    Raises:
        ConfigError: `max_tokens` is less than 1.
    """
    if max_tokens < 1:
        raise ConfigError(f"max_tokens of a cue is {max_tokens}; expected at least 1")
    cue = NO_CUE
    kept: list[Entry] = []
    for entry in sorted((hit.entry for hit in hits), key=lambda entry: isinstance(entry, PastTrajectory)):
        text = _text([*kept, entry])
        token_ids = profile.text_ids(text, begin=True)
        if len(token_ids) <= max_tokens:
            kept.append(entry)
            cue = Cue(text, token_ids, tuple(e.entry_id for e in kept))
    return cue


def _text(entries: Sequence[Entry]) -> str:
    """Insights, then trajectories."""
    rules = [f"- {entry.text.strip()}\n" for entry in entries if isinstance(entry, Insight)]
    cases = [
        f"Q: {entry.prompt.strip()}\nA: {entry.answer.strip()}\n"
        for entry in entries
        if isinstance(entry, PastTrajectory)
    ]
    return "".join([*([_RULES] if rules else []), *rules, *([_CASES] if cases else []), *cases])
