"""Settings of an adapter: checked, changed with an audit, and refused where they mean nothing."""

from dataclasses import fields
from typing import Any

import pytest
import sqlalchemy as sa

from registry.adapters import AdapterSettings, adapter_changes, change_adapter, create_adapter, get_adapter
from registry.database import transaction
from registry.errors import Invalid
from registry.models import Adapter
from tests.registry.conftest import Rows, refused_as_immutable


def _create(rows: Rows, **values: Any) -> AdapterSettings:
    with transaction(rows.services.sessions) as session:
        made = create_adapter(session, rows.project_id, name="other", base_model="tiny", base_revision="r1", **values)
        return AdapterSettings.of(made)


def test_defaults_and_choices(rows: Rows) -> None:
    chosen: dict[str, Any] = {"gate_rule": "non_inferior", "gate_policy": "canary", "retry_replay_share": 0.5}
    made = _create(rows, **chosen)
    assert made == AdapterSettings(**chosen)
    # Who chooses canaries chooses that they end by themselves, well too.
    assert (made.canary_promotion, made.canary_margin) == ("non_inferior", 0.05)


def test_every_setting_is_a_column_without_a_default_of_its_own() -> None:
    for setting in fields(AdapterSettings):
        column = Adapter.__table__.c[setting.name]
        assert column.default is None
        assert column.nullable is (setting.default is None)


def test_how_canaries_end_can_be_chosen(rows: Rows) -> None:
    made = _create(rows, canary_promotion="better", canary_margin=0.1)
    assert (made.canary_promotion, made.canary_margin) == ("better", 0.1)


@pytest.mark.parametrize("strategy", ["sequential", "isolated"])
def test_only_replay_replays(rows: Rows, strategy: str) -> None:
    made = _create(rows, strategy=strategy, retry_replay_share=0.5)
    assert (made.replay_share, made.retry_replay_share) == (0.0, None)
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, "other", lock=True)
        with pytest.raises(Invalid, match="which replays nothing"):
            change_adapter(session, adapter, {"retry_replay_share": 0.5}, actor="test", reason="")


@pytest.mark.parametrize(
    "wrong",
    [
        {"gate_rule": "guess"},
        {"gate_policy": "hope"},
        {"gate_level": 0.0},
        {"gate_level": 1.0},
        {"gate_margin": 1.1},
        {"replay_share": 1.0},
        {"canary_share": 0.6},
        {"canary_promotion": "always"},
        {"canary_margin": 0.0},
        {"canary_margin": 1.0},
        {"retry_replay_share": 0.25},
        {"strategy": "other"},
    ],
)
def test_what_is_out_of_range_is_refused(rows: Rows, wrong: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match=next(iter(wrong)).removeprefix("gate_").split("_")[0]):
        _create(rows, **wrong)


def test_changes_are_recorded_and_the_record_stands(rows: Rows) -> None:
    def change(**changes: Any) -> bool:
        with transaction(rows.services.sessions) as session:
            adapter = get_adapter(session, rows.project_id, "bot", lock=True)
            return change_adapter(session, adapter, changes, actor="anna", reason="why") is not None

    assert change(gate_margin=0.1, gate_policy="manual")
    assert not change(gate_margin=0.1)
    with pytest.raises(Invalid):
        change(gate_margin=2.0)
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, "bot")
        assert (adapter.gate_margin, adapter.gate_policy) == (0.1, "manual")
        [only] = adapter_changes(session, adapter)
        assert only.changes == {
            "gate_margin": {"from": 0.05, "to": 0.1},
            "gate_policy": {"from": "automatic", "to": "manual"},
        }
        assert (only.actor, only.reason) == ("anna", "why")
    with (
        refused_as_immutable("adapter_changes"),
        transaction(rows.services.sessions) as session,
    ):
        session.execute(sa.text("update adapter_changes set actor = 'nobody'"))
