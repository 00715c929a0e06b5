"""Whether an answer is whole, by what its server calls its end."""

import pytest

from registry.trajectories.finish_reasons import is_unfinished


@pytest.mark.parametrize(
    ("reason", "unfinished"),
    [
        ("stop", False),
        ("tool_calls", False),
        ("end_turn", False),
        ("STOP", False),
        ("some.thing.new", False),
        ("", False),
        (None, False),
        ("length", True),
        ("max_tokens", True),
        ("MAX_TOKENS", True),
        ("FinishReason.MAX_TOKENS", True),
        ("content-filter", True),
        ("error", True),
        ("abort", True),
    ],
)
def test_what_was_cut_off_is_unfinished(reason: str | None, unfinished: bool) -> None:
    assert is_unfinished(reason) is unfinished
