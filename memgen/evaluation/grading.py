"""The score of one item: what a grader says of an answer, and what is said where a grader can't.

Whether an item or an answer is at fault decides what a failing grader means. If it fails on the expert's own turn as
well, nobody can be judged on the item, and it is left out. If it fails on this answer alone, the answer is wrong:
otherwise a model could learn to be judged on what it knows only.
"""

from dataclasses import dataclass

from memgen.errors import Cancelled, SandboxUnavailable, in_one_line
from memgen.tasks.graders import Grader, Reference
from memgen.text.answers import Answer, message_calls, message_text, parse_answer


@dataclass(frozen=True)
class ItemScore:
    score: float
    """In [0, 1]; 0 for an item that was left out."""
    answer: str
    note: str = ""
    """Why it was left out, or what went wrong with its grading; empty if nothing did."""
    left_out: bool = False
    """Whether it says nothing of the subject, and does not count."""


def grade_answer(grade: Grader, text: str, reference: Reference) -> ItemScore:
    """The score of an answer's text.

    Raises:
        SandboxUnavailable: this system can't isolate what is to be run, for this item as for any other.
        Cancelled: raised by the grader.
    """
    try:
        return ItemScore(_checked(grade(parse_answer(text), reference)), text)
    except (Cancelled, SandboxUnavailable):
        raise
    except Exception as error:  # whatever it raises concerns this item only
        note = f"its grading failed: {in_one_line(error)}"
    return ItemScore(0.0, text, note, left_out=_fails_on_the_expert(grade, reference))


def _fails_on_the_expert(grade: Grader, reference: Reference) -> bool:
    try:
        calls = tuple(message_calls(reference.message))
        _checked(grade(Answer(message_text(reference.message) or None, calls), reference))
    except (Cancelled, SandboxUnavailable):
        raise
    except Exception:  # as above
        return True
    return False


def _checked(score: float) -> float:
    if not 0.0 <= score <= 1.0:  # which NaN is not either
        raise ValueError(f"the grader's score is {score}; expected 0 to 1")
    return score
