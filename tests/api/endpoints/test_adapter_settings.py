"""An adapter's settings are listed in one place; whoever sends, shows or explains them knows all of them."""

from dataclasses import fields

import pytest
import typer
from pydantic import BaseModel, ValidationError

from api.cli.adapters import app
from api.endpoints.adapters import AdapterChangeIn, AdapterIn
from api.http.schemas import AdapterOut
from memgen_client.options import AdapterSettings as ClientSettings
from registry.adapters import AdapterSettings

SETTINGS = fields(AdapterSettings)


@pytest.mark.parametrize("model", [AdapterIn, AdapterChangeIn, AdapterOut])
def test_every_body_has_every_setting_with_its_meaning(model: type[BaseModel]) -> None:
    assert model.__name__ in ("AdapterIn", "AdapterChangeIn", "AdapterOut")
    for setting in SETTINGS:
        assert model.model_fields[setting.name].description == setting.metadata["meaning"]


def test_a_new_adapter_has_the_defaults_and_a_change_has_none() -> None:
    defaults = {setting.name: setting.default for setting in SETTINGS}
    body = AdapterIn(name="bot")
    assert {name: getattr(body, name) for name in defaults} == defaults
    change = AdapterChangeIn(gate_margin=None, gate_level=0.1, retry_replay_share=None)
    assert change.changes() == {"gate_level": 0.1, "retry_replay_share": None}


@pytest.mark.parametrize("wrong", [{"gate_margin": "0.1"}, {"gate_rules": "point"}])
def test_bodies_stay_strict(wrong: dict[str, str]) -> None:
    for model, values in ((AdapterIn, {"name": "bot"}), (AdapterChangeIn, {})):
        with pytest.raises(ValidationError):
            model(**values, **wrong)


def test_the_command_and_the_client_name_every_setting() -> None:
    command = typer.main.get_command(app).commands["set"]
    [explained] = [param.help for param in command.params if param.name == "settings"]
    names = {setting.name for setting in SETTINGS}
    assert {name for name in names if name not in explained} == set()
    assert set(ClientSettings.__annotations__) == names
