"""`memgen recording`, against a live API."""

import uuid

import pytest

from registry.clock import utc_now
from registry.database import transaction
from registry.recordings.recorders import say_moved
from registry.wiring import Services
from tests.api.cli.invoking import succeed


@pytest.mark.usefixtures("api_url")
def test_what_is_stuck_in_any_process_is_shown(services: Services, project_id: uuid.UUID) -> None:
    assert succeed("recording", "show", "--json").document["stuck"] == 0
    assert "stuck" not in succeed("recording", "show").out
    with transaction(services.sessions) as session:
        say_moved(session, "elsewhere", utc_now(), waiting={project_id: 3, uuid.uuid4(): 5}, is_stuck=True)
    assert succeed("recording", "show", "--json").document["stuck"] == 3
    assert "3 answers stuck in a process (its log says why)" in succeed("recording", "show").out
