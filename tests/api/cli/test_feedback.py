"""`memgen feedback` against the real application."""

from tests.api.cli.invoking import memgen, succeed


def test_feedback_is_given_listed_and_searched(api_url: str) -> None:
    assert succeed("feedback").out == "None yet.\n"
    given = succeed("feedback", "s1", "0.25", "--of", "session", "--source", "environment", "--comment", "too slow")
    assert given.out == "0.25 for s1.\n"
    listed = succeed("feedback", "--search", "slow").out
    assert listed.splitlines()[1].split()[2:6] == ["session", "s1", "0.25", "environment"]
    assert succeed("feedback", "--search", "fast", "--json").document["data"] == []
    assert [row["session_id"] for row in succeed("feedback", "s1", "--of", "session", "--json").document["data"]] == [
        "s1"
    ]
    refused = memgen("feedback", "s1", "0.5", "--of", "session", "--source", "environment")
    assert (refused.code, "(409 feedback_differs)" in refused.err) == (1, True)
    assert memgen("feedback", "s1", "0.5", "--of", "day").code == 2
