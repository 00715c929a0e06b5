"""Recordings in the dashboard: policies set and cleared, what was left out and why, runs searched and read."""

import re
import uuid

import pytest

from registry.clock import utc_now
from registry.database import transaction
from registry.recordings.counts import add_counts
from registry.wiring import Services
from tests.api.dashboard.conftest import Visitor, forms_of, key_with, wrongs_of
from tests.registry.conftest import Rows
from tests.registry.recordings.test_joining import Agent, said, user
from tests.registry.routed import make_routed

SET = "/ui/recordings"


@pytest.fixture
def agent(rows: Rows) -> Agent:
    """Beside an adapter `bot`, tasks `a` and `t`."""
    make_routed(rows)
    rows.task("t", [])
    made = Agent(rows.services, rows.project_id)
    made.now = utc_now()  # the application itself closes runs that have been silent for long
    return made


def test_policies_are_set_and_cleared(visitor: Visitor, agent: Agent) -> None:
    page = visitor.open("/recordings")
    of_all = visitor.send(page, SET, mode="all", share="0.5", task="a", idle_seconds="90")
    assert "Of answers of the project, all is recorded from now on." in of_all.text
    assert "50%" in of_all.text
    assert "90 s" in of_all.text
    assert "/ui/recordings/clear/bot" not in forms_of(of_all.text)
    of_bot = visitor.send(page, SET, adapter="bot", mode="off")
    assert "Of answers of bot, off is recorded from now on." in of_bot.text
    cleared = visitor.send(of_bot.text, "/ui/recordings/clear/bot")
    assert "What the project says is recorded of bot from now on." in cleared.text
    assert "/ui/recordings/clear/bot" not in forms_of(cleared.text)


@pytest.mark.parametrize(
    ("fields", "place", "status"),
    [
        ({"share": "2"}, "share", 422),
        ({"share": "half"}, "share", 422),
        ({"idle_seconds": "0"}, "idle_seconds", 422),
        ({"mode": "some"}, "mode", 422),
        ({"task": "gone"}, "task", 404),
        ({"adapter": "gone"}, "adapter", 404),
    ],
)
def test_a_refused_policy_says_so_at_its_field(
    visitor: Visitor, agent: Agent, fields: dict[str, str], place: str, status: int
) -> None:
    sent = {"adapter": "bot", "mode": "all", "share": "0.25", "task": "a", "idle_seconds": "30", **fields}
    refused = visitor.send(visitor.open("/recordings"), SET, **sent)
    assert refused.status_code == status
    assert list(wrongs_of(refused.text)) == [f"policy-{place}"]
    kept = forms_of(refused.text)[SET]
    assert {name: kept[name] for name in ("share", "idle_seconds")} == {
        name: sent[name] for name in ("share", "idle_seconds")
    }
    assert "as the service says" in refused.text, "nothing was set"


def test_what_was_left_out_says_why(visitor: Visitor, services: Services, agent: Agent) -> None:
    with transaction(services.sessions) as session:
        add_counts(session, {(agent.project_id, "recorded"): 9, (agent.project_id, "no_task"): 4})
        add_counts(session, {(agent.project_id, "dropped"): 70})
    page = visitor.open("/recordings")
    assert "9 answers recorded" in page
    left_out = re.findall(r"<tr><td>([\w ]+)</td><td>(\d+)</td></tr>", page)
    assert left_out == [("dropped", "70"), ("no task", "4")], "the most frequent first"


def test_runs_are_searched_and_read(visitor: Visitor, agent: Agent) -> None:
    call = agent.call([user("Where is <it>?")], "Here.", session_id="s1")
    [joined] = agent.record(call)
    agent.send([user("Where is <it>?"), said("Here."), user("Thanks")], "Bye.", session_id="s1")
    other = agent.send([user("other")], "x", session_id="s2")
    run = joined.run_id
    for query, found in (
        ("", {run, other}),
        ("?session=s1", {run}),
        ("?task=t&state=open", {run, other}),
        ("?state=closed", set()),
        ("?task=a", set()),
        (f"?completion={call.completion_id}", {run}),
    ):
        page = visitor.open(f"/recordings{query}")
        assert set(map(uuid.UUID, re.findall(r'href="/ui/runs/([0-9a-f-]{36})"', page))) == found, query
    assert "That did not work" in visitor.open(f"/recordings?session={'x' * 600}", status=422)
    page = visitor.open(f"/runs/{run}")
    for text in ("Where is &lt;it&gt;?", "Bye.", call.completion_id, "2 answers recorded", "nothing yet"):
        assert text in page, text
    ids = {str(trajectory.id) for trajectory in agent.close()}
    [became] = re.findall(r'href="/ui/trajectories/([0-9a-f-]{36})"', visitor.open(f"/runs/{run}"))
    assert became in ids
    assert "<h1>There is no such page</h1>" in visitor.open(f"/runs/{uuid.uuid4()}", status=404)


def test_who_may_read_alone_sets_nothing(
    stranger: Visitor, services: Services, project_id: uuid.UUID, agent: Agent
) -> None:
    _, key = key_with(services, project_id, "read")
    stranger.sign_in(key)
    forms = forms_of(stranger.open("/recordings"))
    assert SET in forms, "the search is a form of the same path"
    assert "mode" not in forms[SET]
    csrf = forms["/ui/sign-out"]["csrf"]
    for action in (SET, "/ui/recordings/clear/bot"):
        assert stranger.http.post(action, data={"mode": "all", "csrf": csrf}).status_code == 403
