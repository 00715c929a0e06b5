"""Which items of a task are held out: decided by an item's text alone, so that no later choice can move one over."""

from hashlib import sha256


def is_held_out(question: str, *, one_in: int = 5) -> bool:
    """Whether the item with this question is held out, which one in `one_in` is.

    Questions that differ only in case and white space are on the same side.
    """
    return int(question_digest(question), 16) % one_in == 0


def question_digest(question: str) -> str:
    """A hash in hexadecimal of the question without case and runs of white space."""
    return sha256(" ".join(question.casefold().split()).encode()).hexdigest()
