"""An adapter with a loop answers from the first hour on, as the bare base, so that there is something to record."""

import pytest

from registry.adapters import get_adapter
from registry.database import transaction
from registry.errors import AliasNotFound
from registry.loops.loops import delete_loop
from registry.serving.resolution import Resolution, ServingRequest, resolve
from tests.registry.conftest import Rows
from tests.registry.loops.looped import Looped


def _resolve(rows: Rows, model: str) -> Resolution:
    with transaction(rows.services.sessions) as session:
        return resolve(session, rows.project_id, model, ServingRequest("chatcmpl-1"))


def test_the_bare_base_answers_for_a_looped_adapter_until_it_has_a_champion(rows: Rows) -> None:
    rows.task("a")
    with pytest.raises(AliasNotFound):
        _resolve(rows, "bot")
    looped = Looped(rows)
    looped.set_up()
    found = _resolve(rows, "bot")
    assert (found.label, found.version, found.alias) == ("base", None, "champion")
    assert found.adapter is not None
    assert found.adapter.name == "bot"
    with pytest.raises(AliasNotFound):
        _resolve(rows, "bot@champion")
    looped.pass_hours(1)
    looped.judge(passed=True)
    assert _resolve(rows, "bot").label == "bot@1"


def test_without_its_loop_it_is_as_before(rows: Rows) -> None:
    rows.task("a")
    Looped(rows).set_up()
    with transaction(rows.services.sessions) as session:
        delete_loop(session, rows.project_id, "bot", actor="test")
    with pytest.raises(AliasNotFound):
        _resolve(rows, "bot")
    with transaction(rows.services.sessions) as session:
        assert get_adapter(session, rows.project_id, "bot").gate_policy == "canary"
