"""How a shadow's answers are compared and what is kept of them."""

import sqlalchemy as sa

from registry.database import transaction
from registry.models import ShadowAnswer
from registry.serving.shadows import ShadowReply, record_shadow, similarity
from tests.registry.conftest import Rows
from tests.registry.routed import make_routed


def test_similarity_by_hand() -> None:
    assert similarity("a b c d", "a c d") == 6 / 7
    assert similarity("same  words", "same words") == 1.0
    assert similarity("one", "two") == 0.0
    assert similarity("", "") == 1.0
    assert similarity("a b c d e", "d e a x b x c") == 6 / 12, "a b c, not d e, which are fewer"


def test_answers_that_repeat_themselves_are_compared_in_no_time() -> None:
    """As small models do until their token limit."""
    assert similarity("x " * 20_000, "x y " * 10_000) == 20_000 / 40_000


def test_shadows_are_compared_and_forgotten(rows: Rows) -> None:
    routed = make_routed(rows)
    route = routed.start_shadow(6)
    returned = ShadowReply("yes it is", 0.5, 4)
    outcomes: list[ShadowReply | str] = [
        ShadowReply(" yes it is\n", 1.0, 4),
        ShadowReply("no it is", 2.0, 6),
        "ArtifactCorrupt: broken",
    ]
    for outcome in outcomes:
        completion = routed.ask()
        with transaction(rows.services.sessions) as session:
            record_shadow(session, completion, route.id, returned, outcome)
            record_shadow(session, completion, route.id, returned, "twice")
            record_shadow(session, "chatcmpl-nobody", route.id, returned, outcome)
    found = routed.results()
    assert found.shadow is not None
    assert (found.shadow.answers, found.shadow.failed, found.shadow.same) == (2, 1, 0.5)
    assert found.shadow.same_interval.low < 0.5 < found.shadow.same_interval.high
    assert found.shadow.similarity == (1 + 4 / 6) / 2
    assert (found.shadow.seconds, found.shadow.tokens) == ((0.5, 1.5), (4.0, 5.0))
    assert found.shadow.last_error == "ArtifactCorrupt: broken"
    main, beside = found.arms
    assert (main.exposures, beside.exposures, beside.difference, beside.weight) == (3, 0, None, 0.0)
    with transaction(rows.services.sessions) as session:
        columns = {column.name for column in sa.inspect(ShadowAnswer).columns}
        assert "text" not in columns
        assert session.scalar(sa.select(sa.func.count()).select_from(ShadowAnswer)) == 3
