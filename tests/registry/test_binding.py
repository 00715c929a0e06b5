"""Adapters and the scores of the bare base hold for one reading of texts, not for the weights alone."""

import uuid
from collections.abc import Mapping

import pytest
import sqlalchemy as sa

from memgen.backbone.identity import FILES
from registry.adapters import get_adapter
from registry.binding import PARTS, ServedBase, bind_unbound, changed_parts, check_bound
from registry.database import transaction
from registry.datasets.suites import freeze_suite
from registry.errors import BaseChanged
from registry.gates.evaluations import find_evaluation, newest_scores, record_evaluation, subject_of
from registry.models import Adapter, Evaluation
from registry.tasks import get_task
from tests.registry.conftest import Rows, refused_as_immutable
from tests.registry.stored_versions import beside, make_stored_version

IDENTITY = {"tokenizer": "t1", "chat_template": "c1", "generation_config": "g1"}


def _base(revision: str = "r1", **changed: str) -> ServedBase:
    return ServedBase("tiny", revision, {**IDENTITY, **changed})


def _bind(rows: Rows, base: ServedBase) -> list[str]:
    with transaction(rows.services.sessions) as session:
        return bind_unbound(session, base)


def _adapter(rows: Rows) -> Adapter:
    with transaction(rows.services.sessions) as session:
        return get_adapter(session, rows.project_id, rows.adapter)


def _identify(rows: Rows, identity: Mapping[str, str] | None) -> None:
    with transaction(rows.services.sessions) as session:
        get_adapter(session, rows.project_id, rows.adapter).base_identity = dict(identity) if identity else None


def _score_base(rows: Rows, score: float, task: str = "a") -> uuid.UUID:
    """Record the bare base's score as a worker does for the adapter; returns the suite's id."""
    with transaction(rows.services.sessions) as session:
        suite = freeze_suite(session, get_task(session, rows.project_id, task))
        assert suite is not None
        subject = subject_of(get_adapter(session, rows.project_id, rows.adapter), None)
        items = [{"score": score, "answer": ""}] * suite.items
        record_evaluation(session, subject, suite.id, score=score, items=items, seconds=0.1)
        return suite.id


def _known_score(rows: Rows, suite: uuid.UUID) -> float | None:
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, rows.adapter)
        subject = subject_of(adapter, None)
        found = find_evaluation(session, subject, suite)
        newest = newest_scores(session, subject, [get_task(session, rows.project_id, "a")])
        assert newest == ({"a": found} if found else {})
        return found.score if found else None


@pytest.mark.parametrize("part", IDENTITY)
def test_a_part_that_changed_is_named_with_its_file(rows: Rows, part: str) -> None:
    _identify(rows, IDENTITY)
    check_bound(_adapter(rows), _base())
    with pytest.raises(BaseChanged) as refused:
        check_bound(_adapter(rows), _base(**{part: "x"}))
    named = [name for name, words in PARTS.items() if words in str(refused.value)]
    assert named == [part]
    assert "bring the files back as they were" in str(refused.value)
    with pytest.raises(BaseChanged, match=r"tiny at r1; this worker has tiny at r2, so the weights or config\.json"):
        check_bound(_adapter(rows), _base("r2", **{part: "x"}), holder="this worker")


def test_both_packages_name_the_parts_alike() -> None:
    assert FILES == PARTS
    assert changed_parts(None, IDENTITY) == changed_parts(IDENTITY, None) == changed_parts(IDENTITY, IDENTITY) == []
    assert changed_parts({**IDENTITY, "more": "1"}, {"more": "2"}) == ["more"]


def test_rows_of_an_earlier_release_are_bound_at_first_sight_and_stay_so(rows: Rows) -> None:
    rows.task("a")
    other = beside(rows, "other")
    with transaction(rows.services.sessions) as session:
        get_adapter(session, rows.project_id, "other").base_revision = "r2"
    check_bound(_adapter(rows), _base())
    suite = _score_base(rows, 0.25)
    version = make_stored_version(rows, "a")
    assert _bind(rows, _base()) == ["bot"]
    assert _bind(rows, _base(chat_template="c2")) == []
    assert (_adapter(rows).base_identity, _adapter(other).base_identity) == (IDENTITY, None)
    assert _known_score(rows, suite) == 0.25
    with transaction(rows.services.sessions) as session:
        kept = session.scalars(sa.select(Evaluation).where(Evaluation.version_id == version.id)).one()
        assert (kept.base_identity, kept.score) == (IDENTITY, 1.0)
    with refused_as_immutable("evaluations"), transaction(rows.services.sessions) as session:
        session.execute(sa.text("update evaluations set base_identity = '{}'"))
    with pytest.raises(BaseChanged, match="chat template"):
        check_bound(_adapter(rows), _base(chat_template="c2"))


def test_of_a_row_without_an_identity_only_that_is_filled_in(rows: Rows) -> None:
    rows.task("a")
    _score_base(rows, 0.25)
    with refused_as_immutable("evaluations"), transaction(rows.services.sessions) as session:
        session.execute(sa.text("update evaluations set base_identity = '{}', score = 1"))


@pytest.mark.parametrize("part", IDENTITY)
def test_a_score_of_the_base_is_read_again_only_for_the_same_reading(rows: Rows, part: str) -> None:
    rows.task("a")
    _identify(rows, IDENTITY)
    suite = _score_base(rows, 0.25)
    edited = beside(rows, "edited")
    assert _known_score(edited, suite) is None, "an adapter that isn't bound yet"
    _identify(edited, {**IDENTITY, part: "x"})
    assert _known_score(edited, suite) is None
    assert _score_base(edited, 0.75) == suite
    assert (_known_score(rows, suite), _known_score(edited, suite)) == (0.25, 0.75)
    same = beside(rows, "same")
    _identify(same, dict(reversed(IDENTITY.items())))
    assert _known_score(same, suite) == 0.25


def test_a_score_of_an_older_process_beside_a_new_one_stops_nothing(rows: Rows) -> None:
    """While a deployment is half new, the same entry may be recorded with an identity and without."""
    rows.task("a")
    suite = _score_base(rows, 0.25)
    _identify(rows, IDENTITY)
    _score_base(rows, 0.75)
    assert _bind(rows, _base()) == []
    assert _known_score(rows, suite) == 0.75
