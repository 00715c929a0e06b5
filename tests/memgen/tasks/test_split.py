"""The split of items by their text."""

from hashlib import sha256

from memgen.tasks.split import is_held_out, question_digest


def test_case_and_white_space_do_not_matter() -> None:
    assert question_digest(" What is\n2 + 2?") == question_digest("what is 2 + 2?")
    assert question_digest("What is 2 + 2?") == sha256(b"what is 2 + 2?").hexdigest()


def test_one_in_so_many_is_held_out() -> None:
    held_out = [is_held_out(f"question {n}", one_in=4) for n in range(4000)]
    assert 900 < sum(held_out) < 1100


def test_the_split_is_fixed_for_good() -> None:
    assert [n for n in range(20) if is_held_out(f"question {n}")] == [9, 18]
