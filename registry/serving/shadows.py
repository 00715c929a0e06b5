"""Comparison of a shadow's answers with the returned ones. Texts are not kept, and a shadow's never reach a user."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from registry.clock import utc_now
from registry.models import Exposure, ShadowAnswer

_MOST_ERROR_CHARACTERS = 500


@dataclass(frozen=True)
class ShadowReply:
    """One of the two answers that are compared: the returned one or the shadow's."""

    text: str
    seconds: float
    """Time that its generation took."""
    tokens: int


def record_shadow(
    session: Session, completion_id: str, route_id: uuid.UUID, returned: ShadowReply, shadow: ShadowReply | str
) -> None:
    """Record how the two answers compare, without their texts.

    Does nothing if the exposure is not there (any more).

    Args:
        shadow: the shadow's answer, or the reason why it failed.
    """
    if session.get(Exposure, completion_id) is None:
        return
    found: dict[str, Any] = {"seconds": returned.seconds, "tokens": returned.tokens}
    if isinstance(shadow, ShadowReply):
        found["same"] = returned.text.strip() == shadow.text.strip()
        found["similarity"] = similarity(returned.text, shadow.text)
        found |= {"shadow_seconds": shadow.seconds, "shadow_tokens": shadow.tokens}
    else:
        found["error"] = shadow[:_MOST_ERROR_CHARACTERS]
    session.execute(
        insert(ShadowAnswer)
        .values(completion_id=completion_id, route_id=route_id, at=utc_now(), **found)
        .on_conflict_do_nothing()
    )


def similarity(one: str, other: str) -> float:
    """Twice the words in common and in order, over all words: "a b c d" and "a c d" give 6/7; equal texts 1."""
    words, others = one.split(), other.split()
    return 2 * _common_in_order(words, others) / (len(words) + len(others)) if words or others else 1.0


def _common_in_order(one: Sequence[str], other: Sequence[str]) -> int:
    """Words of the longest common subsequence. A model may repeat itself a thousand times, so each word of `other` is
    compared with all of `one` at once, a bit for each (Hyyro 2004).

    For `a b c d e` and `d e a x b x c`: 3.
    """
    places: dict[str, int] = {}
    for place, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << place
    every = (1 << len(one)) - 1
    unmatched = every
    for word in other:
        matching = unmatched & places.get(word, 0)
        unmatched = (unmatched + matching | unmatched - matching) & every
    return len(one) - unmatched.bit_count()
