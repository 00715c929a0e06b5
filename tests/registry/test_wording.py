"""Numbers and their nouns."""

from registry.wording import counted


def test_one_is_in_the_singular_and_all_else_in_the_plural() -> None:
    assert [counted(number, "new trajectory") for number in (0, 1, 2)] == [
        "0 new trajectories",
        "1 new trajectory",
        "2 new trajectories",
    ]
    assert [counted(hours, "quiet hour") for hours in (1.0, 0.5, 24.0)] == [
        "1 quiet hour",
        "0.5 quiet hours",
        "24 quiet hours",
    ]
    assert counted(12_345_678, "byte") == "12345678 bytes"
    assert [counted(2, noun) for noun in ("day", "key", "reply")] == ["2 days", "2 keys", "2 replies"]
