"""Every call that the client had under `api.client` is still there for this release, and does the same."""

import uuid
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

import pytest

import api.client
from api.client.deprecated import CALLED, NEW_NAMES, WHOLE
from memgen_client import JsonClient, Update
from registry.database import transaction
from registry.settings import Settings
from registry.wiring import Services
from tests.api.live_api import serve
from tests.api.stored import make_adapter, make_gate, make_task, make_version
from tests.trajectory_samples import chat

FORMER_METHODS = """
adapter adapter_changes alias_at apply_retention approve archive cancel change_adapter change_schedule chat close
collect_garbage compare create_adapter create_key create_schedule create_task delete_data delete_schedule deletion
deletions end_route evaluate events export_version follow gate gate_items give_feedback history import_version job jobs
list_adapters list_keys list_schedules list_tasks promote reject retention revoke_key rollback route route_results
routes schedule schedule_history schedule_runs scores set_retention standings start_route stream_chat tag train
train_trigger trajectories trajectory_lineage unarchive untag upload version version_history version_lineage versions
"""


def former(url: str, key: str) -> api.client.Client:
    with pytest.warns(DeprecationWarning, match=r"^api.client.Client is now memgen_client.JsonClient; ") as warned:
        made = api.client.Client(url, key)
    assert [each.filename for each in warned] == [__file__]
    return made


@pytest.fixture
def client(settings: Settings, tiny_base: Path, api_key: str) -> Iterator[api.client.Client]:
    with serve(settings.model_copy(update={"base_model": str(tiny_base)})) as url, former(url, api_key) as opened:
        yield opened


def test_every_former_method_is_there() -> None:
    with former("http://127.0.0.1:1", "mg_any") as client:  # nothing is sent
        assert {name for name in FORMER_METHODS.split() if not callable(getattr(client, name))} == set()
        for old, new in NEW_NAMES.items():
            noun, method = new.split(".")
            if method not in WHOLE.get(noun, ()):
                assert getattr(client, old).__wrapped__ == attrgetter(new)(client).__wrapped__
        assert not hasattr(client, "nothing")
        for noun, methods in WHOLE.items():
            assert all(callable(getattr(getattr(client, noun), method)) for method in methods)
        with pytest.raises(TypeError, match="aliases"):
            client.aliases()
    assert set(CALLED) <= set(FORMER_METHODS.split())
    assert isinstance(client, JsonClient)
    assert not hasattr(api.client.Client.__new__(api.client.Client), "train")


def test_listings_give_every_row_as_they_did(
    client: api.client.Client, services: Services, project_id: uuid.UUID
) -> None:
    with transaction(services.sessions) as session:
        adapter, task = make_adapter(session, project_id), make_task(session, project_id, "t")
        for _ in range(2):
            make_gate(session, make_version(session, adapter, task), task, before=0.1, after=0.5)
    old = vars(client)  # typed code sees the new names only
    sent: list[int] = []
    assert attrgetter("upload")(client)([chat(), chat("second")], task="t", on_bytes=sent.append)["accepted"] == 2
    assert (len(sent), sent[0] > 100) == (1, True)
    assert [row["messages"][0]["content"] for row in old["trajectories"].list(task="t")][1] == "second"
    assert [row["number"] for row in old["versions"]("bot")] == [1, 2]
    assert [row["tags"] for row in attrgetter("standings")(client)("bot")] == [[], []]
    attrgetter("promote")(client)("bot", 1)
    assert [move["to_version"] for move in attrgetter("history")(client)("bot")] == [1]
    assert [*old["recordings"].runs()] == []
    assert len(old["jobs"](limit=1)["data"]) == 1
    job = attrgetter("cancel")(client)(old["jobs"](limit=1)["data"][0]["id"])
    updates = [*attrgetter("follow")(client)(job["id"])]
    assert updates[-1] == Update("job", job)
    assert api.client.JobUpdate is api.client.Update is Update
