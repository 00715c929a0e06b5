"""`memgen trajectories` against the real application."""

import json
import uuid
from pathlib import Path

from registry.database import transaction
from registry.trajectories.words import index_words
from registry.wiring import Services
from tests.api.cli.invoking import memgen, succeed
from tests.registry.conftest import chats


def test_trajectories_are_listed_and_searched(
    api_url: str, services: Services, project_id: uuid.UUID, tmp_path: Path
) -> None:
    assert succeed("trajectories").out == "None, or none that fits.\n"
    succeed("task", "create", "a", "--grader", "exact")
    file = tmp_path / "runs.jsonl"
    file.write_text("\n".join(map(json.dumps, chats(3, session_id="s1", reward=0.5, reward_source="user"))))
    succeed("upload", str(file), "--task", "a")
    with transaction(services.sessions) as session:
        index_words(session, project_id)
    newest, *_ = succeed("trajectories", "--json").document["data"]
    assert len(succeed("trajectories").out.splitlines()) == 4
    shown = succeed("trajectories", "--text", '"order 2" -nobody', "--task", "a", "--session", "s1").out.splitlines()
    assert shown[1].startswith(newest["id"]), "the newest is the first"
    assert "0.5 user" in shown[1]
    assert len(shown) == 2
    for nothing in (("--text", "parcel"), ("--session", "s2")):
        assert succeed("trajectories", *nothing, "--json").document["data"] == []
    sides = [succeed("trajectories", side, "--json").document["data"] for side in ("--held-out", "--trained-on")]
    assert sum(map(len, sides)) == 3
    first = memgen("trajectories", "--limit", "1")
    assert (first.code, len(first.out.splitlines()), "There are more" in first.err) == (0, 2, True)
    assert memgen("trajectories", "--limit", "0").code == 2
