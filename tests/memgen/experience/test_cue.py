"""The text of a cue and its budget; the byte tokenizer makes a token of each character."""

import pytest

from memgen.backbone.loading import Backbone
from memgen.errors import ConfigError
from memgen.experience.cue import Cue, render_cue
from memgen.experience.pool import Insight, PastTrajectory
from memgen.experience.retrieval import Hit

HITS = (
    Hit(PastTrajectory("t1", "sums", "2 + 3? ", "5", 1.0), 3.0),
    Hit(PastTrajectory("t2", "sums", "a long question " * 5, "no", 1.0), 2.0),
    Hit(PastTrajectory("t3", "sums", "1 + 1?", "2", 1.0), 1.0),
    Hit(Insight("i1", "sums", "Carry the ten."), 0.5),
)
RULES = "Rules learned from experience:\n- Carry the ten.\n"


def test_insights_stand_in_front_of_cases(backbone: Backbone) -> None:
    cue = render_cue(backbone.profile, HITS, max_tokens=500)
    long = ("a long question " * 5).strip()
    assert cue.text == f"{RULES}Past cases:\nQ: 2 + 3?\nA: 5\nQ: {long}\nA: no\nQ: 1 + 1?\nA: 2\n"
    assert cue.entry_ids == ("i1", "t1", "t2", "t3")
    assert backbone.tokenizer.decode(cue.token_ids) == cue.text
    assert render_cue(backbone.profile, HITS[:1], max_tokens=500).text == "Past cases:\nQ: 2 + 3?\nA: 5\n"


def test_what_does_not_fit_is_left_out_whole(backbone: Backbone) -> None:
    expected = f"{RULES}Past cases:\nQ: 2 + 3?\nA: 5\nQ: 1 + 1?\nA: 2\n"
    for budget, text in (
        (len(expected), expected),
        (len(expected) - 1, f"{RULES}Past cases:\nQ: 2 + 3?\nA: 5\n"),
        (len(RULES), RULES),
        (42, "Past cases:\nQ: 2 + 3?\nA: 5\nQ: 1 + 1?\nA: 2\n"),
        (41, "Past cases:\nQ: 2 + 3?\nA: 5\n"),
    ):
        cue = render_cue(backbone.profile, HITS, max_tokens=budget)
        assert cue.text == text
        assert len(cue.token_ids) == len(text) <= budget
    assert render_cue(backbone.profile, HITS, max_tokens=5) == Cue("", (), ())
    assert render_cue(backbone.profile, (), max_tokens=5) == Cue("", (), ())
    with pytest.raises(ConfigError, match="max_tokens of a cue is 0; expected at least 1"):
        render_cue(backbone.profile, HITS, max_tokens=0)
