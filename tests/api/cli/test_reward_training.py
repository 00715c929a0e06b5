"""Training from reward on the command line, against the real application."""

import uuid

import pytest

from registry.adapters import get_adapter
from registry.database import transaction
from registry.wiring import Services
from tests.api.cli.invoking import fail, memgen, succeed
from tests.api.stored import make_adapter, make_task, make_version


@pytest.fixture
def bot(api_url: str, services: Services, project_id: uuid.UUID) -> None:
    """Adapters `bot` and `asks`, which has a version and a trigger to be learned, and a task `t`."""
    with transaction(services.sessions) as session:
        make_adapter(session, project_id)
        task = make_task(session, project_id, "t")
        succeed("adapter", "create", "asks", "--memory", "trigger=head")
        make_version(session, get_adapter(session, project_id, "asks"), task)


def test_a_method_and_an_environment_can_be_chosen(bot: None) -> None:
    asked = ("train", "bot", "--task", "t", "--method", "grpo", "--set", "group_size=4", "--no-wait", "--json")
    params = succeed(*asked).document["job"]["params"]
    assert (params["method"], params["training"]["group_size"]) == ("grpo", 4)
    chosen = ("--environment", "textworld", "--environment-set", "level=1", "--items", "9")
    environment = succeed(*asked, *chosen).document["job"]["params"]["environment"]
    assert environment == {"name": "textworld", "options": {"level": 1}, "items": 9}
    assert memgen("train", "bot", "--task", "t", "--method", "dpo").code == 2
    assert memgen(*asked, "--items", "9").code == 2
    assert "no prompt with several recorded answers" in fail("train", "bot", "--task", "t", "--method", "grpo_recorded")


def test_a_trigger_is_trained_from_a_version(bot: None) -> None:
    asked = ("train-trigger", "asks", "--parent", "1", "--steps", "5", "--set", "penalty=0.05", "--no-wait")
    job = succeed(*asked, "--json").document["job"]
    assert (job["kind"], job["params"]["parent"], job["params"]["tasks"]) == ("train_trigger", 1, ["t"])
    assert (job["params"]["training"]["steps"], job["params"]["training"]["penalty"]) == (5, 0.05)
    assert "is queued" in succeed(*asked, "--task", "t").out
    assert "has nothing to learn" in fail("train-trigger", "bot", "--parent", "1")
    assert memgen("train-trigger", "asks").code == 2
