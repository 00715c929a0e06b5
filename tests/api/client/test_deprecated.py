"""Every method that the client had under a flat name is still there for this release, warns once, and does the same."""

from collections.abc import Iterator
from operator import attrgetter
from typing import Any

import pytest

import api.client
from api.client.client import Client
from api.client.deprecated import NEW_NAMES
from api.client.noun import Noun

FLAT_METHODS = """
adapter adapter_changes alias_at apply_retention approve archive cancel change_adapter change_schedule chat close
collect_garbage compare create_adapter create_key create_schedule create_task delete_data delete_schedule deletion
deletions end_route evaluate events export_version follow gate gate_items give_feedback history import_version job jobs
list_adapters list_keys list_schedules list_tasks promote reject retention revoke_key rollback route route_results
routes schedule schedule_history schedule_runs scores set_retention standings start_route stream_chat tag train
train_trigger trajectories trajectory_lineage unarchive untag upload version version_history version_lineage versions
"""
CLASHING = [name for name in NEW_NAMES if NEW_NAMES[name].startswith(f"{name}.")]
"""Names that a noun bears today."""


@pytest.fixture
def client() -> Iterator[Client]:
    with Client("http://127.0.0.1:1", "mg_any") as opened:  # nothing is sent
        yield opened


def warning_of(old: str) -> str:
    return f"^Client.{old} is now Client.{NEW_NAMES[old]}; the old name goes with the next release$"


def test_every_flat_method_is_there_or_has_a_new_name(client: Client) -> None:
    kept = {name for name in FLAT_METHODS.split() if callable(getattr(Client, name, None))}
    assert kept == {"chat", "close", "follow", "give_feedback", "promote", "rollback", "stream_chat", "train", "upload"}
    assert set(NEW_NAMES) == set(FLAT_METHODS.split()) - kept


@pytest.mark.parametrize("old", [name for name in NEW_NAMES if name not in CLASHING])
def test_an_old_name_warns_once_and_is_the_new_method(client: Client, old: str) -> None:
    with pytest.warns(DeprecationWarning, match=warning_of(old)) as warned:
        found = getattr(client, old)
    assert found == attrgetter(NEW_NAMES[old])(client)
    assert isinstance(found.__self__, Noun)
    assert [each.filename for each in warned] == [__file__]


@pytest.mark.parametrize("old", CLASHING)
def test_a_noun_called_as_a_method_warns_once_and_does_the_same(
    client: Client, monkeypatch: pytest.MonkeyPatch, old: str
) -> None:
    called: list[tuple[Any, ...]] = []
    noun, method = NEW_NAMES[old].split(".")
    assert callable(getattr(getattr(client, noun), method))
    monkeypatch.setattr(getattr(client, noun), method, lambda *args, **options: called.append((args, options)))
    with pytest.warns(DeprecationWarning, match=warning_of(old)) as warned:
        getattr(client, old)("bot", limit=3)
    assert called == [(("bot",), {"limit": 3})]
    assert [each.filename for each in warned] == [__file__]


def test_the_clashing_names_are_these() -> None:
    assert CLASHING == ["deletions", "jobs", "retention", "routes", "trajectories", "versions"]


def test_another_name_is_an_attribute_error(client: Client) -> None:
    assert not hasattr(client, "nothing")
    assert not hasattr(api.client, "nothing")


def test_the_class_of_updates_has_its_old_name() -> None:
    with pytest.warns(DeprecationWarning, match="JobUpdate") as warned:
        found = getattr(api.client, "Update")  # noqa: B009 - typed code does not see it
    assert found is api.client.JobUpdate
    assert len(warned) == 1


@pytest.mark.parametrize("name", ["versions", "jobs", "list_tasks_"])
def test_a_client_that_is_not_made_yet_has_no_nouns(name: str) -> None:
    assert not hasattr(Client.__new__(Client), name)
